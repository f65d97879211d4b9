package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/wire"
)

// readRows are about single values, and about rooms.
var readRows = []row{
	{name: "Get of a key that is not there", in: inAll, run: getMissing},
	{name: "Get decodes as encoding/json does", in: inRooms, run: getDecodes},
	{name: "Get sees what this process has just written", in: inAll, run: getOwnWrites},
	{name: "Get sees what another process has written", in: inAll, run: getOthersWrites},
	{name: "Get of the two layouts and another type in one room", in: once, run: getBesideOthers},
	{name: "Get gives back any value", in: "single custom single/encrypted", run: getAnyValue},
	{name: "Get gives back values that an event cannot hold", in: "perkey perkey/encrypted single/following", run: getSomeValues},
	{name: "Get finds any key", in: layouts4 + " " + secretly, run: getAnyKey},
	{name: "Get reads what opsdroid writes", in: "single custom perkey", run: getOpsdroids},
	{name: "Get reads what opsdroid writes over a key whose name it does not see", in: "single custom perkey", run: getOpsdroidsOverEscaped},
	{name: "Get reads the oldest opsdroid's format", in: "perkey", run: getOldestOpsdroids},
	{name: "Entry tells revision, sender and time", in: inAll, run: entryTells},
	{name: "Entry tells who has written", in: each + " " + followed, run: entryOfOthers},
	{name: "New resolves aliases and names", in: once, run: newByName},
	{name: "WithRoom is another room's store", in: inRooms, run: withRoom},
	{name: "InEventRoom gives a handler the event's room", in: each, run: inEventRoom},
	{name: "Follow reads from memory", in: followed, run: followReads},
	{name: "Follow goes on where the sync has ended", in: followed, run: followEnds},
	{name: "Follow merges what nobody has merged", in: "single/following", run: followRepairs},
}

func getMissing(t *testing.T, e *env) {
	ctx := t.Context()
	value := 7
	for range 2 {
		require.ErrorIs(t, e.store.Get(ctx, "missing", &value), roomkv.ErrNotFound)
		assert.Equal(t, 7, value)
		got, err := roomkv.Get[int](ctx, e.store, "missing")
		require.ErrorIs(t, err, roomkv.ErrNotFound)
		assert.Zero(t, got)
		entry, err := e.store.Entry(ctx, "missing")
		require.ErrorIs(t, err, roomkv.ErrNotFound)
		assert.Equal(t, roomkv.Entry{}, entry)
		require.NoError(t, e.store.Put(ctx, "there", 1), "a memory that is there")
	}
}

func getDecodes(t *testing.T, e *env) {
	ctx := t.Context()
	type score struct {
		Points int      `json:"points"`
		Names  []string `json:"names,omitempty"`
	}
	require.NoError(t, e.store.Put(ctx, "score", score{3, []string{"é<&>"}}))
	got, err := roomkv.Get[score](ctx, e.store, "score")
	require.NoError(t, err)
	assert.Equal(t, score{3, []string{"é<&>"}}, got)
	var anything any
	require.NoError(t, e.store.Get(ctx, "score", &anything))
	assert.Equal(t, map[string]any{"points": 3.0, "names": []any{"é<&>"}}, anything)
	partly := score{Names: []string{"before"}}
	require.NoError(t, e.store.Put(ctx, "score", score{Points: 4}))
	require.NoError(t, e.store.Get(ctx, "score", &partly))
	assert.Equal(t, score{4, []string{"before"}}, partly, "what the value lacks stays")

	require.NoError(t, e.store.Put(ctx, "null", nil))
	null, err := roomkv.Get[*int](ctx, e.store, "null")
	require.NoError(t, err, "null is a value")
	assert.Nil(t, null)
	entry, err := e.store.Entry(ctx, "score")
	require.NoError(t, err)
	var decoded score
	require.NoError(t, entry.Decode(&decoded))
	assert.Equal(t, 4, decoded.Points)
}

func getOwnWrites(t *testing.T, e *env) {
	ctx := t.Context()
	for i := range 4 {
		require.NoError(t, e.store.Put(ctx, "k", i))
		got, err := roomkv.Get[int](ctx, e.store, "k")
		require.NoError(t, err)
		require.Equal(t, i, got)
	}
	require.NoError(t, e.store.Delete(ctx, "k"))
	require.ErrorIs(t, e.store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
	require.NoError(t, e.store.Put(ctx, "k", "again"))
	got, err := roomkv.Get[string](ctx, e.store, "k")
	require.NoError(t, err)
	assert.Equal(t, "again", got)
}

func getOthersWrites(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, other.Put(ctx, "k", 1))
	e.reads(t, "k", "1")
	require.NoError(t, e.store.Put(ctx, "j", "mine"))
	require.NoError(t, other.Put(ctx, "k", 2))
	e.reads(t, "k", "2")
	mine, err := roomkv.Get[string](ctx, other, "j")
	require.NoError(t, err)
	assert.Equal(t, "mine", mine)
	require.NoError(t, other.Delete(ctx, "k"))
	eventually(t, func() bool { return e.store.Get(ctx, "k", new(int)) != nil }, "the deletion")
	require.ErrorIs(t, e.store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
}

func getBesideOthers(t *testing.T, e *env) {
	ctx := t.Context()
	stores := map[string]*roomkv.Store{
		"single": e.store,
		"custom": open(t, e.client, e.room, roomkv.WithSingleStateKey("mine")),
		"typed":  open(t, e.client, e.room, roomkv.WithEventType("com.example.memory")),
		"perkey": open(t, e.client, e.room, roomkv.WithPerKeyState(), roomkv.WithEventType("com.example.keys")),
	}
	for name, store := range stores {
		require.NoError(t, store.PutAll(ctx, map[string]any{"": name, "k": name}))
	}
	for name, store := range stores {
		want := `"` + name + `"`
		assert.Equal(t, map[string]string{"": want, "k": want}, memoryOf(t, store))
	}
}

// getsBack puts the values and reads each in this process and in another.
func getsBack(t *testing.T, e *env, values []string) {
	t.Helper()
	ctx := t.Context()
	all := map[string]any{}
	for i, value := range values {
		all[fmt.Sprint("v", i)] = json.RawMessage(value)
	}
	require.NoError(t, e.store.PutAll(ctx, all))
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		got := memoryOf(t, store)
		require.Len(t, got, len(values))
		for i, value := range values {
			key := fmt.Sprint("v", i)
			assert.True(t, wire.Same(json.RawMessage(value), json.RawMessage(got[key])), "%.60s is %.60s", value, got[key])
		}
	}
	var first json.RawMessage
	require.NoError(t, e.store.Get(ctx, "v0", &first))
	assert.JSONEq(t, values[0], string(first))
}

func getAnyValue(t *testing.T, e *env) { getsBack(t, e, slices.Concat(plainValues, wrappedValues)) }

func getSomeValues(t *testing.T, e *env) {
	getsBack(t, e, []string{`1.5`, `123456789012345678901234567890`, `{"json_val":"x"}`, `{"back\\slash":1}`, `"\ud800"`, `"ゆ🎉"`})
}

func getAnyKey(t *testing.T, e *env) {
	ctx := t.Context()
	keys := []string{"", "a/b", "..", "%2F", "@alice:example.org", "é", "\x00", `"`, "roomkv.parents", "encrypted_val", "m.relates_to", strings.Repeat("🎉", 300)}
	if e.single() {
		keys = append(keys, " ", ".", "50%", "?x=1&y#z", "+", "e\u0301", "\u202e", "\ufeff", `a\b`, "\n", "*", "a.b", "roomkv.", "json_val", "redacts", "m.mentions",
			"membership", "state_key", strings.Repeat("k", 255), strings.Repeat("k", 256))
	}
	values := map[string]any{}
	for i, key := range keys {
		values[key] = i
	}
	require.NoError(t, e.store.PutAll(ctx, values))
	other := e.another(t)
	for i, key := range keys {
		got, err := roomkv.Get[int](ctx, e.store, key)
		require.NoError(t, err, "%.40q", key)
		assert.Equal(t, i, got, "%.40q", key)
		if i%4 == 0 {
			got, err = roomkv.Get[int](ctx, other, key)
			require.NoError(t, err, "%.40q", key)
			assert.Equal(t, i, got, "%.40q", key)
		}
	}
	eventually(t, func() bool {
		got, err := other.Keys(ctx)
		return err == nil && slices.Equal(slices.Sorted(slices.Values(keys)), got)
	}, "the keys")
}

func getOpsdroids(t *testing.T, e *env) {
	ctx := t.Context()
	values := map[string]any{"n": 7, "d": map[string]any{"a": []any{"b", nil}}, "empty": map[string]any{}}
	e.sendAllRaw(t, values)
	n, err := roomkv.Get[int](ctx, e.store, "n")
	require.NoError(t, err)
	assert.Equal(t, 7, n)
	e.settle(t)
	assert.Equal(t, map[string]string{"n": "7", "d": `{"a":["b",null]}`, "empty": "{}"}, memoryOf(t, e.store))
	require.NoError(t, e.store.Put(ctx, "n", 8))
	assert.InDelta(t, 8, e.raw(t, "n")["n"], 0, "which opsdroid reads")
}

// roomkv has this key under an escaped name. opsdroid looks for the key itself, and copies the rest.
func getOpsdroidsOverEscaped(t *testing.T, e *env) {
	ctx := t.Context()
	const key = "m.mentions" // Synapse takes only an object with fields of its own under it
	require.NoError(t, e.store.Put(ctx, key, map[string]bool{"ours": true}))
	var content map[string]any // with the field that names what the writer had merged
	require.NoError(t, e.client.StateEvent(ctx, e.room, database, e.stateKey(key), &content))
	content[key] = map[string]bool{"room": true}
	e.sendRaw(t, key, content)
	e.reads(t, key, `{"room":true}`)
	require.NoError(t, e.store.Put(ctx, "other", 1))
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		var got json.RawMessage
		require.NoError(t, store.Get(ctx, key, &got))
		assert.JSONEq(t, `{"room":true}`, string(got))
	}
}

func getOldestOpsdroids(t *testing.T, e *env) {
	e.sendRaw(t, "k", map[string]any{"points": 3, "name": "x"})
	var got json.RawMessage
	require.NoError(t, e.store.Get(t.Context(), "k", &got))
	assert.JSONEq(t, `{"points":3,"name":"x"}`, string(got))
}

func entryTells(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", map[string]int{"n": 1}))
	first, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, "k", first.Key)
	assert.JSONEq(t, `{"n":1}`, string(first.Value))
	assert.Equal(t, e.client.UserID, first.Sender)
	assert.WithinDuration(t, time.Now(), first.Time, time.Minute)
	assert.Equal(t, roomkv.InState, first.Place)
	assert.Equal(t, "state", first.Place.String())
	assert.False(t, first.Deleted)
	assert.Equal(t, e.encrypted, first.Encrypted)
	if e.encrypted {
		assert.Equal(t, e.client.UserID, first.EncryptedBy)
		assert.Equal(t, id.TrustStateVerified, first.Trust)
	} else {
		assert.Empty(t, first.EncryptedBy)
	}
	current, err := e.client.FullStateEvent(ctx, e.room, database, e.stateKey("k"))
	require.NoError(t, err)
	assert.Equal(t, current.ID, id.EventID(first.Revision), "the revision is the state event's ID")
	again, err := e.another(t).Entry(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, first, again)

	require.NoError(t, e.store.Put(ctx, "other", 1))
	require.NoError(t, e.store.Put(ctx, "k", map[string]int{"n": 2}))
	second, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	assert.NotEqual(t, first.Revision, second.Revision)
	assert.False(t, second.Time.Before(first.Time))
}

func entryOfOthers(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.member(t, 50)
	require.NoError(t, e.store.Put(ctx, "k", 1))
	require.NoError(t, open(t, other, e.room, e.opts()...).Put(ctx, "k", 2))
	e.reads(t, "k", "2")
	entry, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, other.UserID, entry.Sender)
}

func newByName(t *testing.T, e *env) {
	ctx := t.Context()
	local := strings.ToLower(e.client.UserID.Localpart())
	room, err := e.client.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat", RoomAliasName: local})
	require.NoError(t, err)
	require.NoError(t, open(t, e.client, room.RoomID).Put(ctx, "k", 1))
	alias := "#" + local + ":" + e.client.UserID.Homeserver()
	names := roomkv.WithRooms(map[string]string{"main": alias, "by ID": room.RoomID.String()})
	for name, most := range map[string]int{alias: 3, "main": 3, "by ID": 2, room.RoomID.String(): 2} {
		e.requests.Reset()
		store, err := roomkv.New(e.client, name, names)
		require.NoError(t, err)
		assert.Zero(t, e.requests.Count(), "New sends nothing")
		for range 2 {
			got, err := roomkv.Get[int](ctx, store, "k")
			require.NoError(t, err, name)
			assert.Equal(t, 1, got)
		}
		assert.Equal(t, most, e.requests.Count(), "an alias takes one request, once")
		scoped, err := store.WithRoom(ctx, id.RoomID(name))
		require.NoError(t, err)
		require.NoError(t, scoped.Get(ctx, "k", new(int)))
		assert.Equal(t, most+1, e.requests.Count())
	}
}

func withRoom(t *testing.T, e *env) {
	ctx := t.Context()
	second := e.newRoom(t, e.client)
	scoped, err := e.store.WithRoom(ctx, second)
	require.NoError(t, err)
	require.NoError(t, e.store.Put(ctx, "k", "first"))
	require.NoError(t, scoped.Put(ctx, "k", "second"))
	for store, want := range map[*roomkv.Store]string{e.store: `"first"`, scoped: `"second"`, open(t, e.twin(t), second, e.opts()...): `"second"`} {
		assert.Equal(t, map[string]string{"k": want}, memoryOf(t, store))
	}
	back, err := scoped.WithRoom(ctx, e.room)
	require.NoError(t, err)
	got, err := roomkv.Get[string](ctx, back, "k")
	require.NoError(t, err)
	assert.Equal(t, "first", got)
}

func inEventRoom(t *testing.T, e *env) {
	ctx := t.Context()
	second := e.newRoom(t, e.client)
	calls := 0
	handle := e.store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		calls++
		assert.NoError(t, room.Put(ctx, "seen", evt.ID))
		found, ok := roomkv.FromContext(ctx)
		assert.True(t, ok)
		got, err := roomkv.Get[id.EventID](ctx, found, "seen")
		assert.NoError(t, err)
		assert.Equal(t, evt.ID, got)
	})
	handle(ctx, &event.Event{ID: "$one", RoomID: second})
	handle(ctx, &event.Event{ID: "$two", RoomID: e.room})
	assert.Equal(t, 2, calls)
	assert.Equal(t, map[string]string{"seen": `"$two"`}, memoryOf(t, e.store))
	_, ok := roomkv.FromContext(ctx)
	assert.False(t, ok)
	e.store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
		assert.ErrorIs(t, room.Put(ctx, "k", 1), roomkv.ErrUnknownRoom)
	})(ctx, &event.Event{ID: "$nowhere"})
}

func followReads(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, other.PutAll(ctx, map[string]any{"k": 1, "j": 1}))
	e.reads(t, "k", "1")
	require.NoError(t, other.Put(ctx, "k", 2))
	e.reads(t, "k", "2")
	e.requests.Reset()
	for range 20 {
		require.NoError(t, e.store.Get(ctx, "k", new(int)))
	}
	assert.Zero(t, requests(e.requests), "reads come from memory")
	require.NoError(t, e.store.Follow(), "once is enough")
}

func followEnds(t *testing.T, e *env) {
	ctx := t.Context()
	client := e.twin(t)
	store, stop := follow(t, client, e.room, e.opts()...)
	require.NoError(t, store.Put(ctx, "k", 1))
	stop()
	require.NoError(t, e.another(t).Put(ctx, "k", 2))
	got, err := roomkv.Get[int](ctx, store, "k")
	require.NoError(t, err)
	assert.Equal(t, 2, got, "a sync that has ended is not read from")
	require.NoError(t, store.Put(ctx, "k", 3))
	got, err = roomkv.Get[int](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, 3, got)
}

// As opsdroid does, another program writes a dict that it has read before, with the field that names what its writer had merged.
func followRepairs(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "base", 0))
	var stale map[string]any
	require.NoError(t, e.client.StateEvent(ctx, e.room, database, "", &stale))
	require.NoError(t, e.store.Put(ctx, "mine", 1))
	stale["theirs"] = 2
	e.sendRaw(t, "", stale)
	want := map[string]string{"base": "0", "mine": "1", "theirs": "2"}
	eventually(t, func() bool { return e.raw(t, "")["mine"] != nil }, "the merge")
	assert.Equal(t, want, memoryOf(t, e.store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}
