package roomkv_test

import (
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
)

// conditionalRows are about writes that depend on what is there.
var conditionalRows = []row{
	{name: "Update changes what is there", in: inAll, run: updateChanges},
	{name: "Update that fails changes nothing", in: each + " single/following", run: updateFails},
	{name: "Update of many goroutines and two processes", in: inRooms + " " + followed, run: updatesAtOnce},
	{name: "Create stores where there is nothing", in: inAll, run: createStores},
	{name: "Create of several at once has one winner", in: inRooms + " " + followed, run: createsAtOnce},
	{name: "CompareAndPut stores what has not changed", in: inAll, run: compareStores},
	{name: "CompareAndPut of what has changed and changed back", in: each, run: compareThereAndBack},
	{name: "CompareAndPut of several at once has at most one winner", in: each + " perkey/encrypted", run: comparesAtOnce},
	{name: "Pop hands back what it removes", in: inAll, run: popRemoves},
	{name: "Pop of what cannot be decoded removes nothing", in: each, run: popDecodes},
	{name: "Pop of several at once has one winner", in: inRooms, run: popsAtOnce},
	{name: "Conditional writes of large values", in: inRooms, run: conditionalLarge},
}

func updateChanges(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, roomkv.Update(ctx, e.store, "n", func(old int, found bool) (int, error) {
		assert.False(t, found)
		assert.Zero(t, old)
		return 1, nil
	}))
	require.NoError(t, e.store.Put(ctx, "other", 1))
	require.NoError(t, roomkv.Update(ctx, e.store, "n", func(old int, found bool) (int, error) {
		assert.True(t, found)
		assert.Equal(t, 1, old)
		return old + 1, nil
	}))
	before := revisions(t, e.store, "n")
	require.NoError(t, roomkv.Update(ctx, e.store, "n", func(old int, _ bool) (int, error) { return old, nil }))
	assert.Equal(t, before, revisions(t, e.store, "n"), "which makes no event")
	other := e.another(t)
	require.NoError(t, roomkv.Update(ctx, other, "n", increment), "of another's")
	require.NoError(t, roomkv.Update(ctx, e.store, "n", increment), "after another's")
	got, err := roomkv.Get[int](ctx, e.another(t), "n")
	require.NoError(t, err)
	assert.Equal(t, 4, got)
}

func updateFails(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "n", 1))
	failure := errors.New("the test's")
	err := roomkv.Update(ctx, e.store, "n", func(int, bool) (int, error) { return 9, failure })
	assert.Equal(t, failure, err, "as it is")
	require.ErrorIs(t, roomkv.Update(ctx, e.store, "n", func(string, bool) (string, error) { return "", nil }), roomkv.ErrDecode)
	require.ErrorIs(t, roomkv.Update(ctx, e.store, "n", func(any, bool) (any, error) { return make(chan int), nil }), roomkv.ErrInvalidValue)
	assert.PanicsWithValue(t, "mine", func() { _ = roomkv.Update(ctx, e.store, "n", func(int, bool) (int, error) { panic("mine") }) })
	require.NoError(t, roomkv.Update(ctx, e.store, "n", increment), "nobody is blocked")
	got, err := roomkv.Get[int](ctx, e.store, "n")
	require.NoError(t, err)
	assert.Equal(t, 2, got)
}

func updatesAtOnce(t *testing.T, e *env) {
	const goroutines, updates = 3, 2
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "n", 0))
	var group sync.WaitGroup
	for _, store := range []*roomkv.Store{e.store, e.another(t)} {
		for range goroutines {
			group.Go(func() {
				for range updates {
					assert.NoError(t, roomkv.Update(ctx, store, "n", increment))
				}
			})
		}
	}
	group.Wait()
	got, err := roomkv.Get[int](ctx, e.another(t), "n")
	require.NoError(t, err)
	assert.Equal(t, 2*goroutines*updates, got)
	e.reads(t, "n", fmt.Sprint(2*goroutines*updates))
}

func createStores(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, e.store.Create(ctx, "k", 1))
	require.ErrorIs(t, e.store.Create(ctx, "k", 2), roomkv.ErrExists)
	require.ErrorIs(t, e.store.Create(ctx, "k", 1), roomkv.ErrExists, "also of the same value")
	require.ErrorIs(t, other.Create(ctx, "k", 2), roomkv.ErrExists)
	require.NoError(t, other.Create(ctx, "j", 2))
	require.NoError(t, other.Delete(ctx, "k"))
	require.NoError(t, e.store.Create(ctx, "k", 3), "where it was deleted")
	assert.Equal(t, map[string]string{"k": "3", "j": "2"}, memoryOf(t, e.another(t)))
}

// race has one process after another begin at the same time, and tells who succeeded.
func (e *env) race(t *testing.T, refused error, do func(n int, store *roomkv.Store) error) (won []int) {
	t.Helper()
	const processes = 3
	stores := []*roomkv.Store{e.store}
	for len(stores) < processes {
		stores = append(stores, e.another(t))
	}
	results := make([]error, processes)
	var group sync.WaitGroup
	for n, store := range stores {
		group.Go(func() { results[n] = do(n, store) })
	}
	group.Wait()
	for n, err := range results {
		if err == nil {
			won = append(won, n)
		} else {
			assert.ErrorIs(t, err, refused)
		}
	}
	return won
}

func createsAtOnce(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "other", 1))
	won := e.race(t, roomkv.ErrExists, func(n int, store *roomkv.Store) error { return store.Create(ctx, "k", n) })
	require.Len(t, won, 1)
	got, err := roomkv.Get[int](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, won[0], got)
	e.reads(t, "k", fmt.Sprint(won[0]))
}

func compareStores(t *testing.T, e *env) {
	ctx := t.Context()
	other := e.another(t)
	require.NoError(t, e.store.CompareAndPut(ctx, "k", 1, ""), "where there is none")
	require.ErrorIs(t, e.store.CompareAndPut(ctx, "k", 2, ""), roomkv.ErrConflict)
	require.ErrorIs(t, other.CompareAndPut(ctx, "k", 2, ""), roomkv.ErrConflict)
	read, err := other.Entry(ctx, "k")
	require.NoError(t, err)
	require.NoError(t, e.store.Put(ctx, "other", 1))
	require.NoError(t, other.CompareAndPut(ctx, "k", 3, read.Revision), "other keys do not matter")
	for _, store := range []*roomkv.Store{other, e.store, e.another(t)} {
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", 4, read.Revision), roomkv.ErrConflict)
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", 4, "$unknown"), roomkv.ErrConflict)
	}
	e.reads(t, "k", "3")
	read, err = e.store.Entry(ctx, "k")
	require.NoError(t, err)
	require.NoError(t, other.Delete(ctx, "k"))
	require.ErrorIs(t, e.store.CompareAndPut(ctx, "k", 5, read.Revision), roomkv.ErrConflict, "it was deleted")
	require.NoError(t, e.store.CompareAndPut(ctx, "k", 6, ""))
	assert.Equal(t, map[string]string{"k": "6", "other": "1"}, memoryOf(t, e.another(t)))
}

func compareThereAndBack(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", 1))
	read, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	other := e.another(t)
	require.NoError(t, other.Put(ctx, "k", 2))
	require.NoError(t, other.Put(ctx, "k", 1))
	require.ErrorIs(t, e.store.CompareAndPut(ctx, "k", 3, read.Revision), roomkv.ErrConflict)
}

func comparesAtOnce(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", "first"))
	read, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	won := e.race(t, roomkv.ErrConflict, func(n int, store *roomkv.Store) error { return store.CompareAndPut(ctx, "k", n, read.Revision) })
	require.Len(t, won, 1)
	got, err := roomkv.Get[int](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, won[0], got)
}

func popRemoves(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": "value", "j": 1}))
	var got string
	require.NoError(t, e.store.Pop(ctx, "k", &got))
	assert.Equal(t, "value", got)
	require.ErrorIs(t, e.store.Pop(ctx, "k", &got), roomkv.ErrNotFound)
	other := e.another(t)
	require.ErrorIs(t, other.Pop(ctx, "k", &got), roomkv.ErrNotFound)
	var number int
	require.NoError(t, other.Pop(ctx, "j", &number))
	assert.Equal(t, 1, number)
	require.ErrorIs(t, e.store.Pop(ctx, "j", &number), roomkv.ErrNotFound)
	assert.Empty(t, memoryOf(t, e.another(t)))
}

func popDecodes(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", "two"))
	require.ErrorIs(t, e.store.Pop(ctx, "k", new(int)), roomkv.ErrDecode)
	require.ErrorIs(t, e.store.Pop(ctx, "k", nil), roomkv.ErrDecode)
	got, err := roomkv.Get[string](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, "two", got)
}

func popsAtOnce(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": "value", "j": 1}))
	var values atomic.Int64
	won := e.race(t, roomkv.ErrNotFound, func(_ int, store *roomkv.Store) error {
		var got string
		err := store.Pop(ctx, "k", &got)
		if err == nil && got == "value" {
			values.Add(1)
		}
		return err
	})
	assert.Len(t, won, 1)
	assert.EqualValues(t, 1, values.Load())
	assert.Equal(t, map[string]string{"j": "1"}, memoryOf(t, e.another(t)))
}

func conditionalLarge(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Create(ctx, "k", []string{text(70_000, 0)}))
	require.ErrorIs(t, e.store.Create(ctx, "k", 1), roomkv.ErrExists)
	require.NoError(t, roomkv.Update(ctx, e.store, "k", func(old []string, _ bool) ([]string, error) { return append(old, "more"), nil }))
	entry, err := e.store.Entry(ctx, "k")
	require.NoError(t, err)
	require.NoError(t, e.another(t).CompareAndPut(ctx, "k", []string{text(80_000, 1)}, entry.Revision))
	require.ErrorIs(t, e.store.CompareAndPut(ctx, "k", 1, entry.Revision), roomkv.ErrConflict)
	var got []string
	require.NoError(t, e.store.Pop(ctx, "k", &got))
	assert.Equal(t, []string{text(80_000, 1)}, got)
}
