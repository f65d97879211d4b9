package roomkv_test

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

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
// process adds up its own in a key that it changes in the same Transact. A Transact fails where one of its requests was lost four times in a row,
// as one request in 50,000 is: whether its transfer was done is then open.
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
	failed := make([]int, processes)
	for process := range processes {
		same := twin(t, client)
		same.DefaultHTTPBackoff = 100 * time.Millisecond
		use, next := through(same)
		use(func(req *http.Request) (*http.Response, error) { // loses one request in 30, and one answer in 30
			if rand.IntN(30) == 0 {
				return nil, errors.New("the request was lost")
			}
			resp, err := next.RoundTrip(req)
			if err == nil && rand.IntN(30) == 0 {
				_ = resp.Body.Close()
				return nil, errors.New("the answer was lost")
			}
			return resp, err
		})
		store := open(t, same, room)
		wait.Go(func() {
			for n := range each {
				from, to := fmt.Sprint((process+n)%counters), fmt.Sprint((process+3*n+1)%counters)
				if from == to {
					to = "0"
					from = "1"
				}
				if err := store.Transact(ctx, func(tx *roomkv.Tx) error {
					done := 0
					if err := tx.Get(fmt.Sprint("done ", process), &done); err != nil && !errors.Is(err, roomkv.ErrNotFound) {
						return err
					}
					return errors.Join(transfer(from, to, n)(tx), tx.Put(fmt.Sprint("done ", process), done+1))
				}); err != nil {
					assert.ErrorContains(t, err, "was lost")
					failed[process]++
				}
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
		assert.LessOrEqual(t, done, each)
		assert.GreaterOrEqual(t, done, each-failed[process])
		assert.LessOrEqual(t, failed[process], 1+each/50)
	}
	t.Logf("calls of each process that failed: %v", failed)
}

// inOneEvent has the functions make Transacts that wait for a write and so share the next event.
func inOneEvent(t *testing.T, client *mautrix.Client, store *roomkv.Store, fns ...func(tx *roomkv.Tx) error) []error {
	t.Helper()
	ctx := t.Context()
	require.NoError(t, store.Put(ctx, "before", 0))
	held, release := make(chan struct{}), make(chan struct{})
	var once sync.Once
	next := cmp.Or(client.Client.Transport, http.DefaultTransport)
	client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodPut && strings.Contains(req.URL.Path, memoryPath) {
			once.Do(func() {
				close(held)
				<-release
			})
		}
		return next.RoundTrip(req)
	})
	var wait sync.WaitGroup
	wait.Go(func() { assert.NoError(t, store.Put(ctx, "before", 1)) })
	<-held
	errs := make([]error, len(fns))
	for i, fn := range fns {
		wait.Go(func() { errs[i] = store.Transact(ctx, fn) })
		time.Sleep(20 * time.Millisecond) // so that they wait in this order
	}
	close(release)
	wait.Wait()
	return errs
}

// What one Transact changes and another in the same event changes back has been read all the same.
func TestTransactThatTakesBackAnother(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store := open(t, client, room)
	require.NoError(t, store.PutAll(t.Context(), map[string]any{"a": 10, "b": 0, "c": 10, "read": 1}))
	look := func(tx *roomkv.Tx) error { return tx.Get("read", new(int)) }
	for _, err := range inOneEvent(t, client, store, transfer("a", "b", 10), transfer("c", "a", 10), look) {
		require.NoError(t, err)
	}
	var content map[string]any
	require.NoError(t, client.StateEvent(t.Context(), room, database, "", &content))
	assert.Equal(t, 10.0, content["a"])
	parents := content["roomkv.parents"].(map[string]any)
	assert.Equal(t, map[string]any{"reads": []any{"a", "read"}}, parents["atomic"], "they share one event: %v", parents)
}

// A Transact lists the keys that another one in the same event has put, also where they are sealed.
func TestTransactListsWhatIsYetToBeSealed(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	store := open(t, client, room, roomkv.WithSealedKeys([]byte("0123456789abcdef")))
	var keys []string
	for _, err := range inOneEvent(t, client, store,
		func(tx *roomkv.Tx) error { return tx.Put("new", 1) },
		func(tx *roomkv.Tx) (err error) {
			keys, err = tx.Keys()
			return err
		}) {
		require.NoError(t, err)
	}
	assert.Equal(t, []string{"before", "new"}, keys)
}

// A function that is called again can use another key, in the per-key layout too.
func TestTransactThatChangesItsMind(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, other := open(t, client, room, roomkv.WithPerKeyState()), open(t, twin(t, client), room, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "a", 0))
	calls := 0
	require.NoError(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
		key := []string{"a", "b"}[min(calls, 1)]
		calls++
		if calls == 1 {
			if err := tx.Get("a", new(int)); err != nil {
				return err
			}
			if err := roomkv.Update(ctx, other, "a", increment); err != nil { // stored before
				return err
			}
		}
		return tx.Put(key, "mine")
	}))
	assert.Greater(t, calls, 1)
	assert.Equal(t, map[string]string{"a": "1", "b": `"mine"`}, memoryOf(t, open(t, twin(t, client), room, roomkv.WithPerKeyState())))
}

// In every layout the function is called in the caller's goroutine, which a thread may be locked to.
func TestTransactStaysInItsGoroutine(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store := open(t, hstest.Client(t), "", layout)
		scoped, err := store.WithRoom(t.Context(), hstest.Room(t, hstest.Client(t)))
		require.NoError(t, err)
		require.Error(t, scoped.Transact(t.Context(), func(tx *roomkv.Tx) error { return tx.Put("k", 1) }), "not joined")
		client := hstest.Client(t)
		store = open(t, client, hstest.Room(t, client), layout)
		require.NoError(t, store.Transact(t.Context(), func(tx *roomkv.Tx) error {
			runtime.LockOSThread()
			defer runtime.UnlockOSThread()
			return tx.Put("k", 1)
		}))
		ended := make(chan struct{})
		go func() {
			defer close(ended)
			_ = store.Transact(t.Context(), func(tx *roomkv.Tx) error {
				_ = tx.Put("k", 2)
				runtime.Goexit()
				return nil
			})
		}()
		<-ended
		got, err := roomkv.Get[int](t.Context(), store, "k")
		require.NoError(t, err)
		assert.Equal(t, 1, got)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, store.Transact(ctx, func(tx *roomkv.Tx) error {
			_ = tx.Put("k", 3)
			<-ctx.Done()
			return nil
		}), context.DeadlineExceeded)
		require.NoError(t, store.Put(t.Context(), "k", 4), "nobody is held up")
	})
}
