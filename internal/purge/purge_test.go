package purge

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/attachment"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

func purgeOf(t *testing.T, settings memory.Settings, keys ...string) *purge {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	settings.EventType = "org.example.memory"
	room := memory.NewShared(client, settings, nil).Room("!room:example.org")
	return newPurge(memory.Handle{Room: room, Memory: room.InState()}, keys, new(Result))
}

var (
	secret  = []byte("sixteen bytes or more")
	oneDict = memory.Settings{Layout: memory.OneDict{}}
	perKey  = memory.Settings{Layout: memory.PerKey{}}
)

// media is a reference to an attachment.
func media(t *testing.T, uri id.ContentURIString) json.RawMessage {
	reference := wire.Media{EncryptedFileInfo: event.EncryptedFileInfo{EncryptedFile: *attachment.NewEncryptedFile(), URL: uri}, Size: 5}
	reference.EncryptInPlace([]byte("12345"))
	_, err := wire.ParseMedia(mediaIn(t, reference.Stored()))
	require.NoError(t, err)
	return reference.Stored()
}

func mediaIn(t *testing.T, stored json.RawMessage) json.RawMessage {
	read, err := wire.Decode(stored)
	require.NoError(t, err)
	return read.Media
}

// A key can stand there as it was before keys were sealed.
func TestPurgedNames(t *testing.T) {
	for _, test := range []struct {
		settings memory.Settings
		want     int // names of a key
	}{
		{oneDict, 1}, {perKey, 1},
		{memory.Settings{Layout: memory.OneDict{}, Secret: secret}, 2}, {memory.Settings{Layout: memory.PerKey{}, Secret: secret}, 2},
	} {
		p := purgeOf(t, test.settings, "a", "@b")
		n := 0
		for stateKey, names := range p.names {
			for name := range names {
				assert.Equal(t, stateKey, p.Layout.StateKey(name))
				assert.True(t, p.isPurged(name))
				n++
			}
		}
		assert.Equal(t, 2*test.want, n)
		for _, key := range []string{"a", "@b"} {
			for _, name := range []string{wire.Name(key), p.NameOf(key)} {
				assert.Equal(t, key, p.names[p.Layout.StateKey(name)][name])
			}
		}
		assert.False(t, p.isPurged("c"))
		assert.False(t, p.isPurged(p.NameOf("c")))
		assert.False(t, p.isPurged(wire.SealName))
	}
}

func TestFind(t *testing.T) {
	attached := string(media(t, "mxc://example.org/abc"))
	for _, test := range []struct {
		about    string
		settings memory.Settings
		stateKey string
		content  string
		names    []string
		inClear  bool
		sealed   map[id.EventID]bool // encrypted events, and whether they hold fields
		media    []id.ContentURIString
	}{
		{about: "nothing", settings: oneDict, content: `{}`},
		{about: "other keys", settings: oneDict, content: `{"x":1,"y":{"encrypted_val":"$1"}}`},
		{about: "a value", settings: oneDict, content: `{"a":1,"x":2}`, names: []string{"a"}, inClear: true},
		{about: "null", settings: oneDict, content: `{"a":null}`, names: []string{"a"}, inClear: true},
		{about: "a reference", settings: oneDict, content: `{"a":{"encrypted_val":"$1"}}`, names: []string{"a"}, sealed: map[id.EventID]bool{"$1": false}},
		{about: "a reference and a value", settings: oneDict, content: `{"a":{"encrypted_val":"$1"},"b":1}`, names: []string{"a", "b"}, inClear: true, sealed: map[id.EventID]bool{"$1": false}},
		{about: "an attachment", settings: oneDict, content: `{"a":` + attached + `,"b":` + attached + `}`, names: []string{"a", "b"}, inClear: true, media: []id.ContentURIString{"mxc://example.org/abc"}},
		{about: "a bad value", settings: oneDict, content: `{"a":{"encrypted_val":7}}`, names: []string{"a"}, inClear: true},
		{about: "a bad attachment", settings: oneDict, content: `{"a":{"media_val":{"url":"http://hostile"}}}`, names: []string{"a"}, inClear: true},
		{about: "not in the format", settings: oneDict, content: `["a"]`, names: []string{"a", "b"}, inClear: true},
		{about: "fields", settings: perKey, stateKey: "a", content: `{"x":{"encrypted_val":"$1"},"y":{"encrypted_val":"$2"}}`, names: []string{"a"}, inClear: true,
			sealed: map[id.EventID]bool{"$1": true, "$2": true}},
		{about: "deleted", settings: perKey, stateKey: "a", content: `{}`},
	} {
		p := purgeOf(t, test.settings, "a", "b")
		names, inClear := p.find(test.stateKey, json.RawMessage(test.content))
		slices.Sort(names)
		assert.Equal(t, test.names, names, test.about)
		assert.Equal(t, test.inClear, inClear, test.about)
		assert.Len(t, p.sealed, len(test.sealed), test.about)
		for event, fields := range test.sealed {
			assert.True(t, p.sealed[event], test.about)
			assert.Equal(t, fields, p.fields[event], test.about)
		}
		assert.Equal(t, test.media, p.done.Media, test.about)
	}
}

func TestFindDoesNotBeginAgain(t *testing.T) {
	p := purgeOf(t, oneDict, "a")
	p.sealed["$1"] = false
	p.find("", json.RawMessage(`{"a":{"encrypted_val":"$1"}}`))
	assert.False(t, p.sealed["$1"], "it was looked into")
}

func TestShows(t *testing.T) {
	for _, test := range []struct {
		about, stateKey, content, before string
		want                             bool
	}{
		{"a value", "", `{"a":1}`, ``, true},
		{"beside what is there", "", `{}`, `{"a":1}`, true},
		{"in both", "", `{"a":1}`, `{"a":2}`, true},
		{"in neither", "", `{"x":1}`, `{"x":2}`, false},
		{"a reference", "", `{"a":{"encrypted_val":"$1"}}`, `{"a":{"encrypted_val":"$2"}}`, false},
		{"what nobody can read", "", `[1]`, ``, true},
		{"nothing beside it", "", `{"a":1}`, `{"x":1}`, true},
		{"another state key", "x", `{"a":1}`, `{"a":1}`, false},
		{"what nobody can read elsewhere", "x", `[1]`, `[1]`, false},
	} {
		p := purgeOf(t, oneDict, "a")
		evt := &matrix.Event{StateKey: &test.stateKey, Content: json.RawMessage(test.content)}
		evt.Unsigned.Before = json.RawMessage(test.before)
		assert.Equal(t, test.want, p.shows(evt), test.about)
	}
}

func TestHolds(t *testing.T) {
	attached := media(t, "mxc://example.org/abc")
	one := json.RawMessage(`1`)
	type values = map[string]json.RawMessage
	for _, settings := range []memory.Settings{oneDict, perKey, {Layout: memory.OneDict{}, Secret: secret}} {
		for _, test := range []struct {
			about        string
			values       values
			holds, other bool
			media        int
		}{
			{"nothing", nil, false, false, 0},
			{"a purged key", values{"a": one}, true, false, 0},
			{"an escaped one", values{wire.Name(`b"`): one}, true, false, 0},
			{"one as opsdroid writes it", values{`b"`: one}, true, false, 0},
			{"a known key", values{"other": one}, false, true, 0},
			{"both", values{"a": one, "other": one}, true, true, 0},
			{"an unknown key", values{"unknown": one}, false, false, 0},
			{"the store's own", values{wire.SealName: one}, false, false, 0},
			{"an attachment", values{"a": attached, "other": media(t, "mxc://example.org/other")}, true, true, 1},
		} {
			p := purgeOf(t, settings, "a", `b"`)
			stateKey := p.Layout.StateKey(p.NameOf("other"))
			content := wire.Dict{Names: map[string]string{p.NameOf("other"): `1`}}.Content()
			p.noteOthers(&matrix.Event{StateKey: &stateKey, Content: content})
			p.noteOthers(&matrix.Event{StateKey: &stateKey, Content: json.RawMessage(`[]`)})
			opened := &seal.Opened{Values: test.values}
			assert.Equal(t, test.holds, p.holds(opened), test.about)
			assert.Equal(t, test.other, p.holdsOther(opened), test.about)
			assert.Len(t, p.done.Media, test.media, test.about)
		}
	}
}

func TestPurgedKeysAreNoOthers(t *testing.T) {
	p := purgeOf(t, oneDict, "a")
	p.noteOthers(&matrix.Event{StateKey: new(string), Content: json.RawMessage(`{"a":1,"b":2}`)})
	assert.Equal(t, map[string]bool{"b": true}, p.others)
}

// A key can be stored in the clear beside sealed ones.
func TestOthersInTheClear(t *testing.T) {
	p := purgeOf(t, memory.Settings{Layout: memory.OneDict{}, Secret: secret}, "a")
	p.noteOthers(&matrix.Event{StateKey: new(string), Content: json.RawMessage(`{"clear":1}`)})
	assert.True(t, p.holdsOther(&seal.Opened{Values: map[string]json.RawMessage{"clear": json.RawMessage(`1`)}}))
}

func TestStoredForm(t *testing.T) {
	attached := media(t, "mxc://example.org/abc")
	for inside, want := range map[string]string{
		`1`: `1`, `{"x": [1.5]}`: `{"json_val":"{\"x\":[1.5]}"}`, `{"json_val":"{\"encrypted_val\":\"$1\"}"}`: `{"json_val":"{\"encrypted_val\":\"$1\"}"}`,
		`{"encrypted_val":"$1"}`: `{"json_val":"{\"encrypted_val\":\"$1\"}"}`, // a value that looks like a reference must not become one
		string(attached):         string(attached),
	} {
		stored, err := storedForm(json.RawMessage(inside))
		require.NoError(t, err, inside)
		assert.JSONEq(t, want, string(stored))
	}
	_, err := storedForm(json.RawMessage(`{"json_val":7}`))
	assert.ErrorIs(t, err, wire.ErrFormat)
}

func TestLeave(t *testing.T) {
	p := purgeOf(t, oneDict, "a")
	failed := errors.New("no")
	p.leave("$1", failed)
	p.leave("$2", failed)
	assert.Equal(t, []Left{{"$1", failed}, {"$2", failed}}, p.done.Left)
}
