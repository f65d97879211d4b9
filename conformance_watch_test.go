package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
)

// watchRows are about changes.
var watchRows = []row{
	{name: "Watch tells each change once, whoever makes it", in: watched, run: watchTells},
	{name: "Watch of one key and of a prefix", in: followed, run: watchSome},
	{name: "Watch of several keys and prefixes", in: followed, run: watchAny},
	{name: "WatchInitial tells what is there and then what changes", in: watched + " single/sealed/following perkey/sealed/following", run: watchInitial},
	{name: "WatchInitial of an empty memory", in: followed, run: watchInitialOfNothing},
	{name: "WatchInitial ends where WatchFrom goes on", in: followed, run: watchInitialThenFrom},
	{name: "MapOf tells first what is there", in: followed, run: mapWatchesInitial},
	{name: "Watch begins after a revision", in: watched, run: watchResumes},
	{name: "MapOf tells changes by their type", in: followed, run: mapWatches},
	{name: "FollowEvents tells what changes, and reads ask", in: each, run: followsEvents},
	{name: "Watch ends with its context", in: followed, run: watchEnds},
	{name: "Close ends a watch, and what the store follows", in: followed, run: closeEnds},
	{name: "ErrNotFollowing", in: each, run: errNotFollowing},
	{name: "ErrTooOld of a watch", in: followed, run: errTooOldWatch},
}

// watched are the settings in which a store can watch.
const watched = followed + " single/encrypted/following perkey/encrypted/following"

// watch collects changes of an empty memory, from now on, until there are as many as wanted. It leaves out those of the key "begun".
func (e *env) watch(t *testing.T, want int) (changes func() []string) {
	begun, changes := e.collect(t, want)
	for n := 0; ; n++ {
		require.NoError(t, e.store.Put(t.Context(), "begun", n))
		select {
		case <-begun:
			return changes
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// watchSome is watch with options.
func (e *env) watchSome(t *testing.T, want int, opts ...roomkv.WatchOption) (changes func() []string) {
	begun, changes := e.collect(t, want, append(opts, roomkv.WatchInitial())...)
	<-begun
	return changes
}

// resume is watch from a revision on.
func (e *env) resume(t *testing.T, want int, from roomkv.Revision) (changes func() []string) {
	_, changes = e.collect(t, want, roomkv.WatchFrom(from))
	return changes
}

// collect collects changes until there are as many as wanted. It has begun when a change of the key "begun" was told or the end of what is there, and it
// leaves out both, or when it has ended.
func (e *env) collect(t *testing.T, want int, opts ...roomkv.WatchOption) (begun <-chan bool, changes func() []string) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	begins, done := make(chan bool), make(chan bool)
	begin := sync.OnceFunc(func() { close(begins) })
	var got []roomkv.Change
	go func() {
		defer close(done)
		defer begin()
		defer cancel()
		for change, err := range e.store.Watch(ctx, opts...) {
			if !assert.NoError(t, err, "after %v", spell(got)) {
				return
			}
			if change.Key == "begun" || change.EndOfInitial {
				begin()
				continue
			}
			assert.NotEmpty(t, change.Revision)
			assert.WithinDuration(t, time.Now(), change.Time, time.Minute)
			if got = append(got, change); len(got) == want {
				return
			}
		}
	}()
	return begins, func() []string {
		<-done
		return spell(got)
	}
}

func watchTells(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, other.Put(ctx, "a", "before"))
	e.reads(t, "a", `"before"`)
	changes := e.watch(t, 6)
	require.NoError(t, other.Put(ctx, "a", 1))
	if !e.alone() || !e.encrypted { // else it is encrypted again
		require.NoError(t, other.Put(ctx, "a", 1), "which changes nothing")
	}
	require.NoError(t, e.store.Put(ctx, "b", 2))
	require.NoError(t, other.Put(ctx, "a", 3))
	require.NoError(t, e.store.Put(ctx, "c", 1.5))
	require.NoError(t, other.Delete(ctx, "a"))
	require.NoError(t, e.store.Put(ctx, "d", nil))
	assert.Equal(t, []string{`a: "before" -> 1`, "b:  -> 2", "a: 1 -> 3", "c:  -> 1.5", "a: 3 -> ", "d:  -> null"}, changes())
}

func watchSome(t *testing.T, e *env) {
	ctx := t.Context()
	key := e.watchSome(t, 2, roomkv.WatchKey("a"))
	prefix := e.watchSome(t, 2, roomkv.WatchPrefix("b"))
	all := e.watch(t, 5)
	require.NoError(t, e.store.Put(ctx, "a", 1))
	require.NoError(t, e.store.Put(ctx, "b1", 2))
	require.NoError(t, e.store.Put(ctx, "c", 3))
	require.NoError(t, e.store.Put(ctx, "b2", 4))
	require.NoError(t, e.store.Put(ctx, "a", 5))
	assert.Equal(t, []string{"a:  -> 1", "b1:  -> 2", "c:  -> 3", "b2:  -> 4", "a: 1 -> 5"}, all())
	assert.Equal(t, []string{"a:  -> 1", "a: 1 -> 5"}, key())
	assert.Equal(t, []string{"b1:  -> 2", "b2:  -> 4"}, prefix())
}

func watchAny(t *testing.T, e *env) {
	ctx := t.Context()
	some := e.watchSome(t, 4, roomkv.WatchPrefix("a", "b"), roomkv.WatchKey("c"), roomkv.WatchPrefix("d"))
	all := e.watch(t, 6)
	for n, key := range []string{"a1", "other", "b1", "cc", "c", "d1"} {
		require.NoError(t, e.store.Put(ctx, key, n))
	}
	assert.Len(t, all(), 6)
	assert.Equal(t, []string{"a1:  -> 0", "b1:  -> 2", "c:  -> 4", "d1:  -> 5"}, some())
}

// watchInitial changes keys while they are told, those that were told already and those that were not yet.
func watchInitial(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	other := e.another(t)
	require.NoError(t, other.PutAll(ctx, map[string]any{"a": 1, "b": 1.5, "c": nil, "p/k": 1, "q": 1, "deleted": 1}))
	require.NoError(t, other.Delete(ctx, "deleted"))
	e.reads(t, "a", "1")
	before, err := other.Entry(ctx, "b")
	require.NoError(t, err)
	var told []string
	for change, err := range e.store.Watch(ctx, roomkv.WatchInitial(), roomkv.WatchKey("c"), roomkv.WatchPrefix("a", "b"), roomkv.WatchPrefix("d")) {
		require.NoError(t, err, "after %v", told)
		if change.EndOfInitial {
			assert.Equal(t, roomkv.Change{Revision: change.Revision, EndOfInitial: true}, change)
			assert.NotEmpty(t, change.Revision)
			told = append(told, "end")
			continue
		}
		if change.Key == "b" && change.Old == nil {
			assert.Equal(t, before.Revision, change.Revision)
			assert.Equal(t, e.client.UserID, change.Sender)
			assert.True(t, before.Time.Equal(change.Time))
			require.NoError(t, other.Put(ctx, "a", 2))
			require.NoError(t, e.store.Put(ctx, "c", 2))
			require.NoError(t, other.Put(ctx, "d", 1))
			require.NoError(t, other.Delete(ctx, "b"))
		}
		if told = append(told, spell([]roomkv.Change{change})...); len(told) == 8 {
			break
		}
	}
	assert.Equal(t, []string{"a:  -> 1", "b:  -> 1.5", "c:  -> null", "end", "a: 1 -> 2", "c: null -> 2", "d:  -> 1", "b: 1.5 -> "}, told)

	for change, err := range e.store.Sub("p/").Watch(ctx, roomkv.WatchInitial()) {
		require.NoError(t, err)
		if change.EndOfInitial {
			break
		}
		assert.Equal(t, []string{"k:  -> 1"}, spell([]roomkv.Change{change}))
	}
	for _, err := range e.store.Watch(ctx, roomkv.WatchInitial(), roomkv.WatchFrom(before.Revision)) {
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	}
}

func watchInitialOfNothing(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	var told []string
	for change, err := range e.store.Watch(ctx, roomkv.WatchFrom(""), roomkv.WatchInitial()) {
		require.NoError(t, err)
		if change.EndOfInitial {
			assert.Equal(t, roomkv.Change{EndOfInitial: true}, change)
			require.NoError(t, e.store.Put(ctx, "", 1), "the empty key is no mark")
			continue
		}
		told = append(told, spell([]roomkv.Change{change})...)
		break
	}
	assert.Equal(t, []string{":  -> 1"}, told)
}

func watchInitialThenFrom(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	e.settle(t)
	var end roomkv.Revision
	for change, err := range e.store.Watch(ctx, roomkv.WatchInitial()) {
		require.NoError(t, err)
		if end = change.Revision; change.EndOfInitial {
			break
		}
	}
	changes := e.resume(t, 2, end)
	require.NoError(t, e.store.Put(ctx, "c", 3))
	require.NoError(t, e.store.Delete(ctx, "a"))
	assert.Equal(t, []string{"c:  -> 3", "a: 1 -> "}, changes())
}

func mapWatchesInitial(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	counts := roomkv.MapOf[int](e.store)
	require.NoError(t, counts.Put(ctx, "a", 1))
	require.NoError(t, e.store.Put(ctx, "b", "text"))
	var told []string
	for change, err := range counts.Watch(ctx, roomkv.WatchInitial(), roomkv.WatchPrefix("a", "b")) {
		switch {
		case errors.Is(err, roomkv.ErrDecode):
			told = append(told, change.Key+" is no number")
			continue
		case !assert.NoError(t, err):
			return
		case change.Change.EndOfInitial:
			assert.Nil(t, change.New)
			told = append(told, "end")
			require.NoError(t, counts.Delete(ctx, "a"))
			continue
		case change.New != nil:
			told = append(told, fmt.Sprint(change.Key, " ", *change.New))
			continue
		}
		told = append(told, fmt.Sprint(change.Key, " was ", *change.Old))
		break
	}
	assert.Equal(t, []string{"a 1", "b is no number", "end", "a was 1"}, told)
}

func mapWatches(t *testing.T, e *env) {
	ctx := t.Context()
	counts := roomkv.MapOf[int](e.store)
	told := make(chan string, 10)
	watching, stop := context.WithCancel(ctx)
	defer stop()
	began := make(chan struct{})
	go func() {
		defer close(told)
		first := true
		for change, err := range counts.Watch(watching) {
			switch {
			case errors.Is(err, context.Canceled):
				return
			case first:
				close(began)
				first = false
			case errors.Is(err, roomkv.ErrDecode):
				told <- change.Key + " is no number"
			case err != nil:
				told <- err.Error()
			case change.New == nil:
				told <- fmt.Sprint(change.Key, " ", *change.Old, " gone")
			case change.Old == nil:
				told <- fmt.Sprint(change.Key, " new ", *change.New)
			default:
				told <- fmt.Sprint(change.Key, " ", *change.Old, " ", *change.New)
			}
		}
	}()
	begins := func() bool {
		require.NoError(t, e.store.Put(ctx, "begins", time.Now().UnixNano()%1000))
		select {
		case <-began:
			return true
		case <-time.After(100 * time.Millisecond):
			return false
		}
	}
	eventually(t, begins, "the watch")
	require.NoError(t, counts.Put(ctx, "a", 1))
	require.NoError(t, counts.Update(ctx, "a", increment))
	require.NoError(t, e.store.Put(ctx, "b", "text"))
	require.NoError(t, counts.Delete(ctx, "a"))
	want := []string{"a new 1", "a 1 2", "b is no number", "a 2 gone"}
	var got []string
	for len(got) < len(want) {
		if line := <-told; !strings.HasPrefix(line, "begins") {
			got = append(got, line)
		}
	}
	assert.Equal(t, want, got)
}

func watchResumes(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	entry, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	other := e.another(t)
	require.NoError(t, other.Put(ctx, "k", 2))
	require.NoError(t, other.Delete(ctx, "k"))
	require.NoError(t, other.Put(ctx, "j", 3))
	e.reads(t, "j", "3")
	e.settle(t)
	changes := e.resume(t, 4, entry.Revision)
	require.NoError(t, e.store.Put(ctx, "live", 4))
	assert.Equal(t, []string{"k: 1 -> 2", "k: 2 -> ", "j:  -> 3", "live:  -> 4"}, changes())
}

// followsEvents has a sync of the client stand for whatever brings events.
func followsEvents(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	defer cancel()
	other := e.another(t)
	require.NoError(t, other.PutAll(ctx, map[string]any{"a": 1, "b": 1}))
	syncer := e.client.Syncer.(mautrix.ExtensibleSyncer)
	on := func(eventType event.Type, handle func(context.Context, *event.Event)) {
		syncer.OnEventType(eventType, handle)
	}
	require.NoError(t, e.store.FollowEvents(on, time.Hour))
	asks := open(t, e.client, e.room, e.opts()...)
	require.NoError(t, asks.FollowEvents(on, 0))
	syncing(t, e.client)
	var told []string
	for change, err := range e.store.Watch(ctx, roomkv.WatchInitial()) {
		require.NoError(t, err)
		if told = append(told, spell([]roomkv.Change{change})...); change.EndOfInitial {
			require.NoError(t, other.Put(ctx, "a", 2))
			require.NoError(t, e.store.Put(ctx, "c", 3))
			require.NoError(t, other.Delete(ctx, "b"))
		}
		if len(told) == 6 {
			break
		}
	}
	assert.Equal(t, []string{"a:  -> 1", "b:  -> 1", ":  -> ", "a: 1 -> 2", "c:  -> 3", "b: 1 -> "}, told)
	reads := func(store *roomkv.Store) (requests int) {
		e.requests.Reset()
		got, err := roomkv.Get[int](ctx, store, "a")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
		for _, request := range e.requests.Requests() {
			if !strings.HasSuffix(request.Path, "/sync") {
				requests++
			}
		}
		return requests
	}
	eventually(t, func() bool { return reads(e.store) == 0 }, "reads from memory")
	reads(asks) // with shards the first one also asks how many there are
	for range 3 {
		assert.Equal(t, 1, reads(asks))
	}
	require.ErrorIs(t, e.store.Follow(), roomkv.ErrInvalidOption)
}

func watchEnds(t *testing.T, e *env) {
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	times := 0
	for _, err := range e.store.Watch(ctx) {
		times++
		require.ErrorIs(t, err, context.DeadlineExceeded)
	}
	assert.Equal(t, 1, times)
}

func errNotFollowing(t *testing.T, e *env) {
	times := 0
	for _, err := range e.store.Watch(t.Context()) {
		times++
		require.ErrorIs(t, err, roomkv.ErrNotFollowing)
	}
	assert.Equal(t, 1, times)
}

func errTooOldWatch(t *testing.T, e *env) {
	require.NoError(t, e.store.Put(t.Context(), "k", 1))
	times := 0
	for _, err := range e.store.Watch(t.Context(), roomkv.WatchFrom("$never")) {
		times++
		require.ErrorIs(t, err, roomkv.ErrTooOld)
	}
	assert.Equal(t, 1, times)
}

func closeEnds(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "key", 1))
	ended := make(chan error, 1)
	go func() {
		for _, err := range e.store.Watch(ctx) {
			if err != nil {
				ended <- err
			}
		}
	}()
	require.NoError(t, e.store.Close(ctx))
	require.ErrorIs(t, <-ended, roomkv.ErrNotFollowing)
	require.NoError(t, e.another(t).Put(ctx, "key", 2))
	got, err := roomkv.Get[int](ctx, e.store, "key")
	require.NoError(t, err)
	assert.Equal(t, 2, got)
	require.NoError(t, e.store.Put(ctx, "key", 3))
	require.ErrorIs(t, e.store.Follow(), roomkv.ErrInvalidOption)
}
