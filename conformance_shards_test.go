package roomkv_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

// shardRows are about keys that are spread over several state events.
var shardRows = []row{
	{name: "WithShards keeps keys of one tag in one event", in: "shards shards/sealed shards/encrypted shards/following", run: shardsByTag},
	{name: "WithShards of another number", in: "shards shards/encrypted shards/following", run: shardsOfAnother},
	{name: "WithShards of two numbers at the same time", in: "shards", run: shardsAtOnce},
	{name: "WithShards of a number that was redacted", in: "shards", run: shardsRedacted},
	{name: "WithShards with sealed keys", in: "shards/sealed", run: shardsSealed},
	{name: "WithShards is copied to another number, and beside other layouts", in: "shards shards/encrypted", run: shardsCopied},
	{name: "WithShards is atomic within a tag", in: "shards/following shards shards/encrypted", run: shardsTransact},
	{name: "WithShards beside a writer who has died", in: "shards", run: shardsUnmerged},
	{name: "WithShards: a watch after a revision tells what has changed", in: "shards/following", run: shardsWatch},
	{name: "WithShards: requests", in: "shards", alone: true, run: shardsRequests},
	{name: "WithShards: requests while following", in: "shards/following", alone: true, run: shardsFollowing},
	{name: "WithShards: a first write after a restart looks back for all", in: "shards/following", alone: true, run: shardsLookBack},
}

func shardsByTag(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"{u}/a": 1, "{u}/b": 2, "x{u}": 3, "a": 4, "b": 5}))
	sent := revisions(t, e.store, "{u}/a", "{u}/b", "x{u}", "a", "b")
	assert.Equal(t, []roomkv.Revision{sent[0], sent[0], sent[0]}, sent[:3])
	if !e.sealed {
		assert.NotEqual(t, sent[3], sent[4])
		assert.Contains(t, e.at(t, wire.ShardKey(wire.Shard("u", shards), shards)), "{u}/b")
	}
	e.settle(t)
	sub := e.store.Sub("{u}/")
	if !e.following {
		e.counts(t, 1, "GetAll of a tag", func() error { _, err := sub.GetAll(ctx, "a", "b"); return err })
		assert.NotContains(t, e.sent(), "/sync", "it reads the one event")
	}
	require.NoError(t, sub.Transact(ctx, func(tx *roomkv.Tx) error {
		keys, err := tx.Keys()
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b"}, keys)
		require.NoError(t, tx.Delete("a"))
		return tx.Put("c", len(keys))
	}))
	want := map[string]string{"{u}/b": "2", "{u}/c": "2", "x{u}": "3", "a": "4", "b": "5"}
	assert.Equal(t, want, memoryOf(t, e.store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
}

func shardsOfAnother(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	assert.InDelta(t, shards, e.at(t, wire.ShardsName)[wire.ShardsName], 0, "the state says it")
	e.settle(t)
	other := e.another(t, roomkv.WithShards(shards+1))
	refused := func(err error) {
		t.Helper()
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
		assert.ErrorContains(t, err, fmt.Sprint(shards))
	}
	for range 2 {
		refused(other.Get(ctx, "k", new(int)))
		refused(other.Put(ctx, "k", 2))
		refused(other.Delete(ctx, "k"))
		_, err := other.Keys(ctx)
		refused(err)
		_, err = other.GetAll(ctx, "k", "j")
		refused(err)
		refused(other.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Put("k", 2) }))
		_, err = other.At(ctx, roomkv.AtTime(time.Now()))
		refused(err)
		_, err = other.Purge(ctx, "k")
		refused(err)
		_, err = roomkv.Copy(ctx, open(t, e.client, e.newRoom(t, e.client)), other)
		refused(err)
		_, err = roomkv.Copy(ctx, other, open(t, e.client, e.newRoom(t, e.client)))
		require.NoError(t, err, "of nothing")
		_, err = roomkv.Copy(ctx, other, e.store)
		refused(err)
	}
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, e.another(t)))
	for name, layout := range layouts {
		if name != e.layout {
			assert.Empty(t, memoryOf(t, open(t, e.client, e.room, layout)), "the layout %s does not take it for its own", name)
		}
	}
}

func shardsAtOnce(t *testing.T, e *env) {
	ctx := t.Context()
	for range 5 {
		room := e.newRoom(t, e.client)
		stores := make([]*roomkv.Store, 6)
		errs := make([]error, len(stores))
		for i := range stores {
			stores[i] = open(t, e.twin(t), room, roomkv.WithShards(shards+i%3))
		}
		var writers sync.WaitGroup
		for i, store := range stores {
			writers.Go(func() { errs[i] = store.Put(ctx, fmt.Sprint("key ", i), i) })
		}
		writers.Wait()
		winner := slices.IndexFunc(errs, func(err error) bool { return err == nil })
		require.GreaterOrEqual(t, winner, 0)
		want := map[string]string{}
		for i, err := range errs {
			if i%3 != winner%3 {
				require.ErrorIs(t, err, roomkv.ErrInvalidOption)
				continue
			}
			require.NoError(t, err)
			want[fmt.Sprint("key ", i)] = fmt.Sprint(i)
		}
		for i := range 3 {
			store := open(t, e.twin(t), room, roomkv.WithShards(shards+i))
			if i == winner%3 {
				eventually(t, func() bool { return len(memoryOf(t, store)) == len(want) }, "the list")
				assert.Equal(t, want, memoryOf(t, store))
				continue
			}
			_, err := store.Keys(ctx)
			require.ErrorIs(t, err, roomkv.ErrInvalidOption)
		}
	}
}

func shardsRedacted(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	mark, err := e.client.FullStateEvent(ctx, e.room, database, wire.ShardsName)
	require.NoError(t, err)
	redacted(t, e.client, e.room, roomkv.Revision(mark.ID))
	e.settle(t)
	require.ErrorIs(t, e.another(t, roomkv.WithShards(shards+1)).Put(ctx, "k", 2), roomkv.ErrInvalidOption, "there are keys that it would not find")
	again := e.another(t)
	require.NoError(t, again.Put(ctx, "j", 2))
	assert.InDelta(t, shards, e.at(t, wire.ShardsName)[wire.ShardsName], 0, "it is there again")
	assert.Equal(t, map[string]string{"k": "1", "j": "2"}, memoryOf(t, e.another(t)))
}

func shardsSealed(t *testing.T, e *env) {
	ctx := t.Context()
	values := map[string]any{}
	for i := range 20 {
		values[fmt.Sprintf("{secret tag %d}/key", i)] = i
	}
	require.NoError(t, e.store.PutAll(ctx, values))
	e.settle(t)
	assert.NotContains(t, allState(t, e.client, e.room), "secret tag")
	assert.Empty(t, clearNames(t, e.client, e.room))
	assert.Len(t, memoryOf(t, e.another(t)), len(values))
	for _, opts := range [][]roomkv.Option{{layouts["shards"]}, {layouts["shards"], roomkv.WithSealedKeys([]byte("another secret of the table"))}} {
		store := open(t, e.client, e.room, opts...)
		require.ErrorIs(t, store.Get(ctx, "{secret tag 1}/key", new(int)), roomkv.ErrWrongSecret)
		require.ErrorIs(t, store.Put(ctx, "k", 1), roomkv.ErrWrongSecret)
		_, err := store.Keys(ctx)
		require.ErrorIs(t, err, roomkv.ErrWrongSecret)
	}
}

func shardsCopied(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, various(5)))
	want := memoryOf(t, e.store)
	e.settle(t)
	more := e.another(t, roomkv.WithShards(50), roomkv.WithEventType("com.example.more"))
	copied, err := roomkv.Copy(ctx, more, e.store)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: len(want), Written: len(want)}, copied)
	sameMemory(t, want, more)
	for name, layout := range layouts { // all of them have the same type, in one room
		if name == e.layout || name == "custom" { // which would be a key of the layout with an event for each
			continue
		}
		dst := open(t, e.client, e.room, layout)
		copied, err := roomkv.Copy(ctx, dst, e.store)
		require.NoError(t, err, name)
		assert.Equal(t, roomkv.Copied{Total: len(want), Written: len(want)}, copied, name)
		sameMemory(t, want, dst)
	}
	e.settle(t)
	sameMemory(t, want, e.another(t))
	back := open(t, e.client, e.newRoom(t, e.client), layouts[e.layout])
	for _, name := range []string{"single", "perkey"} {
		_, err := roomkv.Copy(ctx, back, open(t, e.client, e.room, layouts[name]))
		require.NoError(t, err, name)
	}
	sameMemory(t, want, back)
}

func shardsTransact(t *testing.T, e *env) {
	ctx := t.Context()
	const writers, each = 3, 3
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"{u}/a": 100, "{u}/b": 100, "a": 1}))
	stores := []*roomkv.Store{e.store, e.another(t)}
	var wait sync.WaitGroup
	for w := range writers {
		wait.Go(func() {
			for range each {
				assert.NoError(t, stores[w%2].Transact(ctx, transfer("{u}/a", "{u}/b", 1)))
				assert.NoError(t, stores[(w+1)%2].Put(ctx, fmt.Sprintf("{u}/own %d", w), 1))
			}
		})
	}
	wait.Wait()
	got := memoryOf(t, e.another(t))
	assert.Equal(t, fmt.Sprint(100-writers*each), got["{u}/a"])
	assert.Equal(t, fmt.Sprint(100+writers*each), got["{u}/b"])
	failure := errors.New("the test's")
	for about, second := range map[string]func(tx *roomkv.Tx) error{
		"another event":       func(tx *roomkv.Tx) error { return tx.Get("a", new(int)) },
		"all keys":            func(tx *roomkv.Tx) error { _, err := tx.Keys(); return err },
		"a part of a tag":     func(tx *roomkv.Tx) error { _, err := tx.Keys(roomkv.Prefix("{u")); return err },
		"keys of another tag": func(tx *roomkv.Tx) error { _, err := tx.Keys(roomkv.Prefix("{w}")); return err },
	} {
		require.ErrorIs(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
			require.NoError(t, tx.Put("{u}/a", 0))
			require.ErrorIs(t, second(tx), roomkv.ErrNotAtomic, about)
			return failure // which counts less
		}), roomkv.ErrNotAtomic, about)
	}
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		keys, err := tx.Keys(roomkv.Prefix("{v}"))
		assert.Empty(t, keys)
		return err
	}), "the first use can be a list")
	assert.Equal(t, got, memoryOf(t, e.another(t)))
}

// A writer who has not seen another's write, and dies before it looks, hides that until somebody merges.
func shardsUnmerged(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "{u}/base", 0))
	stale := e.at(t, e.stateKey("{u}"))
	var text map[string]any
	require.NoError(t, e.client.StateEvent(ctx, e.room, database, e.stateKey("{u}"), &text))
	require.NoError(t, e.store.Put(ctx, "{u}/mine", 1))
	text["{u}/theirs"] = 2 // the field that names parents is that of the base, and stale
	e.sendRaw(t, "{u}", text)
	e.settle(t)
	assert.Contains(t, stale, "{u}/base")
	want := map[string]string{"{u}/base": "0", "{u}/mine": "1", "{u}/theirs": "2"}
	got := memoryOf(t, e.store)
	assert.Equal(t, want, got, "who has written it sees it")
	dst := open(t, e.client, e.newRoom(t, e.client))
	_, err := roomkv.Copy(ctx, dst, e.another(t))
	require.NoError(t, err)
	assert.Equal(t, want, memoryOf(t, dst), "and so does who copies")
}

// What an event had before that is the first after the revision is further back than lists go.
func shardsWatch(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"{u}/a": 1, "{u}/b": 2, "{u}/c": 3}))
	for i := range 60 {
		require.NoError(t, e.store.Put(ctx, "k", i))
	}
	entry, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	require.NoError(t, e.another(t).Put(ctx, "{u}/b", 20))
	require.NoError(t, e.another(t).Delete(ctx, "{u}/c"))
	e.settle(t)
	changes := e.resume(t, 2, entry.Revision)
	assert.Equal(t, []string{"{u}/b: 2 -> 20", "{u}/c: 3 -> "}, changes())
	require.NoError(t, e.another(t).Put(ctx, "{late}", 5)) // the first of an event, for which the watch lists further back
	require.NoError(t, e.another(t).Put(ctx, "{late}", 6))
	e.settle(t)
	changes = e.resume(t, 5, entry.Revision)
	require.NoError(t, e.store.Put(ctx, "live", 4))
	assert.Equal(t, []string{"{u}/b: 2 -> 20", "{u}/c: 3 -> ", "{late}:  -> 5", "{late}: 5 -> 6", "live:  -> 4"}, changes())
}

func shardsRequests(t *testing.T, e *env) {
	ctx := t.Context()
	put := func(key string, value any) func() error { return func() error { return e.store.Put(ctx, key, value) } }
	e.settle(t)
	e.counts(t, 5+6, "first put of a memory", put("k", 1))
	e.counts(t, 2, "put", put("k", 2))
	e.counts(t, 1, "get", func() error { return e.store.Get(ctx, "k", new(int)) })
	e.counts(t, 1, "put of what is there", put("k", 2))
	e.counts(t, 3, "first put into an event", put("j", 2))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3}))
	e.requests.Reset()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 2, "b": 3, "c": 4}))
	assert.Equal(t, 3, writes(e.requests), "put of three in three events")
	require.NoError(t, e.store.Put(ctx, "{u}", 1))
	e.counts(t, 2, "put of three of one tag", func() error { return e.store.PutAll(ctx, map[string]any{"{u}1": 2, "{u}2": 3, "{u}3": 4}) })
	e.counts(t, 2, "transact", func() error { return e.store.Transact(ctx, transfer("{u}1", "{u}2", 1)) })
	e.counts(t, 2, "delete", func() error { return e.store.Delete(ctx, "k") })
	eventually(t, func() bool { // until the homeserver lists what was written
		e.requests.Reset()
		_, err := e.store.Keys(ctx)
		return err == nil && e.requests.Count() == 1
	}, "keys")
	e.counts(t, 1, "info", func() error {
		for _, err := range e.store.All(ctx) {
			require.NoError(t, err)
		}
		return nil
	})
	client := e.twin(t)
	before := e.requests
	e.requests = hstest.Record(client)
	defer func() { e.requests = before }()
	cold := open(t, client, e.room, e.opts()...)
	e.counts(t, 2, "the first get asks what is said of all keys", func() error { return cold.Get(ctx, "j", new(int)) })
	e.counts(t, 1, "and no other", func() error { return cold.Get(ctx, "{u}1", new(int)) })
}

// The timeline of the first response has messages alone, so that nothing there tells what led to the events of the state.
func shardsLookBack(t *testing.T, e *env) {
	ctx := t.Context()
	keys := map[int]string{} // one for each event
	for i := 0; len(keys) < shards; i++ {
		key := fmt.Sprint("key ", i)
		if shard := wire.Shard(key, shards); keys[shard] == "" {
			keys[shard] = key
			require.NoError(t, e.store.Put(ctx, key, 0))
		}
	}
	for range firstSync - 1 {
		_, err := e.client.SendText(ctx, e.room, "talk")
		require.NoError(t, err)
	}
	time.Sleep(time.Second + time.Second/5) // a timeline of a shorter time does not settle what the state is
	for range firstSync / 2 {
		_, err := e.client.SendText(ctx, e.room, "talk")
		require.NoError(t, err)
	}
	e = e.restarted(t)
	e.counts(t, 4, "put, for which the look back, the tombstone and the encryption are asked too", func() error { return e.store.Put(ctx, keys[0], 1) })
	for shard := 1; shard < shards; shard++ {
		e.counts(t, 1, "put to another event", func() error { return e.store.Put(ctx, keys[shard], 1) })
	}
	for _, key := range keys {
		require.NoError(t, roomkv.Update(ctx, e.another(t), key, increment))
		assert.Equal(t, "2", memoryOf(t, e.another(t))[key])
	}
}

func shardsFollowing(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": 1, "j": 1, "{u}1": 1, "{u}2": 1}))
	e = e.restarted(t)
	store := e.store
	time.Sleep(time.Second) // that there is nothing is not believed at once
	e.counts(t, 0, "get", func() error { return store.Get(ctx, "k", new(int)) })
	e.counts(t, 0, "get of a missing key", func() error {
		for i := range 3 * shards { // in each event
			require.ErrorIs(t, store.Get(ctx, fmt.Sprint("missing ", i), new(int)), roomkv.ErrNotFound)
		}
		return nil
	})
	e.counts(t, 0, "keys", func() error { _, err := store.Keys(ctx); return err })
	e.counts(t, 1, "put", func() error { return store.Put(ctx, "k", 2) })
	e.counts(t, 1, "update", func() error { return roomkv.Update(ctx, store, "k", increment) })
	e.counts(t, 1, "transact", func() error { return store.Transact(ctx, transfer("{u}1", "{u}2", 1)) })
	e.counts(t, 2, "put of two in two events", func() error { return store.PutAll(ctx, map[string]any{"k": 5, "j": 5}) })
	e.counts(t, 0, "keys again", func() error { _, err := store.Keys(ctx); return err })
	e.counts(t, 0, "get of all", func() error { _, err := store.GetAll(ctx, "k", "j", "{u}1", "missing"); return err })
	got := memoryOf(t, store)
	assert.Equal(t, map[string]string{"k": "5", "j": "5", "{u}1": "0", "{u}2": "2"}, got)
	assert.False(t, strings.Contains(e.sent(), "/state"), e.sent())
}
