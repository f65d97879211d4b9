package roomkv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// requestRows are the numbers of requests that docs/performance.md and docs/api.md promise.
var requestRows = []row{
	{name: "requests of a memory that is read and written", in: "single perkey", alone: true, run: requestsWarm},
	{name: "requests while following", in: "single/following perkey/following", alone: true, run: requestsFollowing},
	{name: "requests in an encrypted room", in: "single/encrypted single/encrypted/following perkey/encrypted", alone: true, run: requestsEncrypted},
	{name: "requests of a Put that changes nothing, after a restart", in: "single/encrypted/following perkey/encrypted/following", alone: true, run: requestsOfTheSame},
	{name: "requests of the only writer", in: "single perkey single/encrypted", alone: true, run: requestsOfTheOnlyWriter},
	{name: "requests of a bot that begins again", in: "single perkey", alone: true, run: requestsAfterARestart},
	{name: "requests of a handler of the sync", in: "single/following perkey/following", alone: true, run: requestsInAHandler},
	{name: "an observer is told of requests", in: inRooms, alone: true, run: requestsObserved},
}

func requestsWarm(t *testing.T, e *env) {
	ctx := t.Context()
	pick := func(single, perKey int) int {
		if e.single() {
			return single
		}
		return perKey
	}
	put := func(key string, value any) func() error { return func() error { return e.store.Put(ctx, key, value) } }
	e.counts(t, pick(5, 3), "first put", put("k", 1))
	e.counts(t, pick(2, 1), "put", put("k", 2))
	e.counts(t, pick(2, 1), "put of another key", put("j", 2))
	e.counts(t, 1, "get", func() error { return e.store.Get(ctx, "k", new(int)) })
	e.counts(t, 1, "entry", func() error { _, err := e.store.Entry(ctx, "k"); return err })
	e.counts(t, 1, "put of what is there", put("k", 2))
	e.counts(t, pick(2, 3), "put of three", func() error { return e.store.PutAll(ctx, map[string]any{"x": 1, "y": 2, "z": 3}) })
	e.counts(t, pick(2, 3), "create", func() error { return e.store.Create(ctx, "new", 1) })
	eventually(t, func() bool { // until the homeserver lists what was written
		e.requests.Reset()
		_, err := e.store.Keys(ctx)
		return err == nil && e.requests.Count() == 1
	}, "keys")
	e.counts(t, 1, "all", func() error {
		for _, err := range e.store.All(ctx) {
			require.NoError(t, err)
		}
		return nil
	})
	e.counts(t, pick(2, 1+1+3), "delete of three and a missing one", func() error { return e.store.Delete(ctx, "x", "y", "missing", "z") })
	e.counts(t, pick(2, 2), "delete", func() error { return e.store.Delete(ctx, "k") })
	e.counts(t, 1, "delete of a missing key", func() error { return e.store.Delete(ctx, "k") })
	e.counts(t, pick(2, 3), "pop", func() error { return e.store.Pop(ctx, "j", new(int)) })
}

func requestsFollowing(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": 1, "j": 1, "x": 1, "y": 1}))
	require.NoError(t, e.store.Put(ctx, "k", 2))
	require.NoError(t, e.store.Get(ctx, "k", new(int)))
	e.synced(t)
	require.NoError(t, e.store.Get(ctx, "k", new(int)))
	e.counts(t, 0, "get", func() error { return e.store.Get(ctx, "k", new(int)) })
	e.counts(t, 1, "put", func() error { return e.store.Put(ctx, "k", 3) })
	e.counts(t, 0, "get after it", func() error { return e.store.Get(ctx, "k", new(int)) })
	e.counts(t, 1, "put of what is there", func() error { return e.store.Put(ctx, "k", 3) })
	e.counts(t, 1, "update", func() error { return roomkv.Update(ctx, e.store, "k", increment) })
	if e.single() {
		e.counts(t, 0, "keys", func() error { _, err := e.store.Keys(ctx); return err })
		e.counts(t, 1, "put of three", func() error { return e.store.PutAll(ctx, map[string]any{"x": 2, "y": 2, "z": 2}) })
		e.counts(t, 1, "delete", func() error { return e.store.Delete(ctx, "x", "y") })
		e.counts(t, 1, "pop", func() error { return e.store.Pop(ctx, "j", new(int)) })
	}
}

func requestsEncrypted(t *testing.T, e *env) {
	ctx := t.Context()
	put, get := 3, 1
	switch {
	case e.following:
		put, get = 2, 0
	case !e.single():
		put = 2
	}
	require.NoError(t, e.store.Put(ctx, "warm", 0))
	if e.following {
		e.synced(t)
	}
	e.counts(t, put, "put", func() error { return e.store.Put(ctx, "k", 1) })
	e.counts(t, put, "put again", func() error { return e.store.Put(ctx, "k", 2) })
	e.counts(t, get, "get", func() error { return e.store.Get(ctx, "k", new(int)) })
	if e.single() {
		hundred := map[string]any{}
		for i := range 100 {
			hundred[fmt.Sprint("key ", i)] = i
		}
		e.counts(t, put, "put of a hundred", func() error { return e.store.PutAll(ctx, hundred) })
		following := e.following
		e.following = false // a store that has not seen them
		defer func() { e.following = following }()
		before, client := e.requests, e.twin(t)
		e.requests = hstest.Record(client)
		cold := open(t, client, e.room, e.opts()...)
		defer func() { e.requests = before }()
		e.counts(t, 2, "get of a value that was not seen", func() error { return cold.Get(ctx, "key 99", new(int)) })
		e.counts(t, 1, "get of another in the same event", func() error { return cold.Get(ctx, "key 98", new(int)) })
	}
}

// What stands encrypted in the state a new process has not seen. Before it sends a value that can be the same, it looks.
func requestsOfTheSame(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": "x"}))
	for _, key := range []string{"c", "d", "e"} {
		require.NoError(t, e.store.Put(ctx, key, 1))
	}
	for range 2 * firstSync { // so that the sync does not bring the values
		_, err := e.client.SendText(ctx, e.room, "talk")
		require.NoError(t, err)
	}
	e = e.restarted(t)
	require.NoError(t, e.store.Put(ctx, "another", 1))
	for _, key := range []string{"a", "b", "c", "d", "e"} { // so that the state is known
		require.ErrorIs(t, e.store.Create(ctx, key, 1), roomkv.ErrExists)
	}
	e.synced(t)
	put := func(key string, value any) func() error { return func() error { return e.store.Put(ctx, key, value) } }
	nothing := func(want int, what string, do func() error) {
		e.counts(t, want, what, do)
		assert.Zero(t, writes(e.requests), what)
	}
	nothing(2, "put of what is there", put("a", 1))
	nothing(1, "put of another that is in the same event", put("b", "x"))
	e.counts(t, 3, "put of something else", put("c", 2))
	two := func() error { return e.store.PutAll(ctx, map[string]any{"d": 1, "e": 1}) }
	if e.single() {
		nothing(1, "put of both", func() error { return e.store.PutAll(ctx, map[string]any{"a": 1, "b": "x"}) })
		e.counts(t, 2, "put of two that are in two events, whose reads save nothing", two)
	} else {
		nothing(4, "put of two", two)
	}
	require.NoError(t, e.another(t).Put(ctx, "a", 2))
	e.synced(t)
	nothing(1, "put of what the sync has brought", put("a", 2))
	assert.Equal(t, map[string]string{"a": "2", "b": `"x"`, "c": "2", "d": "1", "e": "1", "another": "1"}, memoryOf(t, e.another(t)))
}

func requestsOfTheOnlyWriter(t *testing.T, e *env) {
	ctx := t.Context()
	store := open(t, e.client, e.room, e.opts(roomkv.WithSingleWriter())...)
	require.NoError(t, store.Put(ctx, "k", 0))
	put := 1
	if e.encrypted {
		put = 2
	}
	e.counts(t, put, "put", func() error { return store.Put(ctx, "k", 1) })
	e.counts(t, put, "put again", func() error { return store.Put(ctx, "k", 2) })
	e.counts(t, 1, "get", func() error { return store.Get(ctx, "k", new(int)) })
	if e.single() && !e.encrypted {
		e.counts(t, 1, "update", func() error { return roomkv.Update(ctx, store, "k", increment) })
		e.counts(t, 1, "pop", func() error { return store.Pop(ctx, "k", new(int)) })
	}
}

// What the first response of the sync has is not asked for. In the second room the memory is older than what is listed there.
func requestsAfterARestart(t *testing.T, e *env) {
	ctx := t.Context()
	rooms := []id.RoomID{e.room, e.newRoom(t, e.client)}
	for _, room := range rooms {
		store := open(t, e.client, room, e.opts()...)
		require.NoError(t, store.Put(ctx, "k", 1))
		require.NoError(t, store.Put(ctx, "j", 1))
		if room != e.room {
			talk(t, e.client, room, 55)         // more than an initial sync lists
			time.Sleep(1100 * time.Millisecond) // what the sync lists of a moment alone need not be all of that
			talk(t, e.client, room, 1)
			time.Sleep(200 * time.Millisecond) // until it is listed
		}
	}
	e.settle(t)
	process := e.twin(t)
	e.following = true
	e.requests = hstest.Record(process)
	store := open(t, process, e.room, e.opts()...)
	require.NoError(t, store.Follow())
	syncing(t, process)
	time.Sleep(time.Second) // that there is nothing is not believed at once
	for i, room := range rooms {
		scoped, err := store.WithRoom(ctx, room)
		require.NoError(t, err)
		e.counts(t, 0, "get", func() error { return scoped.Get(ctx, "k", new(int)) })
		e.counts(t, 0, "get of a missing key", func() error {
			require.ErrorIs(t, scoped.Get(ctx, "missing", new(int)), roomkv.ErrNotFound)
			return nil
		})
		// What was written beside the last write, and is not listed, is looked for. A page of Dendrite's counts what its filter hides.
		e.counts(t, 1+i*on(e, 2, 1), "update", func() error { return roomkv.Update(ctx, scoped, "k", increment) })
		e.counts(t, 1, "update again", func() error { return roomkv.Update(ctx, scoped, "k", increment) })
		e.counts(t, 1, "create", func() error { return scoped.Create(ctx, "new", 1) })
	}
}

// A handler runs in the sync's goroutine, which brings nothing until it returns.
func requestsInAHandler(t *testing.T, e *env) {
	require.NoError(t, e.store.Put(t.Context(), "k", 0))
	e.synced(t)
	took, sent := make(chan int, 10), ""
	e.client.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, e.store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		e.requests.Reset()
		assert.NoError(t, room.Put(ctx, "k", evt.ID))
		sent = e.sent()
		took <- e.took()
	}))
	want := 1
	if e.single() {
		want = 2
	}
	speaker := e.twin(t) // whose requests are not counted
	for range 2 {
		_, err := speaker.SendText(t.Context(), e.room, "to the handler")
		require.NoError(t, err)
		assert.Equal(t, want, <-took, sent)
	}
}

// What an observer is told is what crosses the wire, but for what the client's Crypto asks for by itself.
func requestsObserved(t *testing.T, e *env) {
	ctx := t.Context()
	e.settle(t)
	o := observe(t, e.client)
	store := open(t, e.client, e.room, e.opts(roomkv.WithObserver(o), roomkv.WithObservedKeys())...)
	require.NoError(t, store.Put(ctx, "warm", 0))
	o.exact()
	o.take()
	for _, c := range []struct {
		kind, class string
		do          func() error
	}{
		{"Put", "", func() error { return store.Put(ctx, "k", 1) }},
		{"Update", "", func() error { return roomkv.Update(ctx, store, "k", increment) }},
		{"Get", "", func() error { return store.Get(ctx, "k", new(int)) }},
		{"Create", "ErrExists", func() error { return store.Create(ctx, "k", 1) }},
		{"Pop", "ErrNotFound", func() error { return store.Pop(ctx, "missing", new(int)) }},
		{"Delete", "", func() error { return store.Delete(ctx, "k") }},
		{"Get", "ErrNotFound", func() error { return store.Get(ctx, "k", new(int)) }},
	} {
		err := c.do()
		assert.Equal(t, c.class == "", err == nil, "%v", err)
		o.exact()
		op := o.one()
		assert.Equal(t, c.kind, op.Kind)
		assert.Equal(t, c.class, op.Error)
		assert.Len(t, op.Keys, 1)
		assert.Equal(t, e.room, op.Room)
		assert.Positive(t, op.Requests)
		assert.Positive(t, op.Received)
		assert.Equal(t, c.kind != "Get" && c.class == "", op.Sent > 0)
		assert.Zero(t, op.Retries)
	}
}
