package transfer

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestCompactDigest(t *testing.T) {
	large := `"` + strings.Repeat("x", wire.MaxEvent) + `"`
	for _, test := range []struct {
		a, b string
		same bool
	}{
		{`1`, `1`, true},
		{`{"a":[1,2],"b":"é"}`, " {\n\"b\" : \"\\u00e9\",\t\"a\": [1, 2]} ", true},
		{`[1,2]`, `[2,1]`, false},
		{`1`, `"1"`, false},
		{`"a b"`, `"ab"`, false},
		{`[` + large + `,1]`, "[ " + large + " ,\n1 ]", true},
		{`[` + large + `,1]`, `[` + large + `,2]`, false},
		{large, strings.Replace(large, "x", "y", 1), false},
		{`[` + large, `[` + large + ` `, false}, // which is no JSON
	} {
		a, b := compactDigest(json.RawMessage(test.a)), compactDigest(json.RawMessage(test.b))
		assert.Equal(t, test.same, a == b, "%.40q and %.40q", test.a, test.b)
	}
}

func TestCounter(t *testing.T) {
	reports := 0
	tr := &transfer{report: func() { reports++ }}
	n := 3
	done := tr.counter(&n)
	var group sync.WaitGroup
	for i := range 3 * reportStep {
		for range 2 {
			group.Go(func() { done(fmt.Sprint(i)) })
		}
	}
	group.Wait()
	assert.Equal(t, 3+3*reportStep, n, "each name once")
	assert.Equal(t, 3, reports)
}

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

func roomWith(t *testing.T, room id.RoomID, settings memory.Settings) memory.Room {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	return memory.NewShared(client, settings, nil).Room(room)
}

func TestSourceBesideItsCopy(t *testing.T) {
	const room, other = id.RoomID("!room:example.org"), id.RoomID("!other:example.org")
	type place struct {
		room   id.RoomID
		kind   string
		layout memory.Layout
	}
	one := func(key string) place { return place{room, "t", memory.OneDict{Key: key}} }
	keys := place{room, "t", memory.PerKey{}}
	for _, test := range []struct {
		about    string
		from, to place
		theirs   map[string]bool // by state key
		at       map[string]bool // by key
	}{
		{"two dicts", one(""), one("bot"), map[string]bool{"bot": true, "": false}, map[string]bool{"bot": false, "": false}},
		{"from one prefix of a dict to another", one("bot"), one("bot"), map[string]bool{"bot": false}, map[string]bool{"bot": false}},
		{"from keys to a dict", keys, one("bot"), map[string]bool{"bot": true, "x": false}, map[string]bool{"bot": false}},
		{"from a dict to keys", one("bot"), keys, map[string]bool{"bot": false, "x": false}, map[string]bool{"bot": true, "x": false}},
		{"from the dict of the empty state key to keys", one(""), keys, map[string]bool{"": false}, map[string]bool{"": false, "x": false}},
		{"another room", keys, place{other, "t", memory.OneDict{Key: "bot"}}, map[string]bool{"bot": false}, nil},
		{"another type", keys, place{room, "u", memory.OneDict{Key: "bot"}}, map[string]bool{"bot": false}, nil},
		{"to keys of another room", one("bot"), place{other, "t", memory.PerKey{}}, nil, map[string]bool{"bot": false}},
		{"to keys of another type", one("bot"), place{room, "u", memory.PerKey{}}, nil, map[string]bool{"bot": false}},
		{"between keys", keys, keys, map[string]bool{"bot": false}, map[string]bool{"bot": false}},
	} {
		at := func(p place) memory.Handle {
			return memory.Handle{Room: roomWith(t, p.room, memory.Settings{EventType: p.kind, Layout: p.layout})}
		}
		s := source{at(test.from), at(test.to)}
		for stateKey, want := range test.theirs {
			assert.Equal(t, want, s.isTheirs(stateKey), "%s: state %q", test.about, stateKey)
		}
		for key, want := range test.at {
			assert.Equal(t, want, s.isAt(key), "%s: key %q", test.about, key)
		}
	}
}

// dictMemory has the names of one dict, and forgets what is written to a name that it loses.
type dictMemory struct {
	memory.Memory
	names map[string]string
	loses string
	reads int
}

func (m *dictMemory) Named(_ context.Context, names []string) (map[string]memory.Record, error) {
	m.reads++
	found := map[string]memory.Record{}
	for _, name := range names {
		if stored, there := m.names[name]; there {
			found[name] = memory.Record{Name: name, Stored: json.RawMessage(stored)}
		}
	}
	return found, nil
}

func (m *dictMemory) Commit(_ context.Context, change memory.Change) error {
	changes, err := change.Edit(change.Names).Apply(dictBase{names: m.names})
	for name, stored := range changes {
		if stored == nil {
			delete(m.names, name)
		} else if name != m.loses {
			m.names[name] = string(stored)
		}
	}
	return err
}

type dictBase struct{ names map[string]string }

func (b dictBase) Stored(name string) (json.RawMessage, bool) {
	stored, there := b.names[name]
	return json.RawMessage(stored), there
}
func (dictBase) FreshKey(string) (string, bool)    { return "", false }
func (dictBase) Fresh(string) bool                 { return false }
func (dictBase) Event() id.EventID                 { return "$base" }
func (dictBase) Unchanged(string, id.EventID) bool { return false }
func (b dictBase) Names() map[string]string        { return b.names }
func (dictBase) Size() int                         { return 0 }
func (dictBase) Again() bool                       { return false }

// destination is a [Destination] that never moves.
type destination struct{ handle memory.Handle }

func (d destination) Handle(context.Context) (memory.Handle, error) { return d.handle, nil }

func (d destination) Write(_ context.Context, _ []string, do func(memory.Handle) error) error {
	return do(d.handle)
}

func TestTransferIntoADict(t *testing.T) {
	for _, test := range []struct {
		about                    string
		overwrite                bool
		remove                   []string
		loses                    string
		want                     map[string]string
		written, equal, removed  int
		kept, differed, tooLarge []string
	}{
		{about: "what is there is kept", want: map[string]string{"same": `[1,2]`, "other": `1`, "new": `3`, "old": `0`}, written: 1, equal: 1, kept: []string{"other"}},
		{about: "what is there is replaced", overwrite: true, want: map[string]string{"same": `[1,2]`, "other": `2`, "new": `3`, "old": `0`}, written: 2, equal: 1},
		{about: "what is not in the file goes", overwrite: true, remove: []string{"old"}, want: map[string]string{"same": `[1,2]`, "other": `2`, "new": `3`}, written: 2, equal: 1,
			removed: 1},
		{about: "what is not there afterwards", loses: "new", want: map[string]string{"same": `[1,2]`, "other": `1`, "old": `0`}, equal: 1, kept: []string{"other"}, differed: []string{"new"}},
	} {
		into := &dictMemory{names: map[string]string{"same": `[1,2]`, "other": `1`, "old": `0`}, loses: test.loses}
		room := roomWith(t, "!room:example.org", memory.Settings{EventType: "t", Layout: memory.OneDict{}})
		tr := transfer{dst: destination{memory.Handle{Room: room, Memory: into}}, overwrite: test.overwrite, remove: test.remove, report: func() {}}
		for key, value := range map[string]string{"same": `[1, 2]`, "other": `2`, "new": `3`} {
			require.NoError(t, tr.add(t.Context(), key, json.RawMessage(value), 0))
		}
		assert.Zero(t, into.reads, "few wait for more")
		assert.Equal(t, 3, tr.seen(), test.about)
		require.NoError(t, tr.flush(t.Context()))
		assert.Equal(t, test.want, into.names, test.about)
		assert.Equal(t, []int{test.written, test.equal, test.removed}, []int{tr.written, tr.equal, tr.removed}, test.about)
		assert.Equal(t, [][]string{test.kept, test.differed, test.tooLarge}, [][]string{tr.kept.keys, tr.differed.keys, tr.tooLarge.keys}, test.about)
		assert.Equal(t, 3, tr.seen(), test.about)
	}
}

func TestTransferWritesWhenEnoughWait(t *testing.T) {
	into := &dictMemory{names: map[string]string{}}
	room := roomWith(t, "!room:example.org", memory.Settings{EventType: "t", Layout: memory.OneDict{}})
	tr := transfer{dst: destination{memory.Handle{Room: room, Memory: into}}, report: func() {}}
	for i := range transferEntries - 1 {
		require.NoError(t, tr.add(t.Context(), fmt.Sprint(i), json.RawMessage(`1`), 0))
	}
	assert.Empty(t, into.names)
	require.NoError(t, tr.add(t.Context(), "last", json.RawMessage(`1`), 0))
	assert.Len(t, into.names, transferEntries)
	assert.Equal(t, 2, into.reads, "before and after")
	assert.Equal(t, transferEntries, tr.written)
	assert.Empty(t, tr.waiting)
}
