package roomkv_test

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// A Transact sees what is in account data over what the state has, and changes keys of both.
func TestTransactInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		require.NoError(t, open(t, p.bot, p.room, opts[1:]...).PutAll(ctx, map[string]any{"a": 10, "b": 20, "c": 30}))
		p.level(t, 0)
		roomkv.ForgetAccounts(p.room)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "b", 21), "over the state")
		require.NoError(t, store.Transact(ctx, transfer("a", "b", 3)))
		require.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
			keys, err := tx.Keys()
			assert.Equal(t, []string{"a", "b", "c"}, keys)
			return errors.Join(err, tx.Delete("c"), tx.Put("d", 1))
		}))
		want := map[string]string{"a": "7", "b": "24", "d": "1"}
		assert.Equal(t, want, memoryOf(t, store))
		entries, err := store.GetAll(ctx, "a", "b", "c", "d")
		require.NoError(t, err)
		assert.Len(t, entries, 3)
		assert.Equal(t, roomkv.InAccountData, entries["a"].Place)
		require.NoError(t, store.CompareAndDelete(ctx, "d", entries["d"].Revision))
		require.NoError(t, roomkv.Update(ctx, store, "a", func(int, bool) (int, error) { return 0, roomkv.DeleteKey }))
		lists(t, store, []string{"b"})
		sub := store.Sub("p/")
		require.NoError(t, sub.Put(ctx, "x", 1))
		require.NoError(t, sub.Transact(ctx, func(tx *roomkv.Tx) error { return tx.Put("y", 2) }))
		lists(t, sub, []string{"x", "y"})
		require.NoError(t, sub.Delete(ctx, "x", "y"))

		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error { return errors.Join(tx.Put("b", 1), tx.Put("e", 2)) }))
		want = map[string]string{"b": "1", "e": "2"}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)), "the state has it all")
	}, "single", "encrypted single")
}

// In the per-key layout a Transact uses one key, in account data too.
func TestTransactOfOneKeyInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		for range 3 {
			require.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
				n := 0
				if err := tx.Get("n", &n); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
					return err
				}
				return tx.Put("n", n+1)
			}))
		}
		require.ErrorIs(t, store.Transact(ctx, transfer("n", "m", 1)), roomkv.ErrNotAtomic)
		assert.Equal(t, map[string]string{"n": "3"}, memoryOf(t, store))
	}, "perkey", "encrypted perkey")
}

// Each process moves amounts between some of ten counters. No amount is made or lost, and each transfer that was acknowledged is there: each
// process adds up its own in a key that it changes in the same Transact.
func TestTransfersOfProcesses(t *testing.T) {
	hstest.Parallel(t)
	processes, each := 4, 10
	if *soak {
		processes, each = 8, 100
	}
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	const counters = 10
	values := map[string]any{}
	for i := range counters {
		values[fmt.Sprint(i)] = 1000
	}
	require.NoError(t, open(t, client, room).PutAll(ctx, values))
	var wait sync.WaitGroup
	for process := range processes {
		store := open(t, twin(t, client), room)
		wait.Go(func() {
			for n := range each {
				from, to := fmt.Sprint((process+n)%counters), fmt.Sprint((process+3*n+1)%counters)
				if from == to {
					to = "0"
					from = "1"
				}
				assert.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
					done := 0
					if err := tx.Get(fmt.Sprint("done ", process), &done); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
						return err
					}
					return errors.Join(transfer(from, to, n)(tx), tx.Put(fmt.Sprint("done ", process), done+1))
				}))
			}
		})
	}
	wait.Wait()
	reader, sum := open(t, twin(t, client), room), 0
	for i := range counters {
		n, err := roomkv.Get[int](ctx, reader, fmt.Sprint(i))
		require.NoError(t, err)
		sum += n
	}
	assert.Equal(t, 1000*counters, sum)
	for process := range processes {
		done, err := roomkv.Get[int](ctx, reader, fmt.Sprint("done ", process))
		require.NoError(t, err)
		assert.Equal(t, each, done)
	}
}
