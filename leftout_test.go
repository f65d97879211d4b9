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

// What was moved into the state is left out there, with what was written after it: the power went and came while it was sent.
func TestMovedMemoryThatIsLeftOut(t *testing.T) {
	hstest.Parallel(t)
	for name, change := range map[string]func(ctx context.Context, store *roomkv.Store) error{
		"update": func(ctx context.Context, store *roomkv.Store) error { return roomkv.Update(ctx, store, "k", increment) },
		"put":    func(ctx context.Context, store *roomkv.Store) error { return store.Put(ctx, "k", 2) },
		"delete": func(ctx context.Context, store *roomkv.Store) error { return store.Delete(ctx, "k") },
	} {
		t.Run(name, func(t *testing.T) {
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				use, next := through(p.bot)
				store := open(t, p.bot, p.room, opts...)
				require.NoError(t, store.Put(ctx, "k", 1))
				p.level(t, 50)
				roomkv.PassTime(p.room)
				use(without("k", next))
				require.NoError(t, store.Put(ctx, "other", 1), "which moves the memory")
				require.NoError(t, change(ctx, store))
				roomkv.PassTime(p.room)
				require.NoError(t, store.Put(ctx, "other", 2), "which moves it again")
				use(next.RoundTrip)
				want := map[string]string{"other": "2", "k": "2"}
				if name == "delete" {
					delete(want, "k")
				}
				assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
				assert.Equal(t, want, memoryOf(t, store))
			}, "perkey", "encrypted perkey", "single")
		})
	}
}

// Who knows of no event that was left out of the state begins from nothing, and loses the power before it has found out.
func TestRescueOfWhatBeganFromNothing(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		store := open(t, p.bot, p.room, opts...)
		for range 3 {
			require.NoError(t, roomkv.Update(ctx, store, "k", increment))
		}
		use, next := through(p.bot)
		var sent atomic.Bool
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := without("k", next)(req)
			if isPut(req, "k") && sent.CompareAndSwap(false, true) {
				p.level(t, 0)
			}
			return resp, err
		})
		another := open(t, p.bot, p.room, opts...)
		require.NoError(t, roomkv.Update(ctx, another, "k", increment))
		require.True(t, sent.Load())
		assert.Equal(t, map[string]string{"k": "account data"}, places(t, another))
		assert.Equal(t, map[string]string{"k": "4"}, memoryOf(t, another))
		assert.Equal(t, map[string]string{"k": "4"}, memoryOf(t, store))
	}, "perkey", "encrypted perkey")
}

// A key is deleted whose value was left out of the state, and that does not come back.
func TestDeleteOfWhatIsLeftOut(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "k", 1))
		use, next := through(p.bot)
		use(without("k", next))
		require.NoError(t, store.Delete(ctx, "k"))
		p.level(t, 0)
		require.NoError(t, store.Put(ctx, "other", 1), "which rescues what is not in the state")
		assert.Equal(t, map[string]string{"other": "1"}, memoryOf(t, store))
		use(next.RoundTrip)
		assert.Equal(t, map[string]string{"other": "1"}, memoryOf(t, store))
	}, "perkey", "encrypted perkey")
}

// A key that was left out of the state, and then deleted in account data, does not come back with the power.
func TestLeftOutAndDeletedInAccountData(t *testing.T) {
	hstest.Parallel(t)
	for _, how := range []string{"while the power goes", "afterwards"} {
		t.Run(how, func(t *testing.T) {
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				p.level(t, 50)
				store := open(t, p.bot, p.room, opts...)
				require.NoError(t, store.Put(ctx, "k", 41))
				use, next := through(p.bot)
				hidden := without("k", next)
				var stored atomic.Bool
				use(func(req *http.Request) (*http.Response, error) {
					if stored.Load() {
						return next.RoundTrip(req)
					}
					resp, err := hidden(req)
					if isPut(req, "k") && err == nil && resp.StatusCode == http.StatusOK {
						stored.Store(true)
					}
					return resp, err
				})
				p.level(t, 0)
				if how == "afterwards" {
					require.NoError(t, store.Put(ctx, "other", 1))
					require.Equal(t, "account data", places(t, store)["k"])
				}
				require.NoError(t, store.Delete(ctx, "k"))
				require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
				p.level(t, 50)
				roomkv.PassTime(p.room)
				require.NoError(t, store.Put(ctx, "other", 2))
				require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
				require.NoError(t, roomkv.Update(ctx, store, "k", increment))
				assert.Equal(t, map[string]string{"other": "2", "k": "1"}, memoryOf(t, store))
			}, "perkey", "encrypted perkey")
		})
	}
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

// The homeserver throws away what it has acknowledged, somebody else finds out that the power is gone, and takes that to account data:
// it must not be done there once more.
func TestRescuedIsNotMadeAgain(t *testing.T) {
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
	put := func(ctx context.Context, store *roomkv.Store) error { return store.Put(ctx, "k", 20) }
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
		behind             bool // whether it lists both late, once it has refused the merge
		want               string
	}{
		"update":                  {same, add(10), add(1), false, false, "12"},
		"put":                     {same, put, add(1), false, false, "21"},
		"pop":                     {same, add(10), pop, false, false, ""},
		"update, thrown away":     {same, add(10), add(1), true, false, "12"},
		"pop, thrown away":        {same, add(10), pop, true, false, ""},
		"update, listed late":     {same, add(10), add(1), false, true, "12"},
		"another user's update":   {admin, add(10), add(1), false, false, "12"},
		"another user's, dropped": {admin, add(10), add(1), true, false, "12"},
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
				var once, refused atomic.Bool
				var lists atomic.Int64
				use(func(req *http.Request) (resp *http.Response, err error) {
					if refused.Load() && c.behind && strings.HasSuffix(req.URL.Path, "/messages") && lists.Add(1) <= 3 {
						return &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{"chunk":[],"start":"t1"}`), Request: req}, nil
					}
					if !isPut(req, "k") || !once.CompareAndSwap(false, true) {
						resp, err = next.RoundTrip(req)
						if isPut(req, "k") && err == nil && resp.StatusCode == http.StatusForbidden {
							refused.Store(true)
						}
						return resp, err
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

// As before, and neither of the two has looked for the other's when the power goes. Each is done once.
func TestTwoChangesOfAKeyAsThePowerGoes(t *testing.T) {
	hstest.Parallel(t)
	add := func(store *roomkv.Store, n int) error {
		return roomkv.Update(context.Background(), store, "k", func(count int, _ bool) (int, error) { return count + n, nil })
	}
	for _, last := range []string{"the second's answer is the last", "the first's answer is the last"} {
		t.Run(last, func(t *testing.T) {
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				p.level(t, 50)
				another, store := open(t, p.bot, p.room, opts...), open(t, p.bot, p.room, opts...)
				require.NoError(t, store.Put(ctx, "k", 1))
				require.NoError(t, another.Get(ctx, "k", new(int)))
				use, next := through(p.bot)
				var puts atomic.Int64
				firstStored, secondStored, answered := make(chan struct{}), make(chan struct{}), make(chan struct{})
				var group sync.WaitGroup
				use(func(req *http.Request) (*http.Response, error) {
					if !isPut(req, "k") {
						return next.RoundTrip(req)
					}
					switch puts.Add(1) {
					case 1: // the store's, which is stored second
						group.Go(func() { assert.NoError(t, add(another, 10)) })
						<-firstStored
						resp, err := next.RoundTrip(req)
						p.level(t, 0)
						close(secondStored)
						if strings.HasPrefix(last, "the second") {
							<-answered
							time.Sleep(5 * time.Millisecond)
						}
						return resp, err
					case 2:
						resp, err := next.RoundTrip(req)
						close(firstStored)
						<-secondStored
						if strings.HasPrefix(last, "the first") {
							time.Sleep(5 * time.Millisecond)
						}
						close(answered)
						return resp, err
					}
					return next.RoundTrip(req)
				})
				require.NoError(t, add(store, 1))
				group.Wait()
				assert.Equal(t, map[string]string{"k": "12"}, memoryOf(t, store))
				assert.Equal(t, map[string]string{"k": "12"}, memoryOf(t, another))
			}, "perkey", "encrypted perkey")
		})
	}
}

// Others wait for no Update that is slow, also while what the state lacks is taken to account data.
func TestSlowUpdateHoldsUpNoRescue(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	p.level(t, 50)
	store := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback())
	require.NoError(t, store.Put(ctx, "k", 1))
	use, next := through(p.bot)
	use(without("k", next))
	begun, rescued := make(chan struct{}), make(chan struct{})
	var once sync.Once
	var group sync.WaitGroup
	group.Go(func() {
		assert.NoError(t, roomkv.Update(ctx, store, "k", func(n int, _ bool) (int, error) {
			once.Do(func() { close(begun) })
			select {
			case <-rescued:
			case <-time.After(10 * time.Second):
				t.Error("the others are held up")
			}
			return n + 1, nil
		}))
	})
	<-begun
	p.level(t, 0)
	require.NoError(t, store.Put(ctx, "other", 1))
	require.NoError(t, store.Get(ctx, "other", new(int)))
	close(rescued)
	group.Wait()
	assert.Equal(t, map[string]string{"k": "2", "other": "1"}, memoryOf(t, store))
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
	t.Run("rescue over it", func(t *testing.T) {
		p := newPowerless(t, false)
		p.level(t, 50)
		corrupt(t, p)
		use, next := through(p.bot)
		use(func(req *http.Request) (*http.Response, error) {
			if isPut(req, atKey) {
				return &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{"event_id":"$nowhere"}`), Request: req}, nil
			}
			return next.RoundTrip(req)
		})
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "@k", 1))
		p.level(t, 0)
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
