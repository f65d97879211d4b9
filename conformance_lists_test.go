package roomkv_test

import (
	"bytes"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// listRows are about the whole memory.
var listRows = []row{
	{name: "Rooms are those that have a memory", in: layouts4 + " " + secretly + " " + followed, run: roomsWithAMemory},
	{name: "Keys of an empty memory", in: inAll, run: keysOfNothing},
	{name: "Keys are sorted", in: inAll, run: keysAreSorted},
	{name: "Keys has those that cannot be read", in: each, run: keysOfWhatCannotBeRead},
	{name: "Keys brings no other state", in: layouts4 + " perkey/encrypted", run: keysAreCheap},
	{name: "Keys and All show what others write", in: inRooms + " " + followed, run: listsShowOthers},
	{name: "All gives entries in order", in: inAll, run: allInOrder},
	{name: "All can be left early", in: each, run: allLeftEarly},
	{name: "Keys and All with options", in: inAll, run: listsWithOptions},
	{name: "Keys and All with options and what waits for a flush", in: inRooms, run: listsWithOptionsOfWhatWaits},
	{name: "All with options after what cannot be read", in: each, run: allWithOptionsGoesOn},
	{name: "GetAll gives those that are there", in: inAll, run: getAll},
	{name: "MapOf gives values by their type", in: inAll, run: mapOf},
	{name: "Info tells how full a memory is", in: inAll, run: infoTells},
	{name: "Info tells what keeps from writing", in: each, run: infoOfPower},
	{name: "The log tells of a memory that is nearly full", in: "single single/following", run: fullMemory},
	{name: "All goes on after what cannot be read", in: each, run: allGoesOn},
}

// lists compares what Keys and All give with what is wanted.
func lists(t *testing.T, store *roomkv.Store, want []string, opts ...roomkv.ListOption) {
	t.Helper()
	keys, err := store.Keys(t.Context(), opts...)
	require.NoError(t, err)
	assert.Equal(t, want, keys)
	all := []string{}
	for entry, err := range store.All(t.Context(), opts...) {
		require.NoError(t, err)
		all = append(all, entry.Key)
	}
	assert.Equal(t, want, all)
}

func listsWithOptions(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"b/2": 1, "a": 2, "b/1": 3, "b": 4, "b/3": 5, "c": 6}))
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		lists(t, store, []string{"a", "b", "b/1", "b/2", "b/3", "c"})
		lists(t, store, []string{"b/1", "b/2", "b/3"}, roomkv.Prefix("b/"))
		lists(t, store, []string{"b/2", "b/3"}, roomkv.Prefix("b/"), roomkv.StartAfter("b/1"))
		lists(t, store, []string{"b/1", "b/2"}, roomkv.Prefix("b/"), roomkv.StartAfter("b"), roomkv.Limit(2))
		lists(t, store, []string{"c", "b/3"}, roomkv.Descending(), roomkv.Limit(2))
		lists(t, store, []string{"b/1", "b", "a"}, roomkv.Descending(), roomkv.StartAfter("b/15"))
		lists(t, store, []string{}, roomkv.Prefix("d"))
		lists(t, store, []string{"a"}, roomkv.Limit(5), roomkv.Limit(1))
	}
	_, err := e.store.Keys(ctx, roomkv.Limit(0))
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = e.store.Keys(ctx, nil)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	for _, err := range e.store.All(ctx, roomkv.Limit(-1)) {
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	}
}

func listsWithOptionsOfWhatWaits(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"b": 1, "d": 2, "f": 3}))
	store := open(t, e.twin(t), e.room, e.opts(roomkv.WithFlushEvery(time.Hour))...)
	defer func() { require.NoError(t, store.Close(ctx)) }()
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 4, "c": 5, "g": 6}))
	require.NoError(t, store.Delete(ctx, "b"))
	lists(t, store, []string{"a", "c", "d", "f", "g"})
	lists(t, store, []string{"a", "c", "d"}, roomkv.Limit(3))
	lists(t, store, []string{"g", "f", "d"}, roomkv.Limit(3), roomkv.Descending())
	lists(t, store, []string{"d", "f"}, roomkv.StartAfter("c"), roomkv.Limit(2))
	entries, err := store.GetAll(ctx, "a", "b", "d", "none")
	require.NoError(t, err)
	assert.Len(t, entries, 2)
	assert.Equal(t, "4", string(entries["a"].Value))
	assert.Equal(t, "2", string(entries["d"].Value))
}

func allWithOptionsGoesOn(t *testing.T, e *env) {
	broken(t, e)
	var keys []string
	for entry, err := range e.store.All(t.Context(), roomkv.StartAfter("a"), roomkv.Descending(), roomkv.Limit(9)) {
		keys = append(keys, entry.Key)
		assert.NoError(t, err)
	}
	assert.Empty(t, keys)
	for entry, err := range e.store.All(t.Context(), roomkv.StartAfter("a"), roomkv.Limit(1)) {
		keys = append(keys, entry.Key)
		require.ErrorIs(t, err, roomkv.ErrCorrupt)
	}
	assert.Equal(t, []string{"bad"}, keys)
	entries, err := e.store.GetAll(t.Context(), "a", "bad", "none")
	require.ErrorIs(t, err, roomkv.ErrCorrupt)
	assert.Len(t, entries, 1)
	assert.Equal(t, "1", string(entries["a"].Value))
}

func getAll(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": "two", "c": 3}))
	want := map[string]string{"a": "1", "b": `"two"`}
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		entries, err := store.GetAll(ctx, "b", "none", "a", "b")
		require.NoError(t, err)
		got := map[string]string{}
		for key, entry := range entries {
			got[key] = string(entry.Value)
			assert.Equal(t, key, entry.Key)
			assert.Equal(t, e.encrypted, entry.Encrypted)
			assert.NotEmpty(t, entry.Revision)
		}
		assert.Equal(t, want, got)
	}
	entries, err := e.store.GetAll(ctx)
	require.NoError(t, err)
	assert.Empty(t, entries)
	_, err = e.store.GetAll(ctx, "\xff")
	require.ErrorIs(t, err, roomkv.ErrInvalidKey)
	if e.following {
		e.synced(t)
		e.counts(t, 0, "GetAll", func() error { _, err := e.store.GetAll(ctx, "a", "b", "c"); return err })
		return
	}
	e.settle(t)
	e.counts(t, 1, "GetAll", func() error { _, err := e.store.GetAll(ctx, "a", "b", "c"); return err })
	if !e.alone() {
		assert.Equal(t, 1, e.requests.Count(), "the same request is not made again for each key: %s", e.sent())
	}
}

func mapOf(t *testing.T, e *env) {
	ctx := t.Context()
	type score struct{ Points int }
	scores := roomkv.MapOf[score](e.store)
	assert.Equal(t, e.store, scores.Store())
	require.NoError(t, scores.Put(ctx, "alice", score{3}))
	require.NoError(t, scores.Update(ctx, "bob", func(old score, found bool) (score, error) {
		assert.False(t, found)
		return score{old.Points + 5}, nil
	}))
	require.NoError(t, e.store.Put(ctx, "other", "text"))
	got, err := scores.Get(ctx, "alice")
	require.NoError(t, err)
	assert.Equal(t, score{3}, got)
	_, err = scores.Get(ctx, "nobody")
	require.ErrorIs(t, err, roomkv.ErrNotFound)
	keys, err := scores.Keys(ctx, roomkv.Limit(2))
	require.NoError(t, err)
	assert.Equal(t, []string{"alice", "bob"}, keys)
	all := map[string]int{}
	for entry, err := range scores.All(ctx) {
		if entry.Key == "other" {
			require.ErrorIs(t, err, roomkv.ErrDecode)
			assert.Zero(t, entry.Value)
			continue
		}
		require.NoError(t, err)
		all[entry.Key] = entry.Value.Points
		assert.Equal(t, e.client.UserID, entry.Entry.Sender)
	}
	assert.Equal(t, map[string]int{"alice": 3, "bob": 5}, all)
	require.NoError(t, scores.Delete(ctx, "alice", "other"))
	assert.Equal(t, map[string]string{"bob": `{"Points":5}`}, memoryOf(t, e.store))
	var none roomkv.Map[score]
	require.ErrorIs(t, none.Put(ctx, "k", score{}), roomkv.ErrInvalidOption)
	_, err = none.Get(ctx, "k")
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	require.ErrorIs(t, none.Update(ctx, "k", func(score, bool) (score, error) { return score{}, nil }), roomkv.ErrInvalidOption)
	require.ErrorIs(t, none.Delete(ctx, "k"), roomkv.ErrInvalidOption)
	_, err = none.Keys(ctx)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	for _, err := range none.All(ctx) {
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	}
	for _, err := range none.Watch(ctx) {
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	}
}

func infoTells(t *testing.T, e *env) {
	ctx := t.Context()
	info, err := e.store.Info(ctx)
	require.NoError(t, err)
	assert.Equal(t, e.room, info.Room)
	assert.Zero(t, info.Keys)
	assert.Zero(t, info.Bytes)
	const keys = 12
	values := map[string]any{}
	for i := range keys {
		values[fmt.Sprintf("key %02d", i)] = strings.Repeat("x", 100)
	}
	require.NoError(t, e.store.PutAll(ctx, values))
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		eventually(t, func() bool { // a list can lag behind
			info, err = store.Info(ctx)
			require.NoError(t, err)
			return info.Keys == keys
		}, "the keys")
		assert.Equal(t, e.alone(), info.PerKey)
		assert.Equal(t, e.encrypted, info.Encrypted)
		assert.False(t, info.Sealed)
		assert.Equal(t, roomkv.InState, info.Place)
		assert.Empty(t, info.UpgradedTo)
		require.True(t, info.PowerKnown)
		assert.GreaterOrEqual(t, info.Power, info.PowerNeeded)
		assert.Greater(t, info.Total, keys*50)
		assert.Less(t, info.Total, keys*150)
		switch {
		case e.single():
			assert.Equal(t, 1, info.Events)
			assert.Equal(t, 1, info.Shards)
			assert.Equal(t, info.Total, info.Bytes)
			assert.InDelta(t, (roomkv.MaxBytes-info.Bytes)/(info.Bytes/keys), info.More, 30)
		case e.alone():
			assert.Equal(t, keys, info.Events)
			assert.Zero(t, info.Shards)
			assert.Less(t, info.Bytes, 200)
			assert.Equal(t, -1, info.More)
		default:
			assert.Len(t, e.stateKeys(slices.Collect(maps.Keys(values))...), info.Events)
			assert.Equal(t, shards, info.Shards)
			assert.Less(t, info.Bytes, info.Total)
			assert.InEpsilon(t, shards*(roomkv.MaxBytes-info.Bytes)/(info.Total/keys), info.More, 0.1)
		}
	}
	if e.following {
		e.synced(t)
		info, err = e.store.Info(ctx)
		require.NoError(t, err)
		assert.True(t, info.Following)
		assert.Less(t, info.Age, 35*time.Second)
	}
}

func infoOfPower(t *testing.T, e *env) {
	member := e.member(t, 0)
	info, err := open(t, member, e.room, e.opts()...).Info(t.Context())
	require.NoError(t, err)
	assert.True(t, info.PowerKnown)
	assert.Zero(t, info.Power)
	assert.Equal(t, 50, info.PowerNeeded)
	assert.Equal(t, roomkv.InState, info.Place)
	info, err = open(t, member, e.room, e.opts(roomkv.WithAccountDataFallback())...).Info(t.Context())
	require.NoError(t, err)
	assert.Equal(t, roomkv.InAccountData, info.Place)
}

func fullMemory(t *testing.T, e *env) {
	ctx := t.Context()
	var log bytes.Buffer
	ctx = zerolog.New(zerolog.SyncWriter(&log)).WithContext(ctx)
	warnings := func() int { return strings.Count(log.String(), "nearly full") }
	fill := func(n int) map[string]any {
		values := map[string]any{}
		for i := range n {
			values[fmt.Sprintf("key %03d", i)] = strings.Repeat("x", 1000)
		}
		return values
	}
	require.NoError(t, e.store.PutAll(ctx, fill(40)))
	assert.Zero(t, warnings())
	require.NoError(t, e.store.PutAll(ctx, fill(48)), "which would still leave some room")
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"small 1": strings.Repeat("y", 1900), "small 2": strings.Repeat("y", 1900), "small 3": strings.Repeat("y", 1900)}))
	assert.Equal(t, 1, warnings())
	require.NoError(t, e.store.Put(ctx, "more", 1))
	assert.Equal(t, 1, warnings(), "once")
	assert.NotContains(t, log.String(), strings.Repeat("y", 20))
	require.NoError(t, e.store.Delete(ctx, "key 000", "key 001", "key 002", "key 003", "key 004", "key 005", "key 006"))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"key 000": strings.Repeat("z", 1900), "key 001": strings.Repeat("z", 1900), "key 002": strings.Repeat("z", 1900), "key 003": strings.Repeat("z", 1900)}))
	assert.Equal(t, 2, warnings(), "and again once it was not")
}

func keysOfNothing(t *testing.T, e *env) {
	keys, err := e.store.Keys(t.Context())
	require.NoError(t, err)
	assert.Empty(t, keys)
	for range e.store.All(t.Context()) {
		t.Error("there is an entry")
	}
}

func keysAreSorted(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"b": 1, "": 2, "a/b": 3, "é": 4, "@user:example.org": 5, "B": 6}))
	want := []string{"", "@user:example.org", "B", "a/b", "b", "é"}
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, want, keys)
	}
	require.NoError(t, e.store.Delete(ctx, "b", ""))
	keys, err := e.store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"@user:example.org", "B", "a/b", "é"}, keys)
}

// broken puts two good values and a bad one there, as somebody else would.
func broken(t *testing.T, e *env) {
	t.Helper()
	bad := map[string]any{"encrypted_val": 7}
	e.sendAllRaw(t, map[string]any{"a": 1, "bad": bad, "c": 3})
	e.settle(t)
}

func keysOfWhatCannotBeRead(t *testing.T, e *env) {
	broken(t, e)
	keys, err := e.store.Keys(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []string{"a", "bad", "c"}, keys)
}

func keysAreCheap(t *testing.T, e *env) {
	ctx := t.Context()
	e.member(t, 0)
	_, err := e.client.SendStateEvent(ctx, e.room, database, "of another layout", map[string]any{"name": "unrelated"})
	require.NoError(t, err)
	store := open(t, e.client, e.room, e.opts(roomkv.WithEventType("com.example.memory"))...)
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	eventually(t, func() bool {
		e.requests.Reset()
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b"}, keys)
		return e.requests.Count() == 1
	}, "one request")
	request := e.requests.Requests()[0]
	assert.Equal(t, http.MethodGet, request.Method)
	for _, other := range []string{"m.room.member", "unrelated", "m.push_rules"} {
		assert.NotContains(t, string(request.Response), other)
	}
}

func listsShowOthers(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, e.store.Put(ctx, "mine", 1))
	for i, key := range []string{"one", "two"} {
		require.NoError(t, other.Put(ctx, key, i))
		eventually(t, func() bool { _, there := memoryOf(t, e.store)[key]; return there }, key)
	}
	require.NoError(t, other.Delete(ctx, "one", "mine"))
	eventually(t, func() bool { return len(memoryOf(t, e.store)) == 1 }, "the deletion")
	keys, err := e.store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"two"}, keys)
}

func allInOrder(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"c": 0.5, "a": nil, "b": []int{}}))
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		var keys, values []string
		for entry, err := range store.All(ctx) {
			require.NoError(t, err)
			keys, values = append(keys, entry.Key), append(values, string(entry.Value))
			one, err := store.Entry(ctx, entry.Key)
			require.NoError(t, err)
			assert.Equal(t, one, entry)
		}
		assert.Equal(t, []string{"a", "b", "c"}, keys)
		assert.Equal(t, []string{"null", "[]", "0.5"}, values)
	}
}

func allLeftEarly(t *testing.T, e *env) {
	require.NoError(t, e.store.PutAll(t.Context(), map[string]any{"c": 3, "a": 1, "b": 2}))
	var seen []string
	for entry, err := range e.store.All(t.Context()) {
		require.NoError(t, err)
		if seen = append(seen, entry.Key); len(seen) == 2 {
			break
		}
	}
	assert.Equal(t, []string{"a", "b"}, seen)
}

func allGoesOn(t *testing.T, e *env) {
	broken(t, e)
	var good, bad []string
	for entry, err := range e.store.All(t.Context()) {
		if err != nil {
			require.ErrorIs(t, err, roomkv.ErrCorrupt)
			assert.NotEmpty(t, entry.Revision)
			bad = append(bad, entry.Key)
			continue
		}
		good = append(good, entry.Key)
	}
	assert.Equal(t, []string{"a", "c"}, good)
	assert.Equal(t, []string{"bad"}, bad)
}

// roomsOf are the rooms in which the store's client has a memory.
func roomsOf(t *testing.T, store *roomkv.Store) (rooms []id.RoomID) {
	t.Helper()
	for room, err := range store.Rooms(t.Context()) {
		require.NoError(t, err)
		rooms = append(rooms, room)
	}
	return rooms
}

func roomsWithAMemory(t *testing.T, e *env) {
	ctx := t.Context()
	has := func(want ...id.RoomID) {
		t.Helper()
		slices.Sort(want)
		eventually(t, func() bool { return slices.Equal(want, roomsOf(t, e.store)) }, "the rooms")
	}
	has()
	second, third := e.newRoom(t, e.client), e.newRoom(t, e.client)
	for _, room := range []id.RoomID{e.room, second} {
		scoped, err := e.store.WithRoom(ctx, room)
		require.NoError(t, err)
		require.NoError(t, scoped.Put(ctx, "k", 1))
	}
	_, err := e.client.SendStateEvent(ctx, third, event.Type{Type: "com.example.other", Class: event.StateEventType}, "", map[string]any{"k": 1})
	require.NoError(t, err)
	has(e.room, second)
	if e.following {
		e.counts(t, 0, "rooms", func() error { roomsOf(t, e.store); return nil })
	} else {
		e.counts(t, 1, "rooms", func() error { roomsOf(t, e.store); return nil })
	}
	for range e.store.Rooms(ctx) {
		break // which is enough
	}
	require.NoError(t, e.store.Delete(ctx, "k"))
	has(e.room, second)
	_, err = e.client.LeaveRoom(ctx, second)
	require.NoError(t, err)
	has(e.room)
}
