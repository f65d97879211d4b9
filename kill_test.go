package roomkv_test

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// A writer can die at any moment, between a write and the look back after it too. What was acknowledged before, to it or
// to others, is there once somebody else has written.
func TestKilledWriterLosesNothing(t *testing.T) {
	hstest.Parallel(t)
	hstest.Real(t)
	kills := often(50, 10)
	client, j := shared(t)
	j.Do, j.Times = "put", 1_000_000
	var steady []*process
	for i := range 2 {
		j.Name = fmt.Sprint("steady", i)
		steady = append(steady, start(t, j))
	}
	var acknowledged []string
	j.Times = 10
	store := open(t, client, j.Room)
	for _, p := range steady {
		p.begin()
	}
	for i := range kills {
		j.Name = fmt.Sprint("victim", i)
		victim := start(t, j)
		victim.begin()
		time.Sleep(time.Duration(rand.IntN(300)) * time.Millisecond)
		require.NoError(t, victim.cmd.Process.Kill())
		for line := range victim.lines {
			if !strings.HasPrefix(line, "requests") {
				acknowledged = append(acknowledged, line)
			}
		}
		require.NoError(t, store.Delete(t.Context(), "none")) // a reader in between
	}
	for _, p := range steady {
		require.NoError(t, p.cmd.Process.Kill())
		for line := range p.lines {
			acknowledged = append(acknowledged, line)
		}
	}
	require.NoError(t, store.Put(t.Context(), "the end", true))
	t.Logf("%d acknowledged", len(acknowledged))
	memory := memoryOf(t, store)
	lost := 0
	for _, key := range acknowledged {
		if _, ok := memory[key]; !ok {
			lost++
		}
	}
	assert.Zero(t, lost, "of %d", len(acknowledged))
}

// opsdroid reads, changes and writes, and names no parents. What roomkv has acknowledged is not lost to it where it
// copies the field that names them, as it does.
func TestBesideOpsdroid(t *testing.T) {
	hstest.Parallel(t)
	client, j := shared(t)
	var jobs []job
	for i := range 2 {
		j.Name, j.Do, j.Times = fmt.Sprint("roomkv", i), "put", 20
		jobs = append(jobs, j)
	}
	j.Name, j.Do, j.Times = "opsdroid", "opsdroid", 20
	jobs = append(jobs, j)
	require.NoError(t, open(t, client, j.Room).Put(t.Context(), "first", 1))
	acknowledged, _ := together(t, jobs...)
	store := open(t, client, j.Room)
	require.NoError(t, store.Put(t.Context(), "the end", true))
	memory := memoryOf(t, store)
	lost := 0
	for _, keys := range acknowledged[:2] {
		for _, key := range keys {
			if _, ok := memory[key]; !ok {
				lost++
			}
		}
	}
	assert.Zero(t, lost)
	kept := 0
	for _, key := range acknowledged[2] {
		if _, ok := memory[key]; ok {
			kept++
		}
	}
	t.Logf("%d of %d of opsdroid's own", kept, len(acknowledged[2]))
}

func TestThousandGoroutines(t *testing.T) { // alone: a busy machine makes a store ask more often
	const goroutines = 1000
	store, client, _ := newStore(t)
	recorder := hstest.Record(client)
	failed := make(chan error, goroutines)
	for i := range goroutines {
		go func() { failed <- store.Put(t.Context(), fmt.Sprint("key ", i), i) }()
	}
	for range goroutines {
		require.NoError(t, <-failed)
	}
	assert.LessOrEqual(t, recorder.Count(), 10)
	t.Logf("%d requests", recorder.Count())
	keys, err := store.Keys(t.Context())
	require.NoError(t, err)
	assert.Len(t, keys, goroutines)
}

func TestCompareAndPut(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		other := open(t, again(t, client), room, layout)
		require.NoError(t, store.Create(ctx, "k", 1))
		require.ErrorIs(t, store.Create(ctx, "k", 2), roomkv.ErrExists)
		require.ErrorIs(t, other.Create(ctx, "k", 2), roomkv.ErrExists)
		require.ErrorIs(t, other.CompareAndPut(ctx, "k", 2, ""), roomkv.ErrConflict)
		entry, err := other.Entry(ctx, "k")
		require.NoError(t, err)
		for i := range 30 {
			require.NoError(t, store.Put(ctx, "unrelated", i), "does not matter")
		}
		require.NoError(t, other.CompareAndPut(ctx, "k", 3, entry.Revision))
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", 4, entry.Revision), roomkv.ErrConflict)
		require.ErrorIs(t, other.CompareAndPut(ctx, "k", 4, entry.Revision), roomkv.ErrConflict)
		require.ErrorIs(t, other.CompareAndPut(ctx, "k", 4, "$unknown"), roomkv.ErrConflict)
		entry, err = store.Entry(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, other.Put(ctx, "k", 0))
		require.NoError(t, other.Put(ctx, "k", 3))
		require.ErrorIs(t, store.CompareAndPut(ctx, "k", 5, entry.Revision), roomkv.ErrConflict, "there and back is changed too")
		entry, err = store.Entry(ctx, "k")
		require.NoError(t, err)
		require.NoError(t, store.Delete(ctx, "k"))
		require.ErrorIs(t, other.CompareAndPut(ctx, "k", 6, entry.Revision), roomkv.ErrConflict)
		require.NoError(t, other.CompareAndPut(ctx, "k", 7, ""))
		got, err := roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err)
		assert.Equal(t, 7, got)
	})
}

func TestUpdate(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, _, _ := newStore(t, layout)
		add := func(by int) func(int, bool) (int, error) {
			return func(old int, _ bool) (int, error) { return old + by, nil }
		}
		require.NoError(t, roomkv.Update(ctx, store, "k", func(old int, found bool) (int, error) {
			assert.False(t, found)
			return 1, nil
		}))
		require.NoError(t, roomkv.Update(ctx, store, "k", add(2)))
		failure := fmt.Errorf("no")
		require.ErrorIs(t, roomkv.Update(ctx, store, "k", func(int, bool) (int, error) { return 9, failure }), failure)
		require.ErrorIs(t, roomkv.Update(ctx, store, "k", func(string, bool) (string, error) { return "", nil }), roomkv.ErrDecode)
		assert.PanicsWithValue(t, "mine", func() {
			_ = roomkv.Update(ctx, store, "k", func(int, bool) (int, error) { panic("mine") })
		})
		require.NoError(t, roomkv.Update(ctx, store, "k", add(4)), "a panic blocks nobody")
		got, err := roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err)
		assert.Equal(t, 7, got)
	})
}

func TestSingleWriter(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, _ := newStore(t, layout, roomkv.WithSingleWriter())
		recorder := hstest.Record(client)
		require.NoError(t, store.Put(ctx, "k", 0))
		for i := range 5 {
			recorder.Reset()
			require.NoError(t, store.Put(ctx, "k", i+1))
			assert.Equal(t, 1, recorder.Count())
		}
		require.NoError(t, roomkv.Update(ctx, store, "k", func(old int, _ bool) (int, error) { return old + 1, nil }))
		require.NoError(t, store.Put(ctx, "j", 1))
		assert.Equal(t, map[string]string{"k": `6`, "j": `1`}, memoryOf(t, store))
	})
}
