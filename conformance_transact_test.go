package roomkv_test

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// oneEvent are the settings in which one state event has all keys.
const oneEvent = "single custom single/encrypted single/following single/encrypted/following"

// transactRows are about changes of several keys at once, and about removals that depend on what is there.
var transactRows = []row{
	{name: "Transact changes several keys in one event", in: oneEvent, run: transactChanges},
	{name: "Transact that fails changes nothing", in: oneEvent, run: transactFails},
	{name: "Transact of one key", in: inAll, run: transactOfOneKey},
	{name: "Transact of keys of several events", in: "perkey shards shards/encrypted shards/following perkey/encrypted perkey/following", run: transactOfSeveralEvents},
	{name: "Transact of large values", in: oneEvent, run: transactLarge},
	{name: "Transacts of many goroutines and two processes", in: "single single/encrypted single/following", run: transactsAtOnce},
	{name: "Transacts that read what the other changes", in: "single single/following", run: transactsThatSkew},
	{name: "Update removes a key", in: inAll, run: updateRemoves},
	{name: "CompareAndDelete removes what has not changed", in: inAll, run: compareDeletes},
	{name: "WithFlushEvery keeps an Update that removes back", in: inRooms, run: flushRemoves},
}

func transactChanges(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 10, "b": 20, "gone": 1}))
	before := revisions(t, e.store, "a")
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		var a, b int
		require.NoError(t, tx.Get("a", &a))
		require.NoError(t, tx.Get("b", &b))
		require.ErrorIs(t, tx.Get("c", new(int)), roomkv.ErrNotFound)
		require.ErrorIs(t, tx.Get("a", new(string)), roomkv.ErrDecode)
		require.ErrorIs(t, tx.Put("c", make(chan int)), roomkv.ErrInvalidValue)
		require.ErrorIs(t, tx.Put("\xff", 1), roomkv.ErrInvalidKey)
		require.NoError(t, tx.Put("a", a-3))
		require.NoError(t, tx.Put("c", 2.5))
		require.NoError(t, tx.Put("twice", 1))
		require.NoError(t, tx.Put("twice", "2"))
		require.NoError(t, tx.Delete("gone", "never there"))
		require.ErrorIs(t, tx.Get("gone", new(int)), roomkv.ErrNotFound)
		require.NoError(t, tx.Get("a", &a))
		assert.Equal(t, 7, a, "it sees what it has changed")
		keys, err := tx.Keys()
		require.NoError(t, err)
		assert.Equal(t, []string{"a", "b", "c", "twice"}, keys)
		keys, err = tx.Keys(roomkv.Prefix("t"), roomkv.Descending())
		require.NoError(t, err)
		assert.Equal(t, []string{"twice"}, keys)
		return tx.Put("b", b+3)
	}))
	want := map[string]string{"a": "7", "b": "23", "c": "2.5", "twice": `"2"`}
	assert.Equal(t, want, memoryOf(t, e.store))
	assert.Equal(t, want, memoryOf(t, e.another(t)))
	after := revisions(t, e.store, "a", "b", "c")
	assert.NotEqual(t, before[0], after[0])
	assert.Equal(t, []roomkv.Revision{after[0], after[0], after[0]}, after, "one event")
	if e.encrypted {
		assert.Empty(t, clearNames(t, e.client, e.room))
	}
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Put("a", 7) }))
	assert.Equal(t, after, revisions(t, e.store, "a", "b", "c"), "what changes nothing makes no event")
}

func transactFails(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "a", 1))
	failure := errors.New("the test's")
	var kept *roomkv.Tx
	err := e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		kept = tx
		require.NoError(t, tx.Put("a", 2))
		require.NoError(t, tx.Delete("a"))
		return failure
	})
	assert.Equal(t, failure, err)
	require.ErrorIs(t, kept.Get("a", new(int)), roomkv.ErrTxDone)
	require.ErrorIs(t, kept.Put("a", 3), roomkv.ErrTxDone)
	require.ErrorIs(t, kept.Delete("a"), roomkv.ErrTxDone)
	_, err = kept.Keys()
	require.ErrorIs(t, err, roomkv.ErrTxDone)
	assert.PanicsWithValue(t, "the test's", func() {
		_ = e.store.Transact(ctx, func(tx *roomkv.Tx) error {
			require.NoError(t, tx.Put("a", 2))
			panic("the test's")
		})
	})
	require.ErrorIs(t, e.store.Transact(ctx, nil), roomkv.ErrInvalidOption)
	require.NoError(t, e.store.Transact(ctx, func(*roomkv.Tx) error { return nil }))
	assert.Equal(t, map[string]string{"a": "1"}, memoryOf(t, e.store))
}

func transactOfOneKey(t *testing.T, e *env) {
	ctx := t.Context()
	for want := 1; want <= 3; want++ {
		require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
			var n int
			if err := tx.Get("n", &n); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
				return err
			}
			return tx.Put("n", n+1)
		}))
		got, err := roomkv.Get[int](ctx, e.store, "n")
		require.NoError(t, err)
		assert.Equal(t, want, got)
	}
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Delete("n") }))
	require.ErrorIs(t, e.store.Get(ctx, "n", new(int)), roomkv.ErrNotFound)
	assert.PanicsWithValue(t, "the test's", func() {
		_ = e.store.Transact(ctx, func(tx *roomkv.Tx) error {
			require.NoError(t, tx.Put("n", 2))
			panic("the test's")
		})
	})
	require.NoError(t, e.store.Transact(ctx, func(*roomkv.Tx) error { return nil }))
}

func transactOfSeveralEvents(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	for name, second := range map[string]func(tx *roomkv.Tx) error{
		"Get":    func(tx *roomkv.Tx) error { return tx.Get("b", new(int)) },
		"Put":    func(tx *roomkv.Tx) error { return tx.Put("b", 3) },
		"Delete": func(tx *roomkv.Tx) error { return tx.Delete("b") },
		"Keys":   func(tx *roomkv.Tx) error { _, err := tx.Keys(); return err },
	} {
		require.ErrorIs(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
			require.NoError(t, tx.Put("a", 9), name)
			require.ErrorIs(t, second(tx), roomkv.ErrNotAtomic, name)
			return nil // whatever the function makes of it
		}), roomkv.ErrNotAtomic, name)
	}
	require.ErrorIs(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		_, err := tx.Keys()
		return err
	}), roomkv.ErrNotAtomic)
	assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, e.store))
}

func transactLarge(t *testing.T, e *env) {
	ctx := t.Context()
	large := strings.Repeat("x", 200_000)
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		require.NoError(t, tx.Put("large", large))
		return tx.Put("small", 1)
	}))
	got, err := roomkv.Get[string](ctx, e.another(t), "large")
	require.NoError(t, err)
	assert.Equal(t, large, got)
	require.NoError(t, e.store.Transact(ctx, func(tx *roomkv.Tx) error {
		var value string
		require.NoError(t, tx.Get("large", &value))
		return tx.Put("length", len(value))
	}))
	n, err := roomkv.Get[int](ctx, e.store, "length")
	require.NoError(t, err)
	assert.Equal(t, len(large), n)
}

// transfer moves an amount.
func transfer(from, to string, amount int) func(tx *roomkv.Tx) error {
	return func(tx *roomkv.Tx) error {
		var a, b int
		if err := errors.Join(tx.Get(from, &a), tx.Get(to, &b)); err != nil {
			return err
		}
		return errors.Join(tx.Put(from, a-amount), tx.Put(to, b+amount))
	}
}

func transactsAtOnce(t *testing.T, e *env) {
	ctx := t.Context()
	const accounts, writers, each = 4, 3, 3
	values := map[string]any{}
	for i := range accounts {
		values[fmt.Sprint("account ", i)] = 0
	}
	require.NoError(t, e.store.PutAll(ctx, values))
	stores := []*roomkv.Store{e.store, e.another(t)}
	var wait sync.WaitGroup
	want := make([]int, accounts)
	for w := range writers {
		for n := range each {
			from, to, amount := (w+n)%accounts, (w+2*n+1)%accounts, 1<<(w*each+n)
			if from == to {
				to = (to + 1) % accounts
			}
			want[from], want[to] = want[from]-amount, want[to]+amount
		}
		wait.Go(func() {
			for n := range each {
				from, to, amount := (w+n)%accounts, (w+2*n+1)%accounts, 1<<(w*each+n)
				if from == to {
					to = (to + 1) % accounts
				}
				store := stores[w%len(stores)]
				assert.NoError(t, store.Transact(ctx, transfer(fmt.Sprint("account ", from), fmt.Sprint("account ", to), amount)))
				assert.NoError(t, store.Put(ctx, fmt.Sprint("own ", w), n))
			}
		})
	}
	wait.Wait()
	got := memoryOf(t, e.another(t))
	for i, n := range want {
		assert.Equal(t, fmt.Sprint(n), got[fmt.Sprint("account ", i)], "account %d", i)
	}
	for w := range writers {
		assert.Equal(t, fmt.Sprint(each-1), got[fmt.Sprint("own ", w)])
	}
}

func transactsThatSkew(t *testing.T, e *env) {
	ctx := t.Context()
	stores := []*roomkv.Store{e.store, e.another(t)}
	for round := range 3 {
		var claimed atomic.Int64
		var wait sync.WaitGroup
		names := []string{fmt.Sprint("left ", round), fmt.Sprint("right ", round)}
		for i, store := range stores {
			wait.Go(func() {
				mine := false
				assert.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
					mine = false
					for _, name := range names {
						if err := tx.Get(name, new(string)); err == nil {
							return nil // somebody has one of the two
						} else if !errors.Is(err, roomkv.ErrNotFound) {
							return err
						}
					}
					mine = true
					return tx.Put(names[i], "mine")
				}))
				if mine {
					claimed.Add(1)
				}
			})
		}
		wait.Wait()
		assert.Equal(t, int64(1), claimed.Load(), "round %d", round)
		left, err := e.another(t).Keys(ctx, roomkv.Prefix("left"))
		require.NoError(t, err)
		right, err := e.another(t).Keys(ctx, roomkv.Prefix("right"))
		require.NoError(t, err)
		assert.Len(t, append(left, right...), round+1)
	}
}

func updateRemoves(t *testing.T, e *env) {
	ctx := t.Context()
	remove := func(int, bool) (int, error) { return 7, roomkv.DeleteKey }
	require.NoError(t, roomkv.Update(ctx, e.store, "n", remove), "nothing is there")
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"n": 1, "m": 2}))
	require.NoError(t, roomkv.Update(ctx, e.store, "n", remove))
	require.ErrorIs(t, e.store.Get(ctx, "n", new(int)), roomkv.ErrNotFound)
	assert.Equal(t, map[string]string{"m": "2"}, memoryOf(t, e.another(t)))
	wrapped := fmt.Errorf("wrapped: %w", roomkv.DeleteKey)
	assert.Equal(t, wrapped, roomkv.Update(ctx, e.store, "m", func(int, bool) (int, error) { return 0, wrapped }), "only as it is")
	assert.Equal(t, map[string]string{"m": "2"}, memoryOf(t, e.another(t)))
}

func compareDeletes(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": 1, "other": 1}))
	first := revisions(t, e.store, "k")[0]
	require.NoError(t, e.store.Put(ctx, "k", 2))
	require.ErrorIs(t, e.store.CompareAndDelete(ctx, "k", first), roomkv.ErrConflict)
	require.ErrorIs(t, e.store.CompareAndDelete(ctx, "k", ""), roomkv.ErrConflict)
	require.NoError(t, e.store.CompareAndDelete(ctx, "none", ""))
	second := revisions(t, e.store, "k")[0]
	require.NoError(t, e.store.Put(ctx, "other", 2))
	require.NoError(t, e.store.CompareAndDelete(ctx, "k", second), "another key does not matter")
	require.ErrorIs(t, e.store.CompareAndDelete(ctx, "k", second), roomkv.ErrConflict)
	assert.Equal(t, map[string]string{"other": "2"}, memoryOf(t, e.another(t)))
}

func flushRemoves(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"n": 1, "m": 2, "last": 3}))
	store := open(t, e.twin(t), e.room, e.opts(roomkv.WithFlushEvery(time.Hour))...)
	left := func(old int, _ bool) (int, error) {
		if old <= 1 {
			return 0, roomkv.DeleteKey
		}
		return old - 1, nil
	}
	for range 2 {
		require.NoError(t, roomkv.Update(ctx, store, "n", left))
		require.NoError(t, roomkv.Update(ctx, store, "m", left))
	}
	keys, err := store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"last"}, keys)
	keys, err = store.Keys(ctx, roomkv.Limit(1))
	require.NoError(t, err)
	assert.Equal(t, []string{"last"}, keys)
	require.NoError(t, e.store.Put(ctx, "m", 5), "another process")
	require.NoError(t, store.Flush(ctx))
	require.NoError(t, store.Close(ctx))
	assert.Equal(t, map[string]string{"m": "3", "last": "3"}, memoryOf(t, e.another(t)), "made again on what the other has written")
}
