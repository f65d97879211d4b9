package fallback

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

func roomWith(t *testing.T, settings memory.Settings) memory.Room {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	settings.EventType = "org.example.memory"
	return memory.NewShared(client, settings, nil).Room("!room:example.org")
}

// viewWith is a view of the dicts that these events have, by state key.
func viewWith(r memory.Room, dicts map[string]*replica.View) *stateView {
	view := newStateView(r)
	view.dicts = dicts
	return &view
}

var (
	oneDict = memory.Settings{Layout: memory.OneDict{}}
	perKey  = memory.Settings{Layout: memory.PerKey{}}
)

func TestTypeOf(t *testing.T) {
	seen := map[string]bool{}
	for _, test := range []struct {
		layout memory.Layout
		want   string
	}{
		{memory.OneDict{}, "org.example.memory"},
		{memory.OneDict{Key: "bot"}, "org.example.memory.bot"},
		{memory.OneDict{Key: "keys"}, "org.example.memory.keys"},
		{memory.PerKey{}, "org.example.memory:keys"},
	} {
		got := TypeOf(roomWith(t, memory.Settings{Layout: test.layout}))
		assert.Equal(t, test.want, got)
		assert.False(t, seen[got], "two memories would share %s", got)
		seen[got] = true
	}
}

func TestBase(t *testing.T) {
	base := func(settings memory.Settings, stateKey string, names map[string]string, event id.EventID, name string) string {
		return viewWith(roomWith(t, settings), map[string]*replica.View{stateKey: {Names: names, Event: event}}).base(name)
	}
	a1 := map[string]string{"a": `1`}
	assert.Empty(t, viewWith(roomWith(t, oneDict), nil).base("a"), "nothing is there")
	assert.Empty(t, base(oneDict, "", nil, "$1", "a"))
	assert.Equal(t, base(oneDict, "", a1, "$1", "a"), base(oneDict, "", map[string]string{"a": `1`, "b": `2`}, "$2", "a"), "the event has other names too")
	assert.NotEqual(t, base(oneDict, "", a1, "$1", "a"), base(oneDict, "", map[string]string{"a": `2`}, "$1", "a"))
	assert.Empty(t, base(oneDict, "", a1, "$1", "b"))

	assert.Empty(t, viewWith(roomWith(t, perKey), nil).base("a"))
	assert.Equal(t, base(perKey, "a", a1, "$1", "a"), base(perKey, "a", a1, "$1", "a"))
	assert.NotEqual(t, base(perKey, "a", a1, "$1", "a"), base(perKey, "a", a1, "$2", "a"), "it was written again")
	assert.NotEqual(t, base(perKey, "a", a1, "$1", "a"), base(perKey, "a", nil, "$1", "a"))
	assert.NotEmpty(t, base(perKey, "a", nil, "$1", "a"), "a deletion")
	assert.NotEqual(t, base(perKey, "a", nil, "$1", "a"), base(perKey, "a", nil, "$2", "a"), "another deletion")

	stateKey := wire.StateKey("@a")
	assert.NotEmpty(t, base(perKey, stateKey, map[string]string{wire.Name("@a"): `1`}, "$1", wire.Name("@a")))
}

func TestHas(t *testing.T) {
	for _, test := range []struct {
		settings memory.Settings
		dicts    map[string]*replica.View
		whole    bool
		want     bool
	}{
		{oneDict, nil, false, false},
		{oneDict, map[string]*replica.View{"": {}}, false, true},
		{perKey, map[string]*replica.View{"b": {}}, false, false},
		{perKey, map[string]*replica.View{"a": {}}, false, true},
		{perKey, nil, true, true},
	} {
		view := viewWith(roomWith(t, test.settings), test.dicts)
		view.whole = test.whole
		assert.Equal(t, test.want, view.has("a"), "%v", test)
	}
}

func TestUnchanged(t *testing.T) {
	view := viewWith(roomWith(t, perKey), map[string]*replica.View{
		"a": {Names: map[string]string{"a": `1`}, Event: "$1"}, "gone": {Event: "$1"},
	})
	assert.True(t, view.unchanged("a", "$1"))
	assert.False(t, view.unchanged("a", "$2"), "nothing tells")
	assert.False(t, view.unchanged("gone", "$1"))
	assert.False(t, view.unchanged("never", "$1"))
}

// What account data has counts over what the state had when that was written, and over nothing else.
func TestOnto(t *testing.T) {
	state := func(stored string, found bool, event id.EventID) (map[string]string, id.EventID) {
		if !found {
			return map[string]string{"beside": `0`}, event
		}
		return map[string]string{"beside": `0`, "a": stored}, event
	}
	for _, test := range []struct {
		about    string
		settings memory.Settings
		account  wire.Account
		stored   string
		found    bool
		event    id.EventID
		want     string // empty where nothing is there
		from     bool   // whether it is from account data
	}{
		{about: "nothing in account data", settings: oneDict, stored: `1`, found: true, event: "$1", want: `1`},
		{about: "a new name", settings: oneDict, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9}}), event: "$1", want: `2`, from: true},
		{about: "over what it was written over", settings: oneDict, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`1`, true, "")}}),
			stored: `1`, found: true, event: "$9", want: `2`, from: true},
		{about: "the state has changed", settings: oneDict, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`0`, true, "")}}),
			stored: `1`, found: true, event: "$1", want: `1`},
		{about: "the state has lost it", settings: oneDict, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`1`, true, "")}}), event: "$1"},
		{about: "a deletion", settings: oneDict, account: wire.AccountOf(nil, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`1`, true, "")}}), stored: `1`, found: true, event: "$1", from: true},
		{about: "a deletion of what has changed", settings: oneDict, account: wire.AccountOf(nil, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`0`, true, "")}}),
			stored: `1`, found: true, event: "$1", want: `1`},
		{about: "over the same event", settings: perKey, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`1`, true, "$1")}}),
			stored: `1`, found: true, event: "$1", want: `2`, from: true},
		{about: "the same was written again", settings: perKey, account: wire.AccountOf(map[string]string{"a": `2`}, map[string]wire.Over{"a": {Time: 9, Base: wire.Base(`1`, true, "$1")}}),
			stored: `1`, found: true, event: "$2", want: `1`},
	} {
		r := roomWith(t, test.settings)
		names, event := state(test.stored, test.found, test.event)
		view := &replica.View{Names: names, Event: event, Sender: "@alice:example.org", Time: 5}
		stateKey := r.Layout.StateKey("a")
		m := &Memory{r.InState(), newAccountDict(r)}
		got := m.Onto(Version{Account: test.account}, stateKey, view)
		assert.Equal(t, `0`, got["beside"], test.about)
		assert.Equal(t, test.want, got["a"], test.about)
		assert.Equal(t, test.want != "", len(got) == 2, test.about)

		found := m.recordOf(test.account, viewWith(r, map[string]*replica.View{stateKey: view}), "a")
		if test.want == "" {
			assert.Nil(t, found, test.about)
			continue
		}
		require.NotNil(t, found, test.about)
		assert.Equal(t, json.RawMessage(test.want), found.Stored, test.about)
		assert.Equal(t, test.from, found.InAccount, test.about)
		assert.Equal(t, test.from, isAccount(found.Event), test.about)
		sender, at := id.UserID("@alice:example.org"), int64(5)
		if test.from {
			sender, at = "@bot:example.org", 9
		}
		assert.Equal(t, sender, found.Sender, test.about)
		assert.Equal(t, time.UnixMilli(at), found.Time, test.about)
	}
}

func TestOntoLeavesWhatIsNotKnown(t *testing.T) {
	m := &Memory{nil, newAccountDict(roomWith(t, perKey))}
	content := wire.AccountOf(map[string]string{"a": `1`, "b": `2`}, map[string]wire.Over{"a": {}, "b": {}})
	assert.Equal(t, map[string]string{"a": `1`}, m.Onto(Version{Account: content}, "a", &replica.View{}), "the other name has a dict of its own")
}

func TestViewsRecordsAndSeal(t *testing.T) {
	secret := []byte("sixteen bytes or more")
	own := string(roomWith(t, memory.Settings{Layout: memory.OneDict{}, Secret: secret}).Seal())
	view := viewWith(roomWith(t, perKey), map[string]*replica.View{
		"a": {Names: map[string]string{"a": `1`}}, "b": {Names: map[string]string{"b": `2`}}, "bad": {Err: fault.ErrCorrupt, Event: "$bad"},
	})
	assert.Equal(t, map[string]string{"a": `1`, "b": `2`}, view.stored())
	got := map[string]string{}
	for _, found := range view.records(func(stateKey string) bool { return stateKey == "b" }) {
		got[found.Name] = string(found.Stored)
		assert.Equal(t, found.Name == "", found.Err != nil)
	}
	assert.Equal(t, map[string]string{"a": `1`, "": ``}, got)

	for _, test := range []struct {
		layout memory.Layout
		secret []byte
		names  map[string]string
		want   error
	}{
		{memory.OneDict{}, nil, nil, nil},
		{memory.OneDict{}, nil, map[string]string{wire.SealName: own}, fault.ErrWrongSecret},
		{memory.OneDict{}, secret, map[string]string{wire.SealName: own}, nil},
		{memory.OneDict{}, secret, map[string]string{wire.SealName: `"x"`}, fault.ErrWrongSecret},
		{memory.PerKey{}, nil, map[string]string{wire.SealName: own}, nil}, // an event of its own tells
	} {
		r := roomWith(t, memory.Settings{Layout: test.layout, Secret: test.secret})
		assert.ErrorIs(t, viewWith(r, map[string]*replica.View{"": {Names: test.names}}).check(), test.want)
	}
}
