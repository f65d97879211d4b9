package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// atKey is the state key of the key "@k".
const atKey = "roomkv.@k"

// without is a homeserver that has left out of the state what was sent under the key, but lists it, as Synapse does where the power
// changes at the same time.
func without(key string, next http.RoundTripper) roundTripper {
	return func(req *http.Request) (*http.Response, error) {
		if req.Method == http.MethodGet && strings.HasSuffix(req.URL.Path, memoryPath+key) {
			return &http.Response{StatusCode: http.StatusNotFound, Body: readCloser(`{"errcode":"M_NOT_FOUND"}`), Request: req}, nil
		}
		return next.RoundTrip(req)
	}
}

// isPut tells whether a request stores what is under the key.
func isPut(req *http.Request, key string) bool {
	return req.Method == http.MethodPut && strings.HasSuffix(req.URL.Path, memoryPath+key)
}

// What a store has from its sync it deletes, though the state lacks it.
func TestDeleteOfWhatOnlyTheSyncHas(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	p.level(t, 50)
	use, next := through(p.bot)
	store := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback())
	require.NoError(t, store.Follow())
	syncing(t, p.bot)
	admin := open(t, p.admin, p.room, roomkv.WithPerKeyState())
	require.NoError(t, admin.Put(ctx, "k", 1))
	eventually(t, func() bool { return store.Get(ctx, "k", new(int)) == nil }, "the sync brings it")
	use(without("k", next))
	require.NoError(t, store.Get(ctx, "k", new(int)))
	require.NoError(t, store.Delete(ctx, "k"))
	assert.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
	assert.ErrorIs(t, admin.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
}

// The homeserver throws away what it has acknowledged, and somebody else finds out first that the power is gone. It is made in account data, once.
func TestThrownAwayIsMadeInAccountData(t *testing.T) {
	hstest.Parallel(t)
	for name, c := range map[string]struct {
		change func(ctx context.Context, store *roomkv.Store) error
		before bool
		want   map[string]string
	}{
		"update": {func(ctx context.Context, store *roomkv.Store) error { return roomkv.Update(ctx, store, "k", increment) }, true, map[string]string{"k": "2"}},
		"create": {func(ctx context.Context, store *roomkv.Store) error { return store.Create(ctx, "k", 1) }, false, map[string]string{"k": "1"}},
		"pop":    {func(ctx context.Context, store *roomkv.Store) error { return store.Pop(ctx, "k", new(int)) }, true, map[string]string{}},
	} {
		t.Run(name, func(t *testing.T) {
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				p.level(t, 50)
				store := open(t, p.bot, p.room, opts...)
				if c.before {
					require.NoError(t, store.Put(ctx, "k", 1))
				}
				use, next := through(p.bot)
				gone := make(chan struct{})
				var once sync.Once
				use(func(req *http.Request) (resp *http.Response, err error) {
					if isPut(req, "k") {
						once.Do(func() {
							p.level(t, 0)
							close(gone)
							resp = &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{"event_id":"$nowhere"}`), Request: req}
						})
					}
					if resp != nil {
						return resp, nil
					}
					return next.RoundTrip(req)
				})
				var group sync.WaitGroup
				group.Go(func() {
					<-gone
					assert.NoError(t, store.Put(ctx, "other", 1))
				})
				assert.NoError(t, c.change(ctx, store))
				group.Wait()
				c.want["other"] = "1"
				assert.Equal(t, c.want, memoryOf(t, store))
			}, "perkey")
		})
	}
}

// Two stores of one process write different keys of one dict at the same time, and the power goes before these are merged.
func TestMergeThatIsRefused(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	p.level(t, 50)
	another := open(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	store := open(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	require.NoError(t, store.Put(ctx, "k", 0))
	use, next := through(p.bot)
	var once atomic.Bool
	use(func(req *http.Request) (*http.Response, error) {
		if !isPut(req, "") || !once.CompareAndSwap(false, true) {
			return next.RoundTrip(req)
		}
		assert.NoError(t, another.Put(ctx, "other", 5))
		resp, err := next.RoundTrip(req)
		p.level(t, 0)
		return resp, err
	})
	require.NoError(t, roomkv.Update(ctx, store, "k", increment))
	assert.Equal(t, map[string]string{"k": "1", "other": "5"}, memoryOf(t, store))
}

// Two change one key at the same time, and the power goes before these changes are merged.
func TestMergeOfAKeyThatIsRefused(t *testing.T) {
	hstest.Parallel(t)
	type change func(ctx context.Context, store *roomkv.Store) error
	add := func(n int) change {
		return func(ctx context.Context, store *roomkv.Store) error {
			return roomkv.Update(ctx, store, "k", func(count int, _ bool) (int, error) { return count + n, nil })
		}
	}
	pop := func(ctx context.Context, store *roomkv.Store) error {
		var popped int
		err := store.Pop(ctx, "k", &popped)
		if err == nil && popped != 11 {
			return fmt.Errorf("popped %d", popped)
		}
		return err
	}
	const (
		same  = iota // another store of the process
		admin        // another user, who keeps the power
	)
	for name, c := range map[string]struct {
		who                int
		acknowledged, late change
		thrownAway         bool // whether the homeserver does that with the late event
		want               string
	}{
		"update, thrown away":     {same, add(10), add(1), true, "12"},
		"pop, thrown away":        {same, add(10), pop, true, ""},
		"another user's, dropped": {admin, add(10), add(1), true, "12"},
	} {
		t.Run(name, func(t *testing.T) {
			hstest.Parallel(t)
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				p.level(t, 50)
				another, store := open(t, p.bot, p.room, opts...), open(t, p.bot, p.room, opts...)
				if c.who == admin {
					another = open(t, p.admin, p.room, opts[1:]...)
				}
				require.NoError(t, store.Put(ctx, "k", 1))
				eventually(t, func() bool { return another.Get(ctx, "k", new(int)) == nil }, "the other can read it")
				use, next := through(p.bot)
				var once atomic.Bool
				use(func(req *http.Request) (resp *http.Response, err error) {
					if !isPut(req, "k") || !once.CompareAndSwap(false, true) {
						return next.RoundTrip(req)
					}
					assert.NoError(t, c.acknowledged(ctx, another))
					if c.thrownAway {
						resp = &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{"event_id":"$nowhere"}`), Request: req}
					} else {
						resp, err = next.RoundTrip(req)
					}
					p.level(t, 0)
					return resp, err
				})
				require.NoError(t, c.late(ctx, store))
				want := map[string]string{}
				if c.want != "" {
					want["k"] = c.want
				}
				assert.Equal(t, want, memoryOf(t, store))
				p.level(t, 50)
				roomkv.PassTime(p.room, store)
				require.NoError(t, store.Put(ctx, "other", 1))
				want["other"] = "1"
				assert.Equal(t, want, memoryOf(t, store))
				assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
			}, "perkey")
		})
	}
}

// A state event that is none of the store's holds up neither who replaces it, nor the room's other writes, wherever it is.
func TestCorruptEventIsReplaced(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	corrupt := func(t *testing.T, p powerless) {
		t.Helper()
		_, err := p.admin.SendStateEvent(ctx, p.room, database, atKey, map[string]any{"x": 1})
		require.NoError(t, err)
	}
	opts := []roomkv.Option{roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback()}
	t.Run("put and delete with redaction", func(t *testing.T) {
		p := newPowerless(t, false)
		p.level(t, 50)
		store := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithRedaction())
		corrupt(t, p)
		require.NoError(t, store.Put(ctx, "@k", 1))
		require.NoError(t, store.Get(ctx, "@k", new(int)))
		corrupt(t, p)
		require.NoError(t, store.Delete(ctx, "@k"))
	})
	t.Run("account data moves over it", func(t *testing.T) {
		p := newPowerless(t, false)
		corrupt(t, p)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "@k", 1))
		assert.Equal(t, map[string]string{"@k": "1"}, memoryOf(t, store))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "other", 1))
		assert.Equal(t, map[string]string{"@k": "1", "other": "1"}, memoryOf(t, store))
	})
	t.Run("it is left out of the state", func(t *testing.T) {
		p := newPowerless(t, false)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "@k", 1))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "other", 1))
		corrupt(t, p)
		use, next := through(p.bot)
		use(without(atKey, next))
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "other", 2))
		require.NoError(t, store.Delete(ctx, "@k"))
		use(next.RoundTrip)
		assert.Equal(t, map[string]string{"other": "2"}, memoryOf(t, store))
	})
}

// Several keys are put at once as the first that go to account data again, after it has moved to the state.
func TestPutsAtOnceAfterAMove(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "a", 1))
		p.level(t, 50)
		roomkv.PassTime(p.room, store)
		require.NoError(t, store.Put(ctx, "b", 1))
		require.Equal(t, map[string]string{"a": "state", "b": "state"}, places(t, store))
		p.level(t, 0)

		enough := errors.New("enough")
		waiting, put := make(chan struct{}), make(chan struct{})
		var calls atomic.Int64
		var group sync.WaitGroup
		group.Go(func() { // nothing comes of it, but that others wait
			assert.ErrorIs(t, roomkv.Update(ctx, store, "busy", func(int, bool) (int, error) {
				if calls.Add(1) == 1 {
					return 1, nil
				}
				close(waiting)
				<-put
				return 0, enough
			}), enough)
		})
		<-waiting
		want := map[string]string{"a": "1", "b": "1"}
		for i := range 4 {
			key := fmt.Sprint("put ", i)
			want[key] = fmt.Sprint(i)
			group.Go(func() { assert.NoError(t, store.Put(ctx, key, i)) })
		}
		time.Sleep(500 * time.Millisecond) // they wait for the same event then
		close(put)
		group.Wait()
		assert.Equal(t, want, memoryOf(t, store))
	})
}
