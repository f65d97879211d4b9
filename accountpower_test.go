package roomkv_test

import (
	"context"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
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

// TestPowerComesAndGoes is what the option is for: goroutines write while an admin gives the bot power and takes it away. In that very moment no
// state event is on its way, for the homeserver can drop that.
func TestPowerComesAndGoes(t *testing.T) {
	hstest.Parallel(t)
	kinds := map[bool][]string{true: {"single", "encrypted perkey"}, false: {"perkey", "sealed perkey", "encrypted single"}}
	if *rounds > 10 {
		clear(kinds) // all
	}
	for _, following := range []bool{true, false} {
		t.Run(fmt.Sprint("following=", following), func(t *testing.T) {
			eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
				ctx := t.Context()
				hub := hstest.Room(t, p.bot)
				stores := []*roomkv.Store{open(t, p.bot, hub, opts...), open(t, p.bot, hub, opts...)}
				var moment sync.RWMutex
				use, next := through(p.bot)
				use(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/state/") {
						moment.RLock()
						defer moment.RUnlock()
					}
					return next.RoundTrip(req)
				})
				for _, store := range stores {
					if following {
						require.NoError(t, store.Follow())
					}
				}
				syncing(t, p.bot)
				stop := make(chan struct{})
				var group sync.WaitGroup
				var mu sync.Mutex
				acknowledged, updates := map[string]string{}, 0
				for writer := range 4 {
					handler := stores[writer%2].InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
						for i := 0; ; i++ {
							select {
							case <-stop:
								return
							default:
							}
							key := fmt.Sprintf("%d %d", writer, i%7)
							if i%5 == 4 {
								if assert.NoError(t, room.Delete(ctx, key)) {
									mu.Lock()
									delete(acknowledged, key)
									mu.Unlock()
								}
							} else if assert.NoError(t, room.Put(ctx, key, i)) {
								mu.Lock()
								acknowledged[key] = fmt.Sprint(i)
								mu.Unlock()
							}
							if assert.NoError(t, roomkv.Update(ctx, room, "count", increment)) {
								mu.Lock()
								updates++
								mu.Unlock()
							}
						}
					})
					group.Go(func() { handler(ctx, &event.Event{RoomID: p.room}) })
				}
				for _, level := range []int{50, 0, 50, 0} {
					time.Sleep(250 * time.Millisecond)
					moment.Lock()
					p.level(t, level)
					moment.Unlock()
					if !following {
						roomkv.PassTime(p.room)
					}
				}
				time.Sleep(150 * time.Millisecond)
				close(stop)
				group.Wait()
				acknowledged["count"] = fmt.Sprint(updates)
				t.Logf("%d updates, %d keys", updates, len(acknowledged))

				for _, store := range stores {
					room, err := store.WithRoom(ctx, p.room)
					require.NoError(t, err)
					assert.Equal(t, acknowledged, memoryOf(t, room))
				}
				roomkv.ForgetAccounts(p.room)
				fresh := open(t, p.bot, p.room, opts...)
				assert.Equal(t, acknowledged, memoryOf(t, fresh), "in a new process")
				p.level(t, 50)
				roomkv.PassTime(p.room)
				require.NoError(t, fresh.Put(ctx, "last", 1))
				acknowledged["last"] = "1"
				// A store whose merge was refused makes it now, and can hide what was moved from others until it merges that too.
				inState := open(t, p.bot, p.room, opts[1:]...)
				eventually(t, func() bool { return maps.Equal(acknowledged, memoryOf(t, inState)) }, "in the state, in the end")
			}, kinds[following]...)
		})
	}
}

// Without the option a write says why it failed, and reads go on.
func TestNoPowerAndNoFallback(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		require.NoError(t, open(t, p.admin, p.room, layout).Put(ctx, "k", 1))
		handled := false
		open(t, p.bot, p.room, layout).InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
			got, err := roomkv.Get[int](ctx, room, "k")
			require.NoError(t, err)
			assert.Equal(t, 1, got)
			for _, err := range []error{room.Put(ctx, "k", 2), room.Delete(ctx, "k"), roomkv.Update(ctx, room, "k", increment)} {
				require.ErrorIs(t, err, roomkv.ErrForbidden)
				require.ErrorIs(t, err, mautrix.MForbidden)
				assert.ErrorContains(t, err, "power level 50")
				assert.ErrorContains(t, err, "has 0")
			}
			handled = true
		})(ctx, &event.Event{RoomID: p.room})
		assert.True(t, handled)
	})
}

// Up to room version 9 power levels can be strings. Synapse does not take any new ones.
func TestPowerLevelsInStrings(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := powerless{admin: hstest.Client(t), bot: hstest.Client(t)}
		p.room = hstest.Room(t, p.admin, &mautrix.ReqCreateRoom{Preset: "public_chat", RoomVersion: "9"})
		_, err := p.bot.JoinRoomByID(ctx, p.room)
		require.NoError(t, err)
		level := func(level string) error {
			_, err := p.admin.SendStateEvent(ctx, p.room, event.StatePowerLevels, "", map[string]any{
				"users":         map[id.UserID]any{p.admin.UserID: "100", p.bot.UserID: level},
				"events":        map[string]any{"com.example.other": " 7 "},
				"state_default": "50", "redact": "60", "users_default": "0",
			})
			return err
		}
		if err := level("10"); err != nil {
			require.ErrorIs(t, err, mautrix.MBadJSON, "Synapse does not take them, so that there is nothing to read")
			return
		}
		without := open(t, p.bot, p.room, layout)
		err = without.Put(ctx, "k", 1)
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		assert.ErrorContains(t, err, "power level 50")
		assert.ErrorContains(t, err, "has 10")
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "k", 1))
		assert.Equal(t, map[string]string{"k": "account data"}, places(t, store))

		require.NoError(t, level("50"))
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "k", 2))
		assert.Equal(t, map[string]string{"k": "state"}, places(t, store))
		require.NoError(t, open(t, p.admin, p.room, layout).Put(ctx, "k", 3))
		purged, err := without.Purge(ctx, "k")
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		require.NotEmpty(t, purged.Left)
		assert.ErrorContains(t, purged.Left[0].Err, "60 for others', and "+p.bot.UserID.String()+" has 50")
	})
}

// Where the homeserver does not say which power a write takes, its refusal is enough.
func TestPowerLevelsUnknown(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		client := *p.bot.Client
		client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/state/m.room.power_levels") {
				return &http.Response{StatusCode: http.StatusNotFound, Body: readCloser(`{"errcode":"M_NOT_FOUND"}`), Request: req}, nil
			}
			return http.DefaultTransport.RoundTrip(req)
		})
		p.bot.Client = &client
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "k", 1))
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "k", 2), "the power is tried in vain")
		assert.Equal(t, map[string]string{"k": "account data"}, places(t, store))
		assert.Equal(t, map[string]string{"k": "2"}, memoryOf(t, store))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "k", 3))
		assert.Equal(t, map[string]string{"k": "state"}, places(t, store))
	})
}

// The power is never there when a write needs it, and has come back whenever somebody asks.
func TestPowerThatIsAlwaysBackTooLate(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		interrupt(p.bot, func(int) { p.level(t, 0) }, func(int, id.EventID) { p.level(t, 50) })
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "k", 1))
		assert.Equal(t, map[string]string{"k": "account data"}, places(t, store))
		roomkv.PassTime(p.room)
		require.NoError(t, roomkv.Update(ctx, store, "k", increment))
		assert.Equal(t, map[string]string{"k": "2"}, memoryOf(t, store))
	}, "perkey", "single")
}

// Each time that a write goes to account data because it was refused, somebody else is about to move that into the state.
func TestPowerThatIsGoneForEachWrite(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		mover := open(t, twin(t, p.bot), p.room, opts...)
		var group sync.WaitGroup
		refused, moved := false, 0
		client := *p.bot.Client
		client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			at := strings.HasSuffix(req.URL.Path, "/state/"+roomkv.DefaultEventType+"/") || strings.HasSuffix(req.URL.Path, "/k")
			switch {
			case at && req.Method == http.MethodPut:
				p.level(t, 0)
				refused = true
			case at && refused: // the state beneath account data is read
				refused = false
				moved++
				p.level(t, 50)
				roomkv.PassTime(p.room)
				group.Go(func() { assert.NoError(t, mover.Put(ctx, "other", moved)) })
				time.Sleep(20 * time.Millisecond)
			}
			return http.DefaultTransport.RoundTrip(req)
		})
		p.bot.Client = &client
		store := open(t, p.bot, p.room, opts...)
		const times = 4
		for range times {
			require.NoError(t, roomkv.Update(ctx, store, "k", increment))
			group.Wait()
		}
		require.Equal(t, times, moved)
		want := map[string]string{"k": fmt.Sprint(times), "other": fmt.Sprint(times)}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, opts[1:]...)), "which was moved")
	}, "perkey", "single")
}

// A write to the state is on its way while the power goes, others find that out, and the power comes back before it arrives.
func TestStateOnItsWayWhilePowerGoes(t *testing.T) {
	hstest.Parallel(t)
	for _, same := range []bool{true, false} {
		for _, layout := range slices.Sorted(maps.Keys(layouts)) {
			if same && layout != "perkey" {
				continue // there the others wait for it anyway
			}
			t.Run(fmt.Sprint(layout, " same=", same), func(t *testing.T) {
				ctx := t.Context()
				p := newPowerless(t, false)
				p.level(t, 50)
				store := open(t, p.bot, p.room, layouts[layout], roomkv.WithAccountDataFallback())
				other := store
				if !same {
					other = open(t, p.bot, p.room, layouts[layout], roomkv.WithAccountDataFallback())
				}
				require.NoError(t, store.Put(ctx, "count", 0))
				done := make(chan struct{})
				interrupt(p.bot, func(n int) {
					if n > 0 {
						return
					}
					p.level(t, 0)
					go func() {
						defer close(done)
						assert.NoError(t, other.Put(ctx, "elsewhere", 1))
						assert.NoError(t, roomkv.Update(ctx, other, "count", increment))
					}()
					select {
					case <-done:
					case <-time.After(time.Second):
					}
					p.level(t, 50)
				}, nil)
				require.NoError(t, roomkv.Update(ctx, store, "count", increment))
				<-done
				want := map[string]string{"count": "2", "elsewhere": "1"}
				assert.Equal(t, want, memoryOf(t, store))
				roomkv.PassTime(p.room)
				require.NoError(t, store.Delete(ctx, "nothing"))
				assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, layouts[layout])), "in the state, in the end")
			})
		}
	}
}

// Who waits for a write that is on its way to the state waits no longer than its context.
func TestStateOnItsWayForever(t *testing.T) {
	hstest.Parallel(t)
	p := newPowerless(t, false)
	p.level(t, 50)
	store := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback())
	sent, stop := make(chan struct{}), make(chan struct{})
	interrupt(p.bot, func(n int) {
		if n == 0 {
			close(sent)
			<-stop
		}
	}, nil)
	done := make(chan error)
	go func() { done <- store.Put(t.Context(), "slow", 1) }()
	<-sent
	p.level(t, 0)
	ctx, cancel := context.WithTimeout(t.Context(), time.Second)
	defer cancel()
	require.ErrorIs(t, store.Put(ctx, "k", 1), context.DeadlineExceeded)
	close(stop)
	require.NoError(t, <-done)
	require.NoError(t, store.Put(t.Context(), "k", 1))
	assert.Equal(t, map[string]string{"slow": "account data", "k": "account data"}, places(t, store))
}
