package upgrade

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

// migrationWith is one from the other room to the room.
func migrationWith(t *testing.T, settings memory.Settings) *migration {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	settings.EventType = "org.example.memory"
	home := new(Rooms).Of(memory.NewShared(client, settings, nil).Room(room))
	return &migration{Home: home, old: home.in(other), stone: &tombstone{time: 7}, create: creation{sender: "@admin:example.org", time: 7}}
}

// testBase is a dict that an edit begins from.
type testBase struct {
	names map[string]string
	event id.EventID
}

func (b testBase) Stored(name string) (json.RawMessage, bool) {
	stored, there := b.names[name]
	return json.RawMessage(stored), there
}
func (testBase) FreshKey(string) (string, bool)    { return "", false }
func (testBase) Fresh(string) bool                 { return false }
func (b testBase) Event() id.EventID               { return b.event }
func (testBase) Unchanged(string, id.EventID) bool { return false }
func (b testBase) Names() map[string]string        { return b.names }
func (testBase) Size() int                         { return 0 }
func (testBase) Again() bool                       { return false }

func TestIsCopy(t *testing.T) {
	m := migrationWith(t, memory.Settings{Layout: memory.OneDict{}})
	evt := matrix.Event{Sender: "@admin:example.org", Time: 7}
	assert.True(t, m.isCopy(&evt))
	for about, differ := range map[string]func(evt *matrix.Event, m *migration){
		"somebody else's":                 func(evt *matrix.Event, _ *migration) { evt.Sender = "@alice:example.org" },
		"a later one":                     func(evt *matrix.Event, _ *migration) { evt.Time = 8 },
		"a room whose tombstone is later": func(_ *matrix.Event, m *migration) { m.stone = &tombstone{time: 8} },
		"a room that began before":        func(_ *matrix.Event, m *migration) { m.create.time = 6 },
	} {
		evt, m := evt, *m
		differ(&evt, &m)
		assert.False(t, m.isCopy(&evt), about)
	}
}

func TestIsFree(t *testing.T) {
	const ref = `{"encrypted_val":"$old"}`
	mark := string(wire.Predecessor(other, 1))
	for _, test := range []struct {
		about  string
		layout memory.Layout
		was    map[string]string
		again  bool
		base   testBase
		want   bool
	}{
		{about: "nothing is there", layout: memory.OneDict{}, want: true},
		{about: "a copy", layout: memory.OneDict{}, was: map[string]string{"a": `1`}, base: testBase{names: map[string]string{"a": `1`}}, want: true},
		{about: "a copy that was overwritten", layout: memory.OneDict{}, was: map[string]string{"a": `1`}, base: testBase{names: map[string]string{"a": `2`}}},
		{about: "a copy that was deleted", layout: memory.OneDict{}, was: map[string]string{"a": `1`}},
		{about: "what somebody has written", layout: memory.OneDict{}, base: testBase{names: map[string]string{"a": `1`}}},
		{about: "a reference to the old room", layout: memory.OneDict{}, base: testBase{names: map[string]string{"a": ref, wire.PredecessorName: mark}}, want: true},
		{about: "somebody else has moved meanwhile", layout: memory.OneDict{}, base: testBase{names: map[string]string{wire.PredecessorName: mark}}},
		{about: "the mark was there before", layout: memory.OneDict{}, again: true, base: testBase{names: map[string]string{wire.PredecessorName: mark}}, want: true},
		{about: "another room's mark", layout: memory.OneDict{}, base: testBase{names: map[string]string{wire.PredecessorName: string(wire.Predecessor("!third", 0))}}, want: true},
		{about: "no event", layout: memory.PerKey{}, want: true},
		{about: "an event that the homeserver has copied", layout: memory.PerKey{}, base: testBase{map[string]string{"a": `1`}, "$copy"}, want: true},
		{about: "an event of somebody's", layout: memory.PerKey{}, base: testBase{map[string]string{"a": `1`}, "$new"}},
		{about: "a deletion of somebody's", layout: memory.PerKey{}, base: testBase{nil, "$new"}},
		{about: "an event with a reference to the old room", layout: memory.PerKey{}, base: testBase{map[string]string{"a": ref}, "$new"}, want: true},
	} {
		m := migrationWith(t, memory.Settings{Layout: test.layout})
		m.refs, m.was, m.again, m.copies = map[string]string{"a": ref}, test.was, test.again, map[id.EventID]bool{"": true, "$copy": true}
		assert.Equal(t, test.want, m.isFree(test.base, "a"), test.about)
	}
}

func TestMigrationsEdit(t *testing.T) {
	secret := []byte("sixteen bytes or more")
	mark := wire.Predecessor(other, 0)
	left := wire.Predecessor(other, 2)
	one := json.RawMessage(`1`)
	type changes = map[string]json.RawMessage
	for _, test := range []struct {
		about    string
		settings memory.Settings
		base     map[string]string
		again    bool
		left     int
		want     changes
		err      error
	}{
		{about: "what is free, and the mark", settings: memory.Settings{Layout: memory.OneDict{}}, base: map[string]string{"b": `2`}, want: changes{"a": one, wire.PredecessorName: mark}},
		{about: "what is left stands in the mark", settings: memory.Settings{Layout: memory.OneDict{}}, left: 2, want: changes{"a": one, "b": one, wire.PredecessorName: left}},
		{about: "somebody else has moved all", settings: memory.Settings{Layout: memory.OneDict{}}, base: map[string]string{wire.PredecessorName: string(mark)}, want: changes{}},
		{about: "once more", settings: memory.Settings{Layout: memory.OneDict{}}, again: true, base: map[string]string{"a": `2`, "b": `2`, wire.PredecessorName: string(left)},
			want: changes{wire.PredecessorName: mark}},
		{about: "without mark where each name has an event", settings: memory.Settings{Layout: memory.PerKey{}}, want: changes{"a": one, "b": one}},
		{about: "sealed with another secret", settings: memory.Settings{Layout: memory.OneDict{}, Secret: secret}, base: map[string]string{wire.SealName: `"x"`}, err: fault.ErrWrongSecret},
	} {
		m := migrationWith(t, test.settings)
		m.changes, m.copies, m.again, m.left = changes{"a": one, "b": one}, map[id.EventID]bool{"": true}, test.again, test.left
		edit := m.edit([]string{"a", "b"})
		assert.True(t, edit.Conditional)
		got, err := edit.Apply(testBase{names: test.base})
		require.ErrorIs(t, err, test.err, test.about)
		if test.err == nil {
			assert.Equal(t, test.want, got, test.about)
		}
	}
}
