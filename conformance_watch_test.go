package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// watchRows are about changes.
var watchRows = []row{
	{name: "Watch tells each change once, whoever makes it", in: watched, run: watchTells},
	{name: "Watch of one key and of a prefix", in: followed, run: watchSome},
	{name: "Watch begins after a revision", in: watched, run: watchResumes},
	{name: "MapOf tells changes by their type", in: followed, run: mapWatches},
	{name: "Watch ends with its context", in: followed, run: watchEnds},
	{name: "Close ends a watch, and what the store follows", in: followed, run: closeEnds},
	{name: "ErrNotFollowing", in: each, run: errNotFollowing},
	{name: "ErrTooOld of a watch", in: followed, run: errTooOldWatch},
}

// watched are the settings in which a store can watch.
const watched = followed + " single/encrypted/following perkey/encrypted/following"

// watch collects changes until there are as many as wanted. It has begun when a change of the key "begun" was told, which it leaves out.
func (e *env) watch(t *testing.T, want int, opts ...roomkv.WatchOption) (changes func() []string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
	begun, done := make(chan bool), make(chan bool)
	var got []roomkv.Change
	go func() {
		defer close(done)
		defer cancel()
		begins := true
		for change, err := range e.store.Watch(ctx, opts...) {
			if !assert.NoError(t, err, "after %v", spell(got)) {
				return
			}
			if change.Key == "begun" {
				if begins {
					close(begun)
				}
				begins = false
				continue
			}
			assert.NotEmpty(t, change.Revision)
			assert.WithinDuration(t, time.Now(), change.Time, time.Minute)
			if got = append(got, change); len(got) == want {
				return
			}
		}
	}()
	if len(opts) == 0 {
		for n := 0; ; n++ {
			require.NoError(t, e.store.Put(t.Context(), "begun", n))
			select {
			case <-begun:
			case <-done:
			case <-time.After(50 * time.Millisecond):
				continue
			}
			break
		}
	}
	return func() []string {
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
	key := e.watch(t, 2, roomkv.WatchKey("a"))
	prefix := e.watch(t, 2, roomkv.WatchPrefix("b"))
	all := e.watch(t, 5)
	time.Sleep(100 * time.Millisecond) // until the first two have begun, for the last one has
	require.NoError(t, e.store.Put(ctx, "a", 1))
	require.NoError(t, e.store.Put(ctx, "b1", 2))
	require.NoError(t, e.store.Put(ctx, "c", 3))
	require.NoError(t, e.store.Put(ctx, "b2", 4))
	require.NoError(t, e.store.Put(ctx, "a", 5))
	assert.Equal(t, []string{"a:  -> 1", "b1:  -> 2", "c:  -> 3", "b2:  -> 4", "a: 1 -> 5"}, all())
	assert.Equal(t, []string{"a:  -> 1", "a: 1 -> 5"}, key())
	assert.Equal(t, []string{"b1:  -> 2", "b2:  -> 4"}, prefix())
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
	changes := e.watch(t, 4, roomkv.WatchFrom(entry.Revision))
	require.NoError(t, e.store.Put(ctx, "live", 4))
	assert.Equal(t, []string{"k: 1 -> 2", "k: 2 -> ", "j:  -> 3", "live:  -> 4"}, changes())
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
