package roomkv_test

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"net/http"
	"runtime/debug"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

var (
	soak    = flag.Bool("soak", false, "make the long runs too, and run everything on a real homeserver")
	forking = flag.Bool("forking", false, "run on the homeserver in memory that takes several events at once, as Synapse does")
)

func TestMain(m *testing.M) {
	flag.Parse()
	if !*soak {
		mode := fakehs.Linear
		if *forking {
			mode = fakehs.Forking
		}
		hstest.InMemory(mode)
		debug.SetGCPercent(400) // the tests allocate much and keep little
	}
	hstest.Main(m)
}

// long is for a test that takes long.
func long(t *testing.T) {
	t.Helper()
	if !*soak {
		t.Skip("a long run: -soak")
	}
}

var database = event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}

const customStateKey = "a custom/state key"

// layouts are what every test of the store's behaviour runs with.
var layouts = map[string]roomkv.Option{
	"single": roomkv.WithSingleStateKey(""),
	"custom": roomkv.WithSingleStateKey(customStateKey),
	"shards": roomkv.WithShards(shards),
	"perkey": roomkv.WithPerKeyState(),
}

// shards is over how many state events keys are spread where they are.
const shards = 8

func eachLayout(t *testing.T, test func(t *testing.T, layout roomkv.Option)) {
	for _, name := range slices.Sorted(maps.Keys(layouts)) {
		t.Run("layout="+name, func(t *testing.T) { test(t, layouts[name]) })
	}
}

// newStore makes a store of a fresh user's fresh room, and tells which.
func newStore(t testing.TB, opts ...roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID) {
	t.Helper()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	return open(t, client, room, opts...), client, room
}

func open(t testing.TB, client *mautrix.Client, room id.RoomID, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	store, err := roomkv.New(client, room.String(), opts...)
	require.NoError(t, err)
	return store
}

// rawState is the content of a state event as the homeserver holds it.
func rawState(t testing.TB, client *mautrix.Client, room id.RoomID, eventType event.Type, stateKey string) string {
	t.Helper()
	var content json.RawMessage
	require.NoError(t, client.StateEvent(t.Context(), room, eventType, stateKey, &content))
	return string(content)
}

// dictStateKey is where the dict of the room is, in the layouts that have one.
func dictStateKey(t testing.TB, client *mautrix.Client, room id.RoomID) (stateKey string, single bool) {
	t.Helper()
	for _, stateKey := range []string{"", customStateKey} {
		err := client.StateEvent(t.Context(), room, database, stateKey, new(json.RawMessage))
		if err == nil {
			return stateKey, true
		}
		require.ErrorIs(t, err, mautrix.MNotFound)
	}
	return "", false
}

// stateKeyOf is where the room has the key, in the layout that its memory has.
func stateKeyOf(t testing.TB, client *mautrix.Client, room id.RoomID, key string) string {
	t.Helper()
	if dict, single := dictStateKey(t, client, room); single {
		return dict
	}
	err := client.StateEvent(t.Context(), room, database, wire.ShardsName, new(json.RawMessage))
	if err == nil {
		return wire.ShardKey(wire.Shard(key, shards), shards)
	}
	require.ErrorIs(t, err, mautrix.MNotFound)
	return key
}

// eventually waits, in this goroutine, until done says so: for what another client sent to reach the sync.
func eventually(t testing.TB, done func() bool, what string) {
	t.Helper()
	for deadline := time.Now().Add(30 * time.Second); !done(); time.Sleep(10 * time.Millisecond) {
		require.True(t, time.Now().Before(deadline), what)
	}
}

// listed waits until the homeserver gives an event that it has acknowledged, for which Dendrite takes some milliseconds.
func listed(t testing.TB, client *mautrix.Client, room id.RoomID, evt id.EventID) {
	t.Helper()
	eventually(t, func() bool {
		_, err := client.GetEvent(t.Context(), room, evt)
		return err == nil
	}, "the event")
}

func memoryOf(t testing.TB, store *roomkv.Store) map[string]string {
	t.Helper()
	memory := map[string]string{}
	for entry, err := range store.All(t.Context()) {
		require.NoError(t, err)
		memory[entry.Key] = string(entry.Value)
	}
	return memory
}

func TestPutGetDelete(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		ctx := t.Context()
		type score struct {
			Points int
			Names  []string
		}

		var got score
		require.ErrorIs(t, store.Get(ctx, "alice", &got), roomkv.ErrNotFound)
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Empty(t, keys)

		require.NoError(t, store.Put(ctx, "alice", score{3, []string{"a"}}))
		require.NoError(t, store.Put(ctx, "bob", 7))
		require.NoError(t, store.Get(ctx, "alice", &got))
		assert.Equal(t, score{3, []string{"a"}}, got)
		bob, err := roomkv.Get[int](ctx, store, "bob")
		require.NoError(t, err)
		assert.Equal(t, 7, bob)

		require.NoError(t, store.Put(ctx, "alice", score{4, nil}))
		got, err = roomkv.Get[score](ctx, store, "alice")
		require.NoError(t, err)
		assert.Equal(t, score{4, nil}, got)

		require.NoError(t, store.Delete(ctx, "alice"))
		got, err = roomkv.Get[score](ctx, store, "alice")
		require.ErrorIs(t, err, roomkv.ErrNotFound)
		assert.Zero(t, got)
		keys, err = store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"bob"}, keys)

		require.NoError(t, store.Put(ctx, "alice", "back"))
		assert.Equal(t, map[string]string{"alice": `"back"`, "bob": `7`}, memoryOf(t, store))
	})
}

func TestPutAllDeletePop(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		ctx := t.Context()
		require.NoError(t, store.PutAll(ctx, nil))
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": "two", "c": nil, "d": []int{4}}))
		assert.Equal(t, map[string]string{"a": `1`, "b": `"two"`, "c": `null`, "d": `[4]`}, memoryOf(t, store))

		require.NoError(t, store.Delete(ctx))
		require.NoError(t, store.Delete(ctx, "a", "missing", "c", "a"))
		assert.Equal(t, map[string]string{"b": `"two"`, "d": `[4]`}, memoryOf(t, store))
		require.NoError(t, store.Delete(ctx, "missing"))

		var number int
		require.ErrorIs(t, store.Pop(ctx, "b", &number), roomkv.ErrDecode)
		require.ErrorIs(t, store.Pop(ctx, "b", nil), roomkv.ErrDecode)
		var text string
		require.NoError(t, store.Pop(ctx, "b", &text), "what could not be decoded is still there")
		assert.Equal(t, "two", text)
		require.ErrorIs(t, store.Pop(ctx, "b", &text), roomkv.ErrNotFound)
		assert.Equal(t, map[string]string{"d": `[4]`}, memoryOf(t, store))
	})
}

func TestEntry(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newStore(t, layout)
		ctx := t.Context()
		before := time.Now().Add(-time.Minute)
		require.NoError(t, store.Put(ctx, "k", map[string]int{"n": 1}))
		first, err := store.Entry(ctx, "k")
		require.NoError(t, err)
		assert.Equal(t, "k", first.Key)
		assert.JSONEq(t, `{"n":1}`, string(first.Value))
		assert.Equal(t, client.UserID, first.Sender)
		assert.WithinRange(t, first.Time, before, time.Now().Add(time.Minute))
		assert.False(t, first.Encrypted)
		eventually(t, func() bool {
			evt, err := client.GetEvent(ctx, room, id.EventID(first.Revision))
			return err == nil && evt.Type.Type == roomkv.DefaultEventType
		}, "the revision is the event's ID")

		require.NoError(t, store.Put(ctx, "k", map[string]int{"n": 2}))
		second, err := store.Entry(ctx, "k")
		require.NoError(t, err)
		assert.NotEqual(t, first.Revision, second.Revision)

		for entry, err := range store.All(ctx) {
			require.NoError(t, err)
			assert.Equal(t, second, entry)
		}
		_, err = store.Entry(ctx, "missing")
		require.ErrorIs(t, err, roomkv.ErrNotFound)
	})
}

func TestAllCanBeLeftEarly(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		require.NoError(t, store.PutAll(t.Context(), map[string]any{"c": 3, "a": 1, "b": 2}))
		var seen []string
		for entry, err := range store.All(t.Context()) {
			require.NoError(t, err)
			if seen = append(seen, entry.Key); len(seen) == 2 {
				break
			}
		}
		assert.Equal(t, []string{"a", "b"}, seen, "sorted")
	})
}

// values that a Matrix event can hold as they are, and such that it cannot.
var (
	plainValues = []string{
		`null`, `true`, `0`, `-7`, `9007199254740991`, `-9007199254740991`, `""`, `"text"`, `"nul \u0000 and newline \n"`,
		`"quotes \" and \\ backslashes"`, `"ゆ🎉 <b>&\u2028"`, `[]`, `{}`, `[[],{},[null]]`, `{"":1,"a.b":{"c d":"*"}}`,
		`{"encrypted_val":"x","and":"more"}`, `{"nested":{"json_val":"1"}}`, strings.Repeat(`{"a":`, 100) + `1` + strings.Repeat(`}`, 100),
	}
	wrappedValues = []string{
		`1.5`, `1.0`, `-0`, `1e-7`, `1152921504606846976`, `9007199254740992`, `123456789012345678901234567890`, `{"a":[{"b":0.1}]}`,
		`{"encrypted_val":"x"}`, `{"json_val":"x"}`, `{"media_val":{}}`, `{"encrypted_val":{"deep":1.5}}`,
		`"\ud800"`, `{"quote\"in name":1}`, `{"back\\slash":1}`, `{"nul\u0000":1}`, `{"line\nfeed":[1]}`,
		strings.Repeat(`[`, 101) + strings.Repeat(`]`, 101), strings.Repeat(`[`, 5000) + strings.Repeat(`]`, 5000),
	}
)

func TestEveryValueRoundTrips(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		want := map[string]string{}
		values := map[string]any{}
		for i, value := range slices.Concat(plainValues, wrappedValues) {
			key := fmt.Sprintf("v%02d", i)
			want[key] = value
			values[key] = json.RawMessage(value)
		}
		require.NoError(t, store.PutAll(t.Context(), values))
		got := memoryOf(t, store)
		require.Len(t, got, len(want))
		for key, value := range want {
			assert.Equal(t, canonical(t, value), canonical(t, got[key]), "%s", key)
			var one json.RawMessage
			require.NoError(t, store.Get(t.Context(), key, &one))
			assert.Equal(t, got[key], string(one))
		}
	})
}

// canonical spells a value one way and leaves its numbers and unpaired surrogates alone.
func canonical(t *testing.T, value string) string {
	t.Helper()
	if strings.Contains(value, `\ud800`) {
		return value
	}
	decoder := json.NewDecoder(strings.NewReader(value))
	decoder.UseNumber()
	var generic any
	require.NoError(t, decoder.Decode(&generic))
	text, err := json.Marshal(generic)
	require.NoError(t, err)
	return string(text)
}

func TestGoValuesRoundTrip(t *testing.T) {
	hstest.Parallel(t)
	store, _, _ := newStore(t)
	ctx := t.Context()
	roundTrip(t, store, 1<<60)
	roundTrip(t, store, uint64(1<<64-1))
	roundTrip(t, store, 0.1)
	roundTrip(t, store, 1e300)
	roundTrip(t, store, []byte{0, 255})
	roundTrip(t, store, time.Date(2026, 2, 3, 4, 5, 6, 7, time.UTC))
	roundTrip(t, store, map[string][]float64{"x": {1, 2.5}})

	require.NoError(t, store.Put(ctx, "k", nil))
	pointer, err := roomkv.Get[*int](ctx, store, "k")
	require.NoError(t, err, "null is a value")
	assert.Nil(t, pointer)
}

func roundTrip[T any](t *testing.T, store *roomkv.Store, value T) {
	t.Helper()
	require.NoError(t, store.Put(t.Context(), "k", value))
	got, err := roomkv.Get[T](t.Context(), store, "k")
	require.NoError(t, err)
	assert.Equal(t, value, got)
}

// What Matrix can hold stands in the state as it is, for people and for opsdroid.
func TestPlainValuesArePlainInTheState(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newStore(t)
	perKey := open(t, client, room, roomkv.WithPerKeyState())
	require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 1, "b": map[string]any{"c": "d"}, "f": 1.5}))
	require.NoError(t, perKey.Put(t.Context(), "some key", []int{1}))
	var content map[string]json.RawMessage
	require.NoError(t, json.Unmarshal([]byte(rawState(t, client, room, database, "")), &content))
	delete(content, "roomkv.parents")
	assert.Equal(t, map[string]json.RawMessage{"a": json.RawMessage(`1`), "b": json.RawMessage(`{"c":"d"}`), "f": json.RawMessage(`{"json_val":"1.5"}`)}, content)
	assert.Contains(t, rawState(t, client, room, database, "some key"), `"some key":[1]`)
	for _, value := range plainValues {
		require.NoError(t, perKey.Put(t.Context(), "k", json.RawMessage(value)))
		assert.NotContains(t, rawState(t, client, room, database, "k"), `{"k":{"json_val"`, value)
	}
	for _, value := range wrappedValues {
		require.NoError(t, perKey.Put(t.Context(), "k", json.RawMessage(value)))
		assert.Contains(t, rawState(t, client, room, database, "k"), `{"k":{"json_val"`, value)
	}
}

func TestEveryKeyWorks(t *testing.T) {
	hstest.Parallel(t)
	keys := []string{
		"", " ", "a", "a b", "a/b", "/", "..", ".", "../..", "%", "%2F", "50%", "?x=1&y#z", "+", "@", "@alice:example.org",
		"é", "e\u0301", "日本語", "🎉", "\u202e", "\ufeff", "\uffff", "\x00", "a\x00", "\n", "\x7f", `"`, `\`, `a\b`, `\\.`, "'", "*",
		"a.b", "@this", "#", "roomkv.", "roomkv.parents", "roomkv.@alice:example.org", "roomkv.%41", "encrypted_val", "json_val",
		"redacts", "m.relates_to", "m.mentions", "m.new_content", "org.matrix.labels", "content", "unsigned", "membership", "state_key",
		strings.Repeat("k", 255), strings.Repeat("k", 256), strings.Repeat("🎉", 300), "@" + strings.Repeat("k", 254),
	}
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		values := map[string]any{}
		for i, key := range keys {
			values[key] = i
		}
		require.NoError(t, store.PutAll(t.Context(), values))
		for i, key := range keys {
			got, err := roomkv.Get[int](t.Context(), store, key)
			require.NoError(t, err, "%.40q", key)
			assert.Equal(t, i, got, "%.40q", key)
		}
		got, err := store.Keys(t.Context())
		require.NoError(t, err)
		assert.Equal(t, slices.Sorted(slices.Values(keys)), got)

		require.NoError(t, store.Delete(t.Context(), keys[:len(keys)/2]...))
		got, err = store.Keys(t.Context())
		require.NoError(t, err)
		assert.Equal(t, slices.Sorted(slices.Values(keys[len(keys)/2:])), got)
	})
}

// Some names mean something to homeservers in the content of any event, which must not mind what a store has under them.
func TestNamesThatMeanSomethingToHomeservers(t *testing.T) {
	hstest.Parallel(t)
	names := []string{"redacts", "m.relates_to", "m.mentions", "org.matrix.labels", "m.new_content", "org.matrix.self_destruct_after", "msgtype", "body",
		"algorithm", "membership", "url", "info", "replacement_room", "room_version", "type", "name", "topic", "users", "org.matrix.msc4293.redact_events"}
	values := []string{`5`, `-1`, `"text"`, `["a","a"]`, `[{"a":1}]`, `{}`, `{"a":1}`, `null`, `true`, `{"user_ids":5}`, `{"rel_type":"m.replace","event_id":"$x"}`, `1.5`}
	for _, encrypted := range []bool{false, true} {
		bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
			store, client, room := newIn(t, encrypted, layout)
			for _, value := range values {
				all := map[string]any{}
				for _, name := range names {
					all[name] = json.RawMessage(value)
				}
				require.NoError(t, store.PutAll(t.Context(), all), value)
				for _, reading := range []*roomkv.Store{store, open(t, client, room, layout)} {
					for _, name := range names {
						got, err := roomkv.Get[json.RawMessage](t.Context(), reading, name)
						require.NoError(t, err, "%s: %s", name, value)
						assert.JSONEq(t, value, string(got), name)
					}
				}
			}
		})
	}
}

// What opsdroid has under such a name is read, and stays.
func TestReadsNamesThatOpsdroidDoesNotEscape(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newStore(t, layout)
		for stateKey, content := range map[string]any{
			"": map[string]any{"org.matrix.labels": []string{"a"}, "redacts": "$x"}, "org.matrix.labels": map[string]any{"org.matrix.labels": []string{"a"}}, "redacts": map[string]any{"redacts": "$x"},
		} {
			_, err := client.SendStateEvent(t.Context(), room, database, stateKey, content)
			require.NoError(t, err)
		}
		require.NoError(t, store.Put(t.Context(), "other", 1))
		want := map[string]string{"org.matrix.labels": `["a"]`, "redacts": `"$x"`, "other": "1"}
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout)))
		require.NoError(t, store.Put(t.Context(), "org.matrix.labels", 7))
		want["org.matrix.labels"] = "7"
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout)))
	})
}

func TestInvalidKeysAndValues(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, _ := newStore(t, layout)
		recorder := hstest.Record(client)
		ctx := t.Context()
		for _, key := range []string{"\xff", "a\xc3", "\xed\xa0\x80"} {
			assert.ErrorIs(t, store.Put(ctx, key, 1), roomkv.ErrInvalidKey)
			assert.ErrorIs(t, store.Get(ctx, key, new(int)), roomkv.ErrInvalidKey)
			assert.ErrorIs(t, store.Delete(ctx, "fine", key), roomkv.ErrInvalidKey)
			assert.ErrorIs(t, store.Pop(ctx, key, new(int)), roomkv.ErrInvalidKey)
		}
		for _, value := range []any{make(chan int), func() {}, json.RawMessage(`{`), json.RawMessage("\"\xff\""), map[bool]int{true: 1}, "\xff\xfe", map[string]any{"\xff": 1}} {
			assert.ErrorIs(t, store.PutAll(ctx, map[string]any{"fine": 1, "bad": value}), roomkv.ErrInvalidValue)
			assert.ErrorIs(t, store.Create(ctx, "bad", value), roomkv.ErrInvalidValue)
			assert.ErrorIs(t, store.CompareAndPut(ctx, "bad", value, ""), roomkv.ErrInvalidValue)
		}
		assert.Zero(t, recorder.Count(), "nothing is sent for what cannot work")
		assert.ErrorIs(t, roomkv.Update(ctx, store, "bad", func(string, bool) (string, error) { return "\xff", nil }), roomkv.ErrInvalidValue)
		assert.Zero(t, writes(recorder))
		require.NoError(t, store.Put(ctx, "fine", "\ufffd"))
		roundTrip(t, store, "\ufffd")
	})
}

func TestNoEventWhenNothingChanges(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		ctx := t.Context()
		values := map[string]any{"k": map[string]any{"b": []any{1, nil}, "a": "<x>"}, "wrapped": map[string]any{"z": 2.5, "a": 1}}
		require.NoError(t, store.PutAll(ctx, values))
		before := revisions(t, store, "k", "wrapped")
		require.NoError(t, store.PutAll(ctx, values))
		require.NoError(t, store.Put(ctx, "wrapped", values["wrapped"]))
		require.NoError(t, store.Put(ctx, "k", json.RawMessage(`{ "a": "\u003cx>", "b": [1, null] }`)))
		require.NoError(t, store.Delete(ctx, "missing"))
		require.ErrorIs(t, store.Pop(ctx, "missing", new(any)), roomkv.ErrNotFound)
		assert.Equal(t, before, revisions(t, store, "k", "wrapped"))
	})
}

// revisions name the events that hold the keys.
func revisions(t *testing.T, store *roomkv.Store, keys ...string) (all []roomkv.Revision) {
	t.Helper()
	for _, key := range keys {
		entry, err := store.Entry(t.Context(), key)
		require.NoError(t, err)
		all = append(all, entry.Revision)
	}
	return all
}

func TestEventsPerWrite(t *testing.T) {
	hstest.Parallel(t)
	for name, events := range map[string]struct{ put, del int }{"single": {1, 1}, "perkey": {3, 2}} {
		store, client, _ := newStore(t, layouts[name])
		recorder := hstest.Record(client)
		require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 1, "b": 2, "c": 3}))
		assert.Equal(t, events.put, writes(recorder), name)
		recorder.Reset()
		require.NoError(t, store.Delete(t.Context(), "a", "b", "missing"))
		assert.Equal(t, events.del, writes(recorder), name)
	}
}

func writes(recorder *hstest.Recorder) (n int) {
	for _, request := range recorder.Requests() {
		if request.Method == http.MethodPut {
			n++
		}
	}
	return n
}

// counted is how many requests there were. One that is repeated at once counts as one: Dendrite can list an event some
// milliseconds after it has acknowledged it, and the look back is then made again.
func counted(recorder *hstest.Recorder) (n int) {
	var before hstest.Request
	for _, request := range recorder.Requests() {
		if request.Method != before.Method || request.Path != before.Path || request.Query != before.Query {
			n++
		}
		before = request
	}
	return n
}

func TestRequests(t *testing.T) { // alone: a busy machine makes a store ask more often
	for name, cost := range map[string]struct{ first, put, same, putAll, del, delAll, pop, keys int }{
		"single": {first: 5, put: 2, same: 1, putAll: 2, del: 2, delAll: 2, pop: 2, keys: 1},
		"perkey": {first: 3, put: 1, same: 1, putAll: 3, del: 2, delAll: 1 + 1 + 3, pop: 3, keys: 1},
	} {
		t.Run("layout="+name, func(t *testing.T) {
			store, client, _ := newStore(t, layouts[name])
			recorder := hstest.Record(client)
			ctx := t.Context()
			count := func(what string, want int, do func() error) {
				t.Helper()
				recorder.Reset()
				require.NoError(t, do())
				assert.Equal(t, want, counted(recorder), what)
			}
			count("first put", cost.first, func() error { return store.Put(ctx, "k", 1) })
			count("put", cost.put, func() error { return store.Put(ctx, "k", 2) })
			count("put of another key", cost.put, func() error { return store.Put(ctx, "j", 2) })
			count("get", 1, func() error { return store.Get(ctx, "k", new(int)) })
			count("entry", 1, func() error { _, err := store.Entry(ctx, "k"); return err })
			eventually(t, func() bool {
				recorder.Reset()
				_, err := store.Keys(ctx)
				return err == nil && recorder.Count() == cost.keys
			}, "keys")
			count("all", cost.keys, func() error {
				for range store.All(ctx) {
				}
				return nil
			})
			count("put of what is there", cost.same, func() error { return store.Put(ctx, "k", 2) })
			count("put of three", cost.putAll, func() error { return store.PutAll(ctx, map[string]any{"x": 1, "y": 2, "z": 3}) })
			eventually(t, func() bool {
				recorder.Reset()
				_, err := store.Keys(ctx)
				return err == nil && recorder.Count() == cost.keys
			}, "keys")
			count("delete of three", cost.delAll, func() error { return store.Delete(ctx, "x", "y", "missing", "z") })
			count("delete", cost.del, func() error { return store.Delete(ctx, "k") })
			count("delete of a missing key", 1, func() error { return store.Delete(ctx, "k") })
			count("pop", cost.pop, func() error { return store.Pop(ctx, "j", new(int)) })
		})
	}
}

// Other state costs nothing to list keys. BenchmarkKeys has the figure for a larger room.
func TestKeysAreCheapInALargeRoom(t *testing.T) {
	hstest.Parallel(t)
	const unrelated, keys, most = 200, 50, 40_000
	client := hstest.Client(t)
	req := &mautrix.ReqCreateRoom{Preset: "private_chat"}
	for i := range unrelated {
		stateKey := fmt.Sprint("unrelated ", i)
		req.InitialState = append(req.InitialState, &event.Event{
			Type: event.Type{Type: "com.example.unrelated", Class: event.StateEventType}, StateKey: &stateKey,
			Content: event.Content{Raw: map[string]any{"padding": strings.Repeat("x", 500)}},
		})
	}
	room := hstest.Room(t, client, req)
	values := map[string]any{}
	for i := range keys {
		values[fmt.Sprintf("key-%02d", i)] = map[string]any{"score": i, "name": "somebody"}
	}
	recorder := hstest.Record(client)
	for name, layout := range layouts {
		store := open(t, client, room, layout, roomkv.WithEventType("com.example."+name))
		require.NoError(t, store.PutAll(t.Context(), values))
		eventually(t, func() bool {
			recorder.Reset()
			got, err := store.Keys(t.Context())
			require.NoError(t, err)
			require.Len(t, got, keys)
			for _, request := range recorder.Requests() {
				assert.Less(t, len(request.Response), most, request.Path)
			}
			return recorder.Count() == 1
		}, name)
	}
}

func TestReadYourWrites(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, room := newStore(t, layout)
		other := open(t, client, room, layout) // another store of the same memory, as another package would make
		ctx := t.Context()
		want := map[string]string{}
		for i := range 30 {
			key := fmt.Sprint("k", i%10)
			require.NoError(t, store.Put(ctx, key, i))
			want[key] = fmt.Sprint(i)
			if i%3 == 2 {
				require.NoError(t, store.Delete(ctx, key))
				delete(want, key)
			}
			require.Equal(t, want, memoryOf(t, other))
		}
	})
}

// Synapse answers the same initial sync from a cache for two minutes; a listing must not be the same.
func TestListingsShowWhatOthersWrite(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		other := hstest.Device(t, client)
		require.NoError(t, store.Put(ctx, "k", 1))
		for i := range 3 {
			assert.NotContains(t, memoryOf(t, store), fmt.Sprint("other's ", i))
			// Not through a store, for all stores of a process know what any of them wrote.
			key := fmt.Sprint("other's ", i)
			content := map[string]any{key: i}
			stateKey := stateKeyOf(t, client, room, key)
			_, err := other.SendStateEvent(ctx, room, database, stateKey, content)
			require.NoError(t, err)
			eventually(t, func() bool { return memoryOf(t, store)[fmt.Sprint("other's ", i)] == fmt.Sprint(i) }, "it is not listed")
		}
	})
}

func TestConcurrentPutsAreAllKept(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		const writers = 64
		store, client, room := newStore(t, layout)
		stores := []*roomkv.Store{store, open(t, client, room, layout)}
		want := map[string]string{}
		var group sync.WaitGroup
		for i := range writers {
			key := fmt.Sprint("key ", i)
			want[key] = fmt.Sprint(i)
			group.Go(func() { assert.NoError(t, stores[i%2].Put(t.Context(), key, i)) })
		}
		group.Wait()
		assert.Equal(t, want, memoryOf(t, store))
		for i := range writers {
			got, err := roomkv.Get[int](t.Context(), store, fmt.Sprint("key ", i))
			require.NoError(t, err)
			assert.Equal(t, i, got)
		}
	})
}

// Each of several callers that pop one key gets another value, and none is lost between a put and a pop.
func TestConcurrentPopsShareNothing(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		const values = 12
		store, _, _ := newStore(t, layout)
		ctx := t.Context()
		var mu sync.Mutex
		got := map[int]int{}
		var puts, pops sync.WaitGroup
		done := make(chan struct{})
		for range 3 {
			pops.Go(func() {
				for {
					var value int
					err := store.Pop(ctx, "slot", &value)
					if err == nil {
						mu.Lock()
						got[value]++
						mu.Unlock()
						continue
					}
					assert.ErrorIs(t, err, roomkv.ErrNotFound)
					select {
					case <-done:
						return
					default:
					}
				}
			})
		}
		puts.Go(func() {
			for i := range values {
				assert.NoError(t, store.Put(ctx, "slot", i))
				for { // until somebody took it, so that no put overwrites another
					if err := store.Get(ctx, "slot", new(int)); err != nil {
						assert.ErrorIs(t, err, roomkv.ErrNotFound)
						break
					}
				}
			}
		})
		puts.Wait()
		close(done)
		pops.Wait()
		assert.Len(t, got, values)
		for value, times := range got {
			assert.Equal(t, 1, times, "value %d", value)
		}
	})
}

// Random operations by many goroutines against a plain map, each goroutine with keys of its own.
func TestSimulation(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		const workers, steps = 6, 30
		store, _, _ := newStore(t, layout)
		ctx := t.Context()
		seed := rand.Uint64()
		t.Logf("seed %d", seed)
		var mu sync.Mutex
		want := map[string]string{}
		var group sync.WaitGroup
		for worker := range workers {
			group.Go(func() {
				random := rand.New(rand.NewPCG(seed, uint64(worker)))
				model := map[string]string{}
				for step := range steps {
					key := fmt.Sprintf("%d/%d", worker, random.IntN(4))
					value, exists := model[key]
					switch random.IntN(5) {
					case 0, 1:
						assert.NoError(t, store.Put(ctx, key, step))
						model[key] = fmt.Sprint(step)
					case 2:
						assert.NoError(t, store.Delete(ctx, key))
						delete(model, key)
					case 3:
						var got json.RawMessage
						err := store.Pop(ctx, key, &got)
						assert.Equal(t, exists, err == nil)
						assert.Equal(t, value, string(got))
						delete(model, key)
					case 4:
						got, err := store.Entry(ctx, key)
						assert.Equal(t, exists, err == nil)
						assert.Equal(t, value, string(got.Value))
					}
				}
				mu.Lock()
				defer mu.Unlock()
				maps.Copy(want, model)
			})
		}
		group.Wait()
		assert.Equal(t, want, memoryOf(t, store))
	})
}

func TestLayoutsAndTypesShareARoom(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	stores := map[string]*roomkv.Store{
		"single": open(t, client, room),
		"custom": open(t, client, room, roomkv.WithSingleStateKey("mine"), roomkv.WithEventType("com.example.memory")),
		"perkey": open(t, client, room, roomkv.WithPerKeyState(), roomkv.WithEventType("com.example.keys")),
	}
	for name, store := range stores {
		require.NoError(t, store.Put(t.Context(), "", name))
		require.NoError(t, store.Put(t.Context(), "k", name))
	}
	for name, store := range stores {
		want := `"` + name + `"`
		assert.Equal(t, map[string]string{"": want, "k": want}, memoryOf(t, store))
	}
}

func TestContextEnds(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, _, _ := newStore(t, layout)
		require.NoError(t, store.Put(t.Context(), "k", 1))
		ctx, cancel := context.WithCancel(t.Context())
		cancel()
		assert.ErrorIs(t, store.Put(ctx, "k", 2), context.Canceled)
		assert.ErrorIs(t, store.Get(ctx, "k", new(int)), context.Canceled)
		assert.ErrorIs(t, store.Delete(ctx, "k"), context.Canceled)
		_, err := store.Keys(ctx)
		assert.ErrorIs(t, err, context.Canceled)
		entries := 0
		for _, err := range store.All(ctx) {
			entries++
			assert.ErrorIs(t, err, context.Canceled)
		}
		assert.Equal(t, 1, entries)
		got, err := roomkv.Get[int](t.Context(), store, "k")
		require.NoError(t, err)
		assert.Equal(t, 1, got)
	})
}

// A write whose caller gave up can reach the homeserver late. It must not undo one that was acknowledged since, and
// nobody who gives up, also while waiting for such a write, leaves the way blocked.
func TestLateWriteUndoesNothing(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, _ := newStore(t, layout)
		require.NoError(t, store.Put(t.Context(), "k", 1))
		sending, late := make(chan struct{}), make(chan struct{})
		var once sync.Once
		client.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut {
				once.Do(func() {
					close(sending)
					<-late
				})
				req = req.WithContext(context.Background())
			}
			return http.DefaultTransport.RoundTrip(req)
		})}
		first, giveUp := context.WithCancel(t.Context())
		result := make(chan error, 2)
		go func() { result <- store.Put(first, "k", 2) }()
		<-sending
		giveUp()
		require.ErrorIs(t, <-result, context.Canceled, "the caller does not wait")
		second, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, store.Put(second, "k", 3), context.DeadlineExceeded, "the next writer does")

		go func() { result <- store.PutAll(t.Context(), map[string]any{"k": 4, "other": 4}) }()
		close(late)
		require.NoError(t, <-result)
		assert.Equal(t, map[string]string{"k": `4`, "other": `4`}, memoryOf(t, store))
		got, err := roomkv.Get[int](t.Context(), store, "k")
		require.NoError(t, err)
		assert.Equal(t, 4, got)
	})
}
