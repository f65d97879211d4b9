package roomkv_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// serverRows are what a homeserver does that the store relies on, in plain Matrix: what it stores, and how it gives back one event. They
// keep a homeserver in memory honest.
var serverRows = []row{
	{name: "server: an event of more than 65,536 bytes is refused", in: once, run: serverRefusesLargeEvents},
	{name: "server: a state key of more than 255 bytes is refused", in: once, run: serverRefusesLongStateKeys},
	{name: "server: a state key of another user's is refused", in: once, run: serverRefusesOthersStateKeys},
	{name: "server: any other state key is one", in: once, run: serverTakesAnyStateKey},
	{name: "server: numbers that are no safe integers are refused", in: once, run: serverRefusesNumbers},
	{name: "server: numbers that are spelled as floats", in: once, run: serverReadsNumbers},
	{name: "server: content must be an object", in: once, run: serverRefusesOtherContent},
	{name: "server: names in content", in: once, run: serverNamesInContent},
	{name: "server: content that is there already makes no event", in: once, run: serverMakesNoEventOfTheSame},
	{name: "server: content that another user has sent already", in: once, run: serverMakesNoEventOfOthersSame},
	{name: "server: content that was there before makes an event", in: once, run: serverMakesAnEventOfWhatWas},
	{name: "server: state is current as soon as it is acknowledged", in: once, run: serverStateIsCurrentAtOnce},
	{name: "server: state that is not there", in: once, run: serverMissingState},
	{name: "server: the current state as an event", in: once, run: serverStateAsAnEvent},
	{name: "server: an event by its ID", in: once, run: serverEventByID},
	{name: "server: the room's whole state", in: once, run: serverWholeState},
	{name: "server: which event a state event replaces", in: once, run: serverReplacesState},
}

// answer is a homeserver's to one request.
type answer struct {
	status int
	code   string // of an error, M_FORBIDDEN for example
	body   json.RawMessage
}

// is tells the status and the error together.
func (a answer) is() string { return strings.TrimSpace(fmt.Sprint(a.status, " ", a.code)) }

// event is the ID that the homeserver has given an event.
func (a answer) event(t *testing.T) id.EventID {
	t.Helper()
	require.Equal(t, "200", a.is())
	var sent struct {
		EventID id.EventID `json:"event_id"`
	}
	require.NoError(t, json.Unmarshal(a.body, &sent))
	require.NotEmpty(t, sent.EventID)
	return sent.EventID
}

// read decodes the body.
func (a answer) read(t *testing.T, into any) {
	t.Helper()
	require.Equal(t, "200", a.is())
	require.NoError(t, json.Unmarshal(a.body, into))
}

func ask(t *testing.T, client *mautrix.Client, method, url string, body any) answer {
	t.Helper()
	var got answer
	_, err := client.MakeRequest(t.Context(), method, url, body, &got.body)
	var refused mautrix.HTTPError
	switch {
	case errors.As(err, &refused) && refused.Response != nil:
		if got.status = refused.Response.StatusCode; refused.RespError != nil {
			got.code = refused.RespError.ErrCode
		}
	case err != nil:
		require.NoError(t, err)
	default:
		got.status = http.StatusOK
	}
	return got
}

// put stores state of the store's type.
func (e *env) put(t *testing.T, client *mautrix.Client, stateKey, content string) answer {
	t.Helper()
	return ask(t, client, http.MethodPut, client.BuildClientURL("v3", "rooms", e.room, "state", database.Type, stateKey), json.RawMessage(content))
}

func (e *env) get(t *testing.T, client *mautrix.Client, stateKey string) answer {
	t.Helper()
	return ask(t, client, http.MethodGet, client.BuildClientURL("v3", "rooms", e.room, "state", database.Type, stateKey), nil)
}

// send sends a message of the store's type.
func (e *env) send(t *testing.T, client *mautrix.Client, transaction, content string) answer {
	t.Helper()
	return ask(t, client, http.MethodPut, client.BuildClientURL("v3", "rooms", e.room, "send", database.Type, transaction), json.RawMessage(content))
}

// serverEvent is an event as a homeserver gives it.
type serverEvent struct {
	ID       id.EventID      `json:"event_id"`
	Sender   id.UserID       `json:"sender"`
	Time     int64           `json:"origin_server_ts"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		Replaces id.EventID      `json:"replaces_state"`
		Before   json.RawMessage `json:"prev_content"`
		Redacted *serverEvent    `json:"redacted_because"`
	} `json:"unsigned"`
}

type serverPage struct {
	Start string        `json:"start"`
	End   *string       `json:"end"`
	Chunk []serverEvent `json:"chunk"`
}

// messages lists events of the store's type backwards, and of more types.
func (e *env) messages(t *testing.T, client *mautrix.Client, from string, limit int, more ...string) serverPage {
	t.Helper()
	filter, err := json.Marshal(map[string]any{"limit": limit, "types": append(more, database.Type)})
	require.NoError(t, err)
	query := map[string]string{"dir": "b", "limit": strconv.Itoa(limit), "filter": string(filter)}
	if from != "" {
		query["from"] = from
	}
	var page serverPage
	ask(t, client, http.MethodGet, client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "messages"}, query), nil).read(t, &page)
	return page
}

// listed waits until as many events are listed: Dendrite takes some milliseconds for one that it has acknowledged.
func (e *env) listed(t *testing.T, want int) (events []serverEvent) {
	t.Helper()
	eventually(t, func() bool {
		events = e.messages(t, e.client, "", 100).Chunk
		return len(events) == want
	}, "the list")
	return events
}

func eventIDs(events []serverEvent) (ids []id.EventID) {
	for _, evt := range events {
		ids = append(ids, evt.ID)
	}
	return ids
}

func serverRefusesLargeEvents(t *testing.T, e *env) {
	long := func(n int) string { return fmt.Sprintf(`{"v":%q}`, strings.Repeat("x", n)) }
	refused := on(e, "413 M_BAD_JSON", "413 M_TOO_LARGE")
	assert.Equal(t, "200", e.put(t, e.client, "k", long(64_800)).is())
	for _, size := range []int{65_100, 70_000, 300_000} {
		assert.Equal(t, refused, e.put(t, e.client, "k", long(size)).is(), size)
		assert.Equal(t, refused, e.send(t, e.client, fmt.Sprint("txn", size), long(size)).is(), size)
	}
	assert.JSONEq(t, long(64_800), string(e.get(t, e.client, "k").body), "what was there is there")
}

func serverRefusesLongStateKeys(t *testing.T, e *env) {
	assert.Equal(t, "200", e.put(t, e.client, strings.Repeat("k", 255), `{}`).is())
	refused := on(e, "413 M_BAD_JSON", "413 M_TOO_LARGE")
	assert.Equal(t, refused, e.put(t, e.client, strings.Repeat("k", 256), `{}`).is())
	assert.Equal(t, refused, e.put(t, e.client, strings.Repeat("é", 128), `{}`).is(), "it is bytes that count")
}

func serverRefusesOthersStateKeys(t *testing.T, e *env) {
	other := e.member(t, 100)
	for _, key := range []string{"@", "@k", "@somebody:example.org", other.UserID.String()} {
		assert.Equal(t, "403 M_FORBIDDEN", e.put(t, e.client, key, `{}`).is(), key)
	}
	assert.Equal(t, "200", e.put(t, e.client, e.client.UserID.String(), `{"v":1}`).is())
}

func serverTakesAnyStateKey(t *testing.T, e *env) {
	for _, key := range []string{"", " ", "a b", "a/b", "..", "%2F", "?x=1&y#z", "+", "🎉", "\x00", "\n", `\`, `"`} {
		content := fmt.Sprintf(`{"v":%q}`, fmt.Sprintf("%x", key))
		sent := e.put(t, e.client, key, content)
		if assert.Equal(t, "200", sent.is(), "%q", key) {
			assert.JSONEq(t, content, string(e.get(t, e.client, key).body), "%q", key)
		}
	}
}

func serverRefusesNumbers(t *testing.T, e *env) {
	for _, value := range []string{`1.5`, `-0.5`, `1e-7`, `9007199254740992`, `-9007199254740992`, `123456789012345678901234567890`, `[1.5]`, `{"a":{"b":[0.1]}}`} {
		assert.Equal(t, "400 M_BAD_JSON", e.put(t, e.client, "k", `{"v":`+value+`}`).is(), value)
		assert.Equal(t, "400 M_BAD_JSON", e.send(t, e.client, "txn"+value, `{"v":`+value+`}`).is(), value)
	}
	for _, value := range []string{`9007199254740991`, `-9007199254740991`, `0`} {
		require.Equal(t, "200", e.put(t, e.client, "k", `{"v":`+value+`}`).is())
		assert.Contains(t, string(e.get(t, e.client, "k").body), value)
	}
}

func serverReadsNumbers(t *testing.T, e *env) {
	for value, want := range map[string]string{
		`1.0`: on(e, `{"v":1}`, "400 M_BAD_JSON"),
		`1e2`: on(e, `{"v":100}`, "400 M_BAD_JSON"),
		`-0`:  on(e, "400 M_BAD_JSON", `{"v":0}`),
	} {
		got := e.put(t, e.client, "k", `{"v":`+value+`}`)
		if got.status != http.StatusOK {
			assert.Equal(t, want, got.is(), value)
		} else {
			assert.Equal(t, want, string(e.get(t, e.client, "k").body), value)
		}
	}
}

func serverRefusesOtherContent(t *testing.T, e *env) {
	for _, content := range []string{`[]`, `7`, `"x"`, `true`} {
		assert.Equal(t, "400 M_BAD_JSON", e.put(t, e.client, "k", content).is(), content)
	}
	assert.Equal(t, "404 M_NOT_FOUND", e.get(t, e.client, "k").is())
}

// Dendrite cannot sign content with a name that needs a backslash in JSON; Synapse gives some names a meaning in events of any type.
func serverNamesInContent(t *testing.T, e *env) {
	for _, test := range []struct{ content, dendrite, synapse string }{
		{`{"quote\"d":1}`, "500", "200"},
		{`{"back\\slash":1}`, "500", "200"},
		{`{"line\nfeed":1}`, "500", "200"},
		{`{"in":{"quote\"d":1}}`, "500", "200"},
		{`{"redacts":"x","m.relates_to":1,"org.matrix.labels":"x","m.mentions":{}}`, "200", "200"},
		{`{"redacts":{"a":1}}`, "200", "500"},
		{`{"m.mentions":1}`, "200", "400"},
		{`{"org.matrix.labels":1}`, "200", "500"},
		{`{"unsigned":1,"membership":"join","a.b":1,"@this":1,"é\u2028<&>":1}`, "200", "200"},
	} {
		got := e.put(t, e.client, "k", test.content)
		want := on(e, test.dendrite, test.synapse)
		assert.Equal(t, want, strconv.Itoa(got.status), test.content)
		if want == "200" {
			assert.JSONEq(t, test.content, string(e.get(t, e.client, "k").body))
		}
	}
}

func serverMakesNoEventOfTheSame(t *testing.T, e *env) {
	first := e.put(t, e.client, "k", `{"b":1,"a":["<é>",null]}`).event(t)
	assert.Equal(t, first, e.put(t, e.client, "k", `{"b":1,"a":["<é>",null]}`).event(t))
	assert.Equal(t, first, e.put(t, e.client, "k", `{ "a": ["\u003c\u00e9>", null], "b": 1 }`).event(t), "however it is spelled")
	assert.Len(t, e.listed(t, 1), 1)
}

func serverMakesNoEventOfOthersSame(t *testing.T, e *env) {
	other, powerless := e.member(t, 100), e.member(t, 0)
	first := e.put(t, e.client, "k", `{"v":1}`).event(t)
	theirs := e.put(t, other, "k", `{"v":1}`).event(t)
	assert.Equal(t, on(e, true, false), first == theirs)
	assert.Equal(t, on(e, "200", "403 M_FORBIDDEN"), e.put(t, powerless, "k", `{"v":1}`).is(), "also without the power")
}

func serverMakesAnEventOfWhatWas(t *testing.T, e *env) {
	first := e.put(t, e.client, "k", `{"v":1}`).event(t)
	second := e.put(t, e.client, "k", `{"v":2}`).event(t)
	third := e.put(t, e.client, "k", `{"v":1}`).event(t)
	assert.NotEqual(t, first, third)
	assert.Equal(t, []id.EventID{third, second, first}, eventIDs(e.listed(t, 3)))
}

func serverStateIsCurrentAtOnce(t *testing.T, e *env) {
	other := e.member(t, 100)
	for i := range 10 {
		content := fmt.Sprintf(`{"v":%d}`, i)
		e.put(t, e.client, "k", content).event(t)
		assert.JSONEq(t, content, string(e.get(t, other, "k").body))
	}
}

func serverMissingState(t *testing.T, e *env) {
	assert.Equal(t, "404 M_NOT_FOUND", e.get(t, e.client, "k").is())
	path := mautrix.ClientURLPath{"v3", "rooms", e.room, "state", database.Type, "k"}
	assert.Equal(t, "404 M_NOT_FOUND", ask(t, e.client, http.MethodGet, e.client.BuildURLWithQuery(path, map[string]string{"format": "event"}), nil).is())
	url := e.client.BuildClientURL("v3", "rooms", e.room, "state", event.StateEncryption.Type, "")
	assert.Equal(t, "404 M_NOT_FOUND", ask(t, e.client, http.MethodGet, url, nil).is(), "the room is not encrypted")
	assert.Empty(t, e.messages(t, e.client, "", 10).Chunk)
}

// asEvent is the current state as an event.
func (e *env) asEvent(t *testing.T, stateKey string) (evt serverEvent) {
	t.Helper()
	url := e.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "state", database.Type, stateKey}, map[string]string{"format": "event"})
	ask(t, e.client, http.MethodGet, url, nil).read(t, &evt)
	return evt
}

// isEvent tells whether all that the store reads of an event is there.
func (e *env) isEvent(t *testing.T, evt serverEvent, sent id.EventID, stateKey, content string) {
	t.Helper()
	assert.Equal(t, sent, evt.ID)
	assert.Equal(t, e.client.UserID, evt.Sender)
	assert.Equal(t, database.Type, evt.Type)
	require.NotNil(t, evt.StateKey)
	assert.Equal(t, stateKey, *evt.StateKey)
	assert.JSONEq(t, content, string(evt.Content))
	assert.WithinDuration(t, time.Now(), time.UnixMilli(evt.Time), time.Minute)
	assert.True(t, strings.HasPrefix(evt.ID.String(), "$"))
}

func serverStateAsAnEvent(t *testing.T, e *env) {
	first := e.put(t, e.client, "", `{"v":1}`).event(t)
	e.isEvent(t, e.asEvent(t, ""), first, "", `{"v":1}`)
	second := e.put(t, e.client, "", `{"v":2}`).event(t)
	evt := e.asEvent(t, "")
	e.isEvent(t, evt, second, "", `{"v":2}`)
	assert.Equal(t, on(e, "", first), evt.Unsigned.Replaces, "Dendrite leaves unsigned out")
}

func (e *env) event(t *testing.T, client *mautrix.Client, room id.RoomID, evt id.EventID) answer {
	t.Helper()
	return ask(t, client, http.MethodGet, client.BuildClientURL("v3", "rooms", room, "event", evt), nil)
}

func serverEventByID(t *testing.T, e *env) {
	sent := e.put(t, e.client, "k", `{"v":1}`).event(t)
	said, err := e.client.SendText(t.Context(), e.room, "said")
	require.NoError(t, err)
	var evt serverEvent
	eventually(t, func() bool { return e.event(t, e.client, e.room, sent).status == http.StatusOK }, "the event")
	e.event(t, e.client, e.room, sent).read(t, &evt)
	e.isEvent(t, evt, sent, "k", `{"v":1}`)
	eventually(t, func() bool { return e.event(t, e.client, e.room, said.EventID).status == http.StatusOK }, "the message")
	var message serverEvent
	e.event(t, e.client, e.room, said.EventID).read(t, &message)
	assert.Nil(t, message.StateKey)
	assert.Equal(t, "404 M_NOT_FOUND", e.event(t, e.client, e.room, "$nothing").is())
	assert.Equal(t, "404 M_NOT_FOUND", e.event(t, e.user(t), e.room, sent).is(), "for a stranger")
	elsewhere := e.newRoom(t, e.client)
	assert.Equal(t, on(e, "200", "404 M_NOT_FOUND"), e.event(t, e.client, elsewhere, sent).is(), "asked for in another room")
}

func serverWholeState(t *testing.T, e *env) {
	sent := e.put(t, e.client, "k", `{"v":1}`).event(t)
	var all []serverEvent
	ask(t, e.client, http.MethodGet, e.client.BuildClientURL("v3", "rooms", e.room, "state"), nil).read(t, &all)
	types := map[string]int{}
	for _, evt := range all {
		types[evt.Type]++
		if evt.Type == database.Type {
			e.isEvent(t, evt, sent, "k", `{"v":1}`)
		}
	}
	for _, want := range []string{database.Type, "m.room.create", "m.room.member", "m.room.power_levels", "m.room.join_rules", "m.room.history_visibility"} {
		assert.Equal(t, 1, types[want], want)
	}
}

// Dendrite looks for what is replaced under the empty state key, unless the state key is a user's ID.
func serverReplacesState(t *testing.T, e *env) {
	dict := e.put(t, e.client, "", `{"v":1}`).event(t)
	dict2 := e.put(t, e.client, "", `{"v":2}`).event(t)
	key := e.put(t, e.client, "k", `{"v":1}`).event(t)
	key2 := e.put(t, e.client, "k", `{"v":2}`).event(t)
	replaces, before := map[id.EventID]id.EventID{}, map[id.EventID]string{}
	for _, evt := range e.listed(t, 4) {
		replaces[evt.ID], before[evt.ID] = evt.Unsigned.Replaces, string(evt.Unsigned.Before)
	}
	assert.Equal(t, map[id.EventID]id.EventID{dict: "", dict2: dict, key: on(e, dict2, ""), key2: on(e, dict2, key)}, replaces)
	assert.Equal(t, map[id.EventID]string{dict: "", dict2: `{"v":1}`, key: on(e, `{"v":2}`, ""), key2: on(e, `{"v":2}`, `{"v":1}`)}, before)
	var evt serverEvent
	e.event(t, e.client, e.room, dict2).read(t, &evt)
	assert.Equal(t, dict, evt.Unsigned.Replaces, "also by its ID")
}
