package memory

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestVisible(t *testing.T) {
	names := map[string]string{
		"a": `1`, wire.Name(`b"`): `2`, "": `3`, sealedName: `4`, sealedName + "x": `5`,
		wire.SealName: `6`, wire.PredecessorName: `7`, wire.AccountName: `8`,
	}
	whole := maps.Clone(names)
	plain := map[string]string{"a": `1`, wire.Name(`b"`): `2`, "": `3`}
	sealed := map[string]string{sealedName: `4`}
	both := maps.Clone(plain)
	maps.Copy(both, sealed)
	for _, test := range []struct {
		secret []byte
		want   map[string]string
	}{{nil, both}, {secret, sealed}} {
		r := roomWith(t, Settings{Secret: test.secret})
		assert.Equal(t, test.want, r.VisibleNames(names))
		assert.Equal(t, whole, names, "the caller's stay as they are")

		records := RecordsOf(&replica.View{Names: names})
		got := map[string]string{}
		for _, found := range r.Visible(records) {
			got[found.Name] = string(found.Stored)
		}
		assert.Equal(t, test.want, got)
		assert.Len(t, r.Visible([]Record{{Name: "", Err: fault.ErrCorrupt}}), 1, "an event that cannot be read can have any name")
	}
	assert.Empty(t, roomWith(t, Settings{}).VisibleNames(nil))
}

// fakeMemory has these records.
type fakeMemory struct {
	Memory
	records []Record
}

func (m fakeMemory) All(context.Context) ([]Record, error) { return m.records, nil }

func (m fakeMemory) Find(_ context.Context, name string, _ bool) (*Record, error) {
	for _, found := range m.records {
		if found.Name == name {
			return &found, nil
		}
	}
	return nil, nil
}

func TestRecordsAndKeysInOrder(t *testing.T) {
	records := func() []Record {
		return []Record{
			{Name: "c", Event: "$1"}, {Name: wire.Name(`a"`), Event: "$2"}, {Name: "b", Event: "$3"},
			{Err: fault.ErrCorrupt, Event: "$5"}, {Err: fault.ErrCorrupt, Event: "$4"},
		}
	}
	h := Handle{roomWith(t, Settings{}), fakeMemory{records: records()}}
	got, err := h.Records(t.Context())
	require.NoError(t, err)
	var events []id.EventID
	for _, found := range got {
		events = append(events, found.Event)
	}
	assert.Equal(t, []id.EventID{"$4", "$5", "$2", "$3", "$1"}, events)

	h = Handle{roomWith(t, Settings{}), fakeMemory{records: records()}}
	keys, err := h.Keys(t.Context(), Listing{})
	require.NoError(t, err)
	assert.Equal(t, []string{`a"`, "b", "c"}, keys)

	h = Handle{roomWith(t, Settings{Secret: secret}), fakeMemory{records: records()}}
	keys, err = h.Keys(t.Context(), Listing{})
	require.NoError(t, err)
	assert.Empty(t, keys)
}

func TestEntry(t *testing.T) {
	h := Handle{roomWith(t, Settings{}), fakeMemory{records: []Record{
		{Name: "plain", Stored: json.RawMessage(`{"x":1}`), Event: "$1"}, {Name: "text", Stored: json.RawMessage(`{"json_val":"1.5"}`)},
		{Name: "bad", Stored: json.RawMessage(`{"json_val":7}`)}, {Name: "broken", Err: fault.ErrCorrupt},
	}}}
	for _, test := range []struct {
		key, want string
		err       error
	}{
		{key: "plain", want: `{"x":1}`},
		{key: "text", want: `1.5`},
		{key: "bad", err: fault.ErrCorrupt},
		{key: "broken", err: fault.ErrCorrupt},
		{key: "missing", err: fault.ErrNotFound},
	} {
		entry, err := h.Entry(t.Context(), h.NameOf(test.key), test.key)
		require.ErrorIs(t, err, test.err, test.key)
		assert.Equal(t, test.want, string(entry.JSON), test.key)
		if err == nil {
			assert.Equal(t, test.key, entry.Key)
		}
	}
}

func TestNote(t *testing.T) {
	trust := id.TrustState(0)
	for _, test := range []struct {
		settings Settings
		stored   string
		noted    bool
	}{
		{stored: `[1]`, noted: true},
		{stored: `{"json_val":"1.5"}`, noted: true},
		{stored: `{"json_val":7}`},
		{settings: Settings{Secret: secret}, stored: `[1]`},
		{settings: Settings{MinTrust: &trust}, stored: `[1]`},
	} {
		about := fmt.Sprint(test)
		r := roomWith(t, test.settings)
		r.Encrypted.Set(r.ID, false, false)
		view := &replica.View{Names: map[string]string{"a": test.stored}}
		entry, err := r.Reader().Entry(t.Context(), RecordOf(view, "a"))
		known, ok := view.Noted("a").(*Entry)
		require.Equal(t, test.noted, ok, about)
		if !test.noted {
			continue
		}
		require.NoError(t, err)
		want := string(entry.JSON)
		entry.JSON[0] = 'x'
		assert.Equal(t, want, string(known.JSON), "a caller may change what it was given")
	}
	_, err := roomWith(t, Settings{}).Reader().Entry(t.Context(), &Record{Name: "a", Stored: json.RawMessage(`1`)})
	assert.NoError(t, err, "a record need not come from a view")
}

// Without a sync that goes on nothing that was noted counts.
func TestKnownNeedsASync(t *testing.T) {
	for _, layout := range []Layout{OneDict{}, PerKey{}} {
		r := roomWith(t, Settings{Layout: layout})
		r.Dict(layout.StateKey("a"))
		assert.Nil(t, r.Known("a"))
	}
}

func TestIsUnreadable(t *testing.T) {
	for err, want := range map[error]bool{
		fault.ErrUndecryptable: true, fault.ErrUntrusted: true, fault.ErrCorrupt: true, fault.ErrMissingMedia: true, fault.ErrTooLarge: true,
		fault.ErrRedacted: false, fault.ErrNotFound: false, fault.ErrWrongSecret: false, fault.ErrForbidden: false, context.Canceled: false,
	} {
		assert.Equal(t, want, IsUnreadable(fmt.Errorf("x: %w", err)), err)
	}
}
