package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
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

// powerless is a room of an admin's that a bot has joined, with power level 0.
type powerless struct {
	admin, bot *mautrix.Client
	room       id.RoomID
}

func newPowerless(t testing.TB, encrypted bool) powerless {
	t.Helper()
	p := powerless{admin: hstest.Client(t), bot: hstest.Client(t)}
	if encrypted {
		hstest.Crypto(t, p.bot)
		p.room = hstest.EncryptedRoom(t, p.admin, p.bot.UserID)
	} else {
		p.room = hstest.Room(t, p.admin, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{p.bot.UserID}})
	}
	_, err := p.bot.JoinRoomByID(t.Context(), p.room)
	require.NoError(t, err)
	return p
}

// level gives the bot a power level.
func (p powerless) level(t testing.TB, level int) {
	t.Helper()
	var levels event.PowerLevelsEventContent
	require.NoError(t, p.admin.StateEvent(t.Context(), p.room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(p.bot.UserID, level)
	_, err := p.admin.SendStateEvent(t.Context(), p.room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
}

// data is what the bot's account data has for the room, for a store with those options.
func (p powerless) data(t testing.TB, opts ...roomkv.Option) (names map[string]json.RawMessage) {
	t.Helper()
	err := p.bot.GetRoomAccountData(t.Context(), p.room, roomkv.AccountType(open(t, p.bot, p.room, opts...)), &names)
	if err != nil {
		require.ErrorIs(t, err, mautrix.MNotFound)
	}
	return names
}

var accountKinds = map[string][]roomkv.Option{
	"single":           nil,
	"perkey":           {roomkv.WithPerKeyState()},
	"encrypted single": {roomkv.WithSealedKeys([]byte("0123456789abcdef"))},
	"encrypted perkey": {roomkv.WithPerKeyState()},
	"sealed perkey":    {roomkv.WithPerKeyState(), roomkv.WithSealedKeys([]byte("0123456789abcdef"))},
}

// eachAccountKind tests the kinds of those names, or all.
func eachAccountKind(t *testing.T, test func(t *testing.T, p powerless, opts []roomkv.Option), names ...string) {
	if len(names) == 0 {
		names = slices.Sorted(maps.Keys(accountKinds))
	}
	for _, name := range names {
		opts := accountKinds[name]
		t.Run(name, func(t *testing.T) {
			encrypted := strings.Contains(name, "encrypted") || strings.Contains(name, "sealed")
			test(t, newPowerless(t, encrypted), append([]roomkv.Option{roomkv.WithAccountDataFallback()}, opts...))
		})
	}
}

// places is where each key is.
func places(t testing.TB, store *roomkv.Store) map[string]string {
	t.Helper()
	all := map[string]string{}
	for entry, err := range store.All(t.Context()) {
		require.NoError(t, err)
		all[entry.Key] = entry.Place.String()
	}
	return all
}

func TestEverythingWorksInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "a", 0.5))
		require.NoError(t, store.PutAll(ctx, map[string]any{"b": "two", "c": 3, "": nil, "roomkv.x": true}))
		require.NoError(t, store.Create(ctx, "n", 1))
		require.ErrorIs(t, store.Create(ctx, "n", 2), roomkv.ErrExists)
		require.NoError(t, roomkv.Update(ctx, store, "n", increment))
		entry, err := store.Entry(ctx, "n")
		require.NoError(t, err)
		assert.Equal(t, roomkv.InAccountData, entry.Place)
		assert.Equal(t, "account data", entry.Place.String())
		assert.Equal(t, p.bot.UserID, entry.Sender)
		assert.WithinDuration(t, time.Now(), entry.Time, time.Minute)
		require.NoError(t, store.Put(ctx, "a", 0.75))
		require.NoError(t, store.CompareAndPut(ctx, "n", 7, entry.Revision), "other keys do not matter")
		require.ErrorIs(t, store.CompareAndPut(ctx, "n", 8, entry.Revision), roomkv.ErrConflict)
		var c int
		require.NoError(t, store.Pop(ctx, "c", &c))
		assert.Equal(t, 3, c)
		require.ErrorIs(t, store.Pop(ctx, "c", &c), roomkv.ErrNotFound)
		require.NoError(t, store.Delete(ctx, "b", "never"))
		keys, err := store.Keys(ctx)
		require.NoError(t, err)
		assert.Equal(t, []string{"", "a", "n", "roomkv.x"}, keys)
		want := map[string]string{"": "null", "a": "0.75", "n": "7", "roomkv.x": "true"}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Empty(t, memoryState(t, p.admin, p.room))
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Get(ctx, "n", &c))
		assert.Equal(t, 7, c)
		assert.Equal(t, want, memoryOf(t, store), "a new process reads it")

		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "a", 1))
		want["a"] = "1"
		assert.Equal(t, want, memoryOf(t, store))
		for key, place := range places(t, store) {
			assert.Equal(t, "state", place, key)
		}
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		assert.Equal(t, want, memoryOf(t, store), "whose account data has not been emptied")
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)), "the state has it all")
		roomkv.PassTime(p.room)
		require.NoError(t, store.Delete(ctx, "n"))
		assert.Empty(t, p.data(t, opts...))
		delete(want, "n")
		assert.Equal(t, want, memoryOf(t, store))

		p.level(t, 0)
		require.NoError(t, store.Put(ctx, "a", 2))
		require.NoError(t, store.Delete(ctx, ""))
		require.NoError(t, store.Put(ctx, "n", 9))
		delete(want, "")
		want["a"], want["n"] = "2", "9"
		assert.Equal(t, want, memoryOf(t, store), "what is in account data hides what the state has")
		assert.Equal(t, map[string]string{"a": "account data", "n": "account data", "roomkv.x": "state"}, places(t, store))
		require.ErrorIs(t, store.Get(ctx, "", new(any)), roomkv.ErrNotFound)
		p.level(t, 50)
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "n", 10))
		want["n"] = "10"
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
	})
}

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
				store := open(t, p.bot, hub, opts...)
				var moment sync.RWMutex
				use, next := through(p.bot)
				use(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/state/") {
						moment.RLock()
						defer moment.RUnlock()
					}
					return next.RoundTrip(req)
				})
				if following {
					require.NoError(t, store.Follow())
				}
				syncing(t, p.bot)
				stop := make(chan struct{})
				var group sync.WaitGroup
				var mu sync.Mutex
				acknowledged, updates := map[string]string{}, 0
				for writer := range 4 {
					handler := store.InEventRoom(func(ctx context.Context, _ *event.Event, room *roomkv.Store) {
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

				room, err := store.WithRoom(ctx, p.room)
				require.NoError(t, err)
				assert.Equal(t, acknowledged, memoryOf(t, room))
				roomkv.ForgetAccounts(p.room)
				fresh := open(t, p.bot, p.room, opts...)
				assert.Equal(t, acknowledged, memoryOf(t, fresh), "in a new process")
				p.level(t, 50)
				roomkv.PassTime(p.room)
				require.NoError(t, fresh.Put(ctx, "last", 1))
				acknowledged["last"] = "1"
				assert.Equal(t, acknowledged, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)), "in the state, in the end")
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

// A move waits for a write to account data that has read the state beneath that.
func TestMoveWaitsForAccountData(t *testing.T) {
	hstest.Parallel(t)
	for _, fails := range []bool{false, true} {
		t.Run(fmt.Sprint("fails=", fails), func(t *testing.T) { testMoveWaitsForAccountData(t, fails) })
	}
}

func testMoveWaitsForAccountData(t *testing.T, fails bool) {
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.PutAll(ctx, map[string]any{"count": 0, "more": 0}))
		slow := twin(t, p.bot)
		other := open(t, slow, p.room, opts...)
		require.NoError(t, other.Put(ctx, "more", 1))

		reads, goOn := make(chan struct{}), make(chan struct{})
		var once sync.Once
		use, next := through(slow)
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType) {
				once.Do(func() {
					close(reads)
					<-goOn
				})
			}
			return resp, err
		})
		updated := make(chan error)
		go func() { updated <- roomkv.Update(ctx, other, "count", increment) }()
		<-reads
		p.level(t, 50)
		roomkv.PassTime(p.room)
		var first atomic.Bool
		use, mover := through(p.bot)
		use(func(req *http.Request) (*http.Response, error) {
			resp, err := mover.RoundTrip(req)
			count := strings.HasSuffix(req.URL.Path, "/") || strings.HasSuffix(req.URL.Path, "/count")
			if fails && req.Method == http.MethodPut && count && first.CompareAndSwap(false, true) { // and yet the homeserver has it
				return &http.Response{StatusCode: http.StatusInternalServerError, Body: readCloser(`{"errcode":"M_UNKNOWN"}`), Request: req}, nil
			}
			return resp, err
		})
		moved := make(chan error)
		go func() { moved <- store.Put(mautrix.WithMaxRetries(ctx, 0), "more", 2) }()
		time.Sleep(50 * time.Millisecond)
		close(goOn)
		require.NoError(t, <-updated)
		if err := <-moved; fails {
			require.Error(t, err)
			require.NoError(t, store.Put(ctx, "more", 2))
		} else {
			require.NoError(t, err)
		}
		want := map[string]string{"count": "1", "more": "2"}
		assert.Equal(t, want, memoryOf(t, store))
		assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, opts[1:]...)))
	}, "perkey", "single")
}

func TestAccountDataOverState(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		admin := open(t, p.admin, p.room, layout)
		require.NoError(t, admin.PutAll(ctx, map[string]any{"k": 1, "deleted": 1, "put": 1}))
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "k", 2))
		require.NoError(t, store.Delete(ctx, "deleted", "never"))
		assert.Equal(t, map[string]string{"k": "2", "put": "1"}, memoryOf(t, store))
		require.ErrorIs(t, store.Get(ctx, "deleted", new(int)), roomkv.ErrNotFound)
		require.NoError(t, store.Create(ctx, "deleted", 2), "it is not there")
		require.NoError(t, store.Delete(ctx, "deleted"))
		assert.Equal(t, map[string]string{"k": "1", "deleted": "1", "put": "1"}, memoryOf(t, admin), "nobody else sees it")

		require.NoError(t, admin.Put(ctx, "k", 3))
		assert.Equal(t, map[string]string{"k": "3", "put": "1"}, memoryOf(t, store), "the later change counts")
		require.NoError(t, roomkv.Update(ctx, store, "k", increment))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "other", 1))
		want := map[string]string{"k": "4", "put": "1", "other": "1"}
		assert.Equal(t, want, memoryOf(t, admin))
		assert.Equal(t, want, memoryOf(t, store))
	})
}

// A move that is cut off after the state was written is not made again, whatever others have written since.
func TestCutOffMoveIsNotMadeTwice(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		admin := open(t, p.admin, p.room, opts[1:]...)
		require.NoError(t, admin.PutAll(ctx, map[string]any{"old": 1, "back": 1}))
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.PutAll(ctx, map[string]any{"new": 1, "old": 2}))
		require.NoError(t, store.Delete(ctx, "back"))
		p.level(t, 50)
		roomkv.PassTime(p.room)
		use, next := through(p.bot)
		use(func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/account_data/") {
				return nil, errors.New("the process is killed")
			}
			return next.RoundTrip(req)
		})
		require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "other", 1))
		use(next.RoundTrip)
		require.NotEmpty(t, p.data(t, opts...))
		want := map[string]string{"old": "2", "new": "1"}
		assert.Equal(t, want, memoryOf(t, store), "it is in the state")
		require.NoError(t, admin.PutAll(ctx, map[string]any{"new": 3, "old": 3, "back": 3}))
		want = map[string]string{"new": "3", "old": "3", "back": "3"}
		for range 2 {
			roomkv.ForgetAccounts(p.room)
			store = open(t, p.bot, p.room, opts...)
			assert.Equal(t, want, memoryOf(t, store))
			require.NoError(t, store.Put(ctx, "other", 2))
			want["other"] = "2"
			assert.Equal(t, want, memoryOf(t, store))
		}
		assert.Empty(t, p.data(t, opts...))
	}, "perkey", "single") // the admin has no crypto
}

// What fails on the way is made up for by the next write.
func TestMoveThatFails(t *testing.T) {
	hstest.Parallel(t)
	for _, layout := range []string{"single", "perkey"} {
		t.Run(layout, func(t *testing.T) {
			ctx := t.Context()
			p := newPowerless(t, false)
			store := open(t, p.bot, p.room, layouts[layout], roomkv.WithAccountDataFallback())
			require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3}))
			p.level(t, 50)
			roomkv.PassTime(p.room)
			var puts atomic.Int64
			fails := func(when int64, path string) {
				puts.Store(0)
				inner := http.DefaultTransport
				client := *p.bot.Client
				client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPut && strings.Contains(req.URL.Path, path) {
						if puts.Add(1) == when {
							return &http.Response{StatusCode: http.StatusInternalServerError, Body: readCloser(`{"errcode":"M_UNKNOWN"}`), Request: req}, nil
						}
					}
					return inner.RoundTrip(req)
				})
				p.bot.Client = &client
			}
			fails(map[string]int64{"single": 1, "perkey": 2}[layout], "/state/")
			require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "d", 4))
			want := map[string]string{"a": "1", "b": "2", "c": "3"}
			assert.Equal(t, want, memoryOf(t, store))
			fails(1, "/account_data/")
			require.Error(t, store.Put(mautrix.WithMaxRetries(ctx, 0), "d", 4))
			assert.Equal(t, want, memoryOf(t, store))
			require.NoError(t, store.Put(ctx, "d", 5))
			assert.Empty(t, p.data(t, layouts[layout]))
			want["d"] = "5"
			assert.Equal(t, want, memoryOf(t, open(t, p.admin, p.room, layouts[layout])))
		})
	}
}

func TestStoresOfOneProcessShareAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		p := newPowerless(t, false)
		const each = 20
		var group sync.WaitGroup
		for range 3 {
			store := open(t, twin(t, p.bot), p.room, layout, roomkv.WithAccountDataFallback())
			for i := range each {
				group.Go(func() {
					assert.NoError(t, store.Put(t.Context(), fmt.Sprintf("%p %d", store, i), i))
					assert.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
				})
			}
		}
		group.Wait()
		store := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		memory := memoryOf(t, store)
		assert.Len(t, memory, 3*each+1)
		assert.Equal(t, fmt.Sprint(3*each), memory["count"])
	})
}

func TestAccountDataRequests(t *testing.T) { // alone: a busy machine makes a store ask more often
	for _, c := range []struct {
		layout                            string
		following                         bool
		get, put, update, full, fullTwice int
	}{
		{"single", false, 1, 2, 2, 1, 2},
		{"single", true, 0, 2, 2, 0, 1},
		{"perkey", false, 1, 2, 2, 1, 1},
		{"perkey", true, 1, 2, 2, 0, 1},
	} {
		t.Run(fmt.Sprint(c.layout, c.following), func(t *testing.T) {
			ctx := t.Context()
			p := newPowerless(t, false)
			recorder := hstest.Record(p.bot)
			store := open(t, p.bot, p.room, layouts[c.layout], roomkv.WithAccountDataFallback())
			if c.following {
				require.NoError(t, store.Follow())
				syncing(t, p.bot)
			}
			require.NoError(t, store.Put(ctx, "k", 1))
			get := func() error { return store.Get(ctx, "k", new(int)) }
			if c.following {
				eventually(t, func() bool {
					return slices.ContainsFunc(recorder.Requests(), func(r hstest.Request) bool {
						return strings.HasSuffix(r.Path, "/sync") && strings.Contains(string(r.Response), "roomkv.account")
					})
				}, "the sync has told of all there is")
				require.NoError(t, get())
				for before := -1; before != requests(recorder); time.Sleep(300 * time.Millisecond) {
					before = requests(recorder) // of the follower, who has heard of power levels
				}
			}
			count := func(what string, want int, do func() error) {
				recorder.Reset()
				require.NoError(t, do(), what)
				var made []string
				for _, r := range recorder.Requests() {
					made = append(made, r.Method+" "+r.Path)
				}
				n := counted(recorder)
				if c.following {
					n = requests(recorder)
				}
				assert.Equal(t, want, n, "%s: %q", what, made)
			}
			count("get", c.get, get)
			count("put", c.put, func() error { return store.Put(ctx, "k", 2) })
			count("update", c.update, func() error { return roomkv.Update(ctx, store, "k", increment) })
			count("the same value", c.put-1, func() error { return store.Put(ctx, "k", 3) })
			if !c.following { // else it has been moved by then
				p.level(t, 50)
				roomkv.PassTime(p.room)
				require.NoError(t, store.Put(ctx, "k", 4))
				require.NoError(t, get())
				count("get, in the state", c.full, get)
				count("put, in the state", c.fullTwice, func() error { return store.Put(ctx, "k", 5) })
			}
		})
	}
}

func TestFollowerMovesWithoutAWrite(t *testing.T) {
	hstest.Parallel(t)
	p := newPowerless(t, false)
	store, _ := follow(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	require.NoError(t, store.Put(t.Context(), "k", 1))
	p.level(t, 50)
	other := open(t, p.admin, p.room)
	eventually(t, func() bool { return other.Get(t.Context(), "k", new(int)) == nil }, "moved")
	eventually(t, func() bool { return places(t, store)["k"] == "state" }, "where it stays")
}

func TestWatchAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		require.NoError(t, open(t, p.admin, p.room, layout).PutAll(ctx, map[string]any{"state": 1, "both": 1}))
		store, _ := follow(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Put(ctx, "before", 1))
		told := make(chan roomkv.Change, 100)
		go func() {
			for change, err := range store.Watch(ctx) {
				if err != nil {
					return
				}
				told <- change
			}
		}()
		next := func() string {
			select {
			case change := <-told:
				return fmt.Sprintf("%s %s→%s %s", change.Key, change.Old, change.New, change.Place)
			case <-time.After(5 * time.Second):
				return "nothing"
			}
		}
		// The watch begins at some moment: probe until it tells.
		eventually(t, func() bool {
			require.NoError(t, store.Put(ctx, "probe", time.Now().UnixNano()))
			return len(told) > 0
		}, "the watch begins")
		time.Sleep(50 * time.Millisecond)
		for len(told) > 0 {
			<-told
		}
		require.NoError(t, store.Put(ctx, "both", 2))
		assert.Equal(t, "both 1→2 account data", next())
		require.NoError(t, store.Put(ctx, "before", 2))
		assert.Equal(t, "before 1→2 account data", next())
		require.NoError(t, store.Delete(ctx, "state", "probe"))
		next()
		assert.Equal(t, "state 1→ account data", next())
		p.level(t, 50) // the move changes nothing
		eventually(t, func() bool { return places(t, store)["both"] == "state" }, "moved")
		require.NoError(t, store.Put(ctx, "both", 3))
		assert.Equal(t, "both 2→3 state", next())
	})
}

func TestAccountDataTooLarge(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	some := func(prefix string, n int) map[string]any {
		values := map[string]any{}
		for i := range n {
			values[fmt.Sprint(prefix, i)] = strings.Repeat("x", 200)
		}
		return values
	}
	store := open(t, p.bot, p.room, roomkv.WithAccountDataFallback())
	large := strings.Repeat("y", 45_000)
	require.NoError(t, store.PutAll(ctx, some("a", 120)))
	require.NoError(t, store.Put(ctx, "large", large), "it goes to the media repository")
	got, err := roomkv.Get[string](ctx, store, "large")
	require.NoError(t, err)
	assert.Equal(t, large, got)
	err = store.PutAll(ctx, some("b", 200))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	assert.NotContains(t, err.Error(), "xxx")
	require.NoError(t, store.Put(ctx, "a0", 1))
	// The state gets so full that it does not fit there; it stays where it is, and goes on.
	require.NoError(t, open(t, p.admin, p.room).PutAll(ctx, some("c", 200)))
	p.level(t, 50)
	roomkv.PassTime(p.room)
	require.NoError(t, store.Put(ctx, "a0", 2))
	assert.Len(t, memoryOf(t, store), 1+120+200)
	where := places(t, store)
	assert.Equal(t, "account data state", where["a0"]+" "+where["c0"])
}

func TestNotJoinedFallsBackToNothing(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	store := open(t, hstest.Client(t), p.room, roomkv.WithAccountDataFallback())
	require.ErrorIs(t, store.Put(ctx, "k", 1), roomkv.ErrNotJoined)
	require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotJoined)
}

func TestEncryptedAccountData(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	hstest.Crypto(t, p.bot)
	syncing(t, p.bot)
	fallback := roomkv.WithAccountDataFallback()
	store := open(t, p.bot, p.room, fallback, roomkv.WithRedaction())
	require.NoError(t, store.Put(ctx, "clear", "the clear value"))
	_, err := p.admin.SendStateEvent(ctx, p.room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
	require.NoError(t, err)
	require.NoError(t, store.Put(ctx, "k", "the first value"))
	entry, err := store.Entry(ctx, "k")
	require.NoError(t, err)
	assert.True(t, entry.Encrypted)
	require.NoError(t, store.Put(ctx, "k", "the second value"))
	assert.NotContains(t, string(p.data(t)["k"]), "value")
	changed, err := store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	assert.NotContains(t, string(p.data(t)["clear"]), "value")
	eventually(t, func() bool {
		left := 0
		for _, redacted := range encryptedEvents(t, p.bot, p.room) {
			if !redacted {
				left++
			}
		}
		return left == 2
	}, "the overwritten one is redacted")
	want := map[string]string{"clear": `"the clear value"`, "k": `"the second value"`}
	assert.Equal(t, want, memoryOf(t, store))
	p.level(t, 50)
	roomkv.PassTime(p.room)
	require.NoError(t, store.Delete(ctx, "nothing"))
	assert.Empty(t, clearNames(t, p.bot, p.room))
	assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room)))
}

// Copy and Import take what reads see, from account data and into it.
func TestCopyAndImportInAccountData(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		store := open(t, p.bot, p.room, opts...)
		p.level(t, 50)
		require.NoError(t, store.PutAll(ctx, map[string]any{"stale": 1, "deleted": 1, "state": 1}))
		p.level(t, 0)
		require.NoError(t, store.PutAll(ctx, map[string]any{"stale": 2, "away": 3}))
		require.NoError(t, store.Delete(ctx, "deleted"))
		want := map[string]string{"stale": "2", "state": "1", "away": "3"}
		require.Equal(t, want, memoryOf(t, store))
		require.Equal(t, "account data state", places(t, store)["stale"]+" "+places(t, store)["state"])
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)

		there := open(t, p.bot, hstest.Room(t, p.bot))
		copied, err := roomkv.Copy(ctx, there, store, roomkv.CopyRedactSource())
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		assert.ErrorContains(t, err, "power level 50")
		assert.Equal(t, roomkv.Copied{Total: 3, Written: 3}, copied)
		assert.Equal(t, want, memoryOf(t, there))
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts...)), "nothing was redacted")
		copied, err = roomkv.Copy(ctx, there, store)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 3, Equal: 3}, copied)

		require.NoError(t, there.PutAll(ctx, map[string]any{"new": 4, "deleted": 5, "away": "other"}))
		copied, err = roomkv.Copy(ctx, store, there)
		require.ErrorIs(t, err, roomkv.ErrExists)
		assert.ErrorContains(t, err, `"away"`)
		assert.Equal(t, roomkv.Copied{Total: 5, Written: 2, Equal: 2, Kept: 1}, copied)
		copied, err = roomkv.Copy(ctx, store, there, roomkv.CopyOverwrite())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 5, Written: 1, Equal: 4}, copied)
		recorder := hstest.Record(p.bot)
		copied, err = roomkv.Copy(ctx, store, there)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 5, Equal: 5}, copied)
		assert.Zero(t, writes(recorder), "a second one writes nothing")
		sameMemory(t, memoryOf(t, there), store)
		assert.Equal(t, "account data", places(t, store)["new"])

		require.NoError(t, there.PutAll(ctx, various(10))) // more than are read one by one
		require.NoError(t, there.Delete(ctx, "state", "new"))
		var file bytes.Buffer
		_, err = there.Export(ctx, &file)
		require.NoError(t, err)
		want = memoryOf(t, there)
		imported, err := store.Import(ctx, bytes.NewReader(file.Bytes()), roomkv.ImportReplace())
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: len(want), Written: len(want) - 3, Equal: 3, Removed: 2}, imported)
		imported, err = store.Import(ctx, bytes.NewReader(file.Bytes()))
		require.NoError(t, err)
		assert.Equal(t, roomkv.Imported{Total: len(want), Equal: len(want)}, imported)
		sameMemory(t, want, store)
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		sameMemory(t, want, store)

		// What it can move into the state is redacted there.
		p.level(t, 50)
		roomkv.PassTime(p.room)
		copied, err = roomkv.Copy(ctx, there, store, roomkv.CopyRedactSource())
		require.NoError(t, err)
		assert.Positive(t, copied.Redacted)
		assert.Empty(t, p.data(t, opts...))
		eventually(t, func() bool { return len(memoryOf(t, open(t, p.bot, p.room, opts...))) == 0 }, "the source was redacted")
		sameMemory(t, want, there)
	})
}

// What a copy to account data reports as written is there, whatever this process believes.
func TestCopyToAccountDataReadsBack(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		p := newPowerless(t, false)
		src := open(t, p.bot, hstest.Room(t, p.bot))
		require.NoError(t, src.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
		dst := open(t, p.bot, p.room, layout, roomkv.WithAccountDataFallback())
		broken := func(req *http.Request) (*http.Response, error) {
			if req.Method == http.MethodPut && strings.Contains(req.URL.Path, "/account_data/") {
				return &http.Response{StatusCode: http.StatusOK, Body: readCloser(`{}`), Request: req}, nil
			}
			return http.DefaultTransport.RoundTrip(req)
		}
		breaker := breakable(p.bot)
		breaker.broken.Store(&broken)
		copied, err := roomkv.Copy(ctx, dst, src)
		require.ErrorIs(t, err, roomkv.ErrConflict)
		assert.Equal(t, roomkv.Copied{Total: 2}, copied)
		breaker.broken.Store(nil)
		copied, err = roomkv.Copy(ctx, dst, src)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 2, Written: 2}, copied)
	})
}

// The state beneath account data can have the dict that is copied to, which is no key of the source's.
func TestCopyFromAccountDataOverADict(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	src := open(t, p.bot, p.room, roomkv.WithPerKeyState(), roomkv.WithAccountDataFallback())
	require.NoError(t, src.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	dst := open(t, p.admin, p.room, roomkv.WithSingleStateKey("dict"))
	copied, err := roomkv.Copy(ctx, dst, src)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Written: 2}, copied)
	copied, err = roomkv.Copy(ctx, dst, src)
	require.NoError(t, err)
	assert.Equal(t, roomkv.Copied{Total: 2, Equal: 2}, copied)
}

// Account data has no history, and so nothing in it is undone.
func TestRestoreLeavesAccountDataAlone(t *testing.T) {
	hstest.Parallel(t)
	eachAccountKind(t, func(t *testing.T, p powerless, opts []roomkv.Option) {
		ctx := t.Context()
		p.level(t, 50)
		store := open(t, p.bot, p.room, opts...)
		require.NoError(t, store.Put(ctx, "a", 1))
		entry, err := store.Entry(ctx, "a")
		require.NoError(t, err)
		before, err := store.At(ctx, roomkv.AtRevision(entry.Revision))
		require.NoError(t, err)
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 2, "b": 2}))
		refused := func(snapshot *roomkv.Snapshot, what string) {
			t.Helper()
			memory := memoryOf(t, store)
			changed, err := store.Restore(ctx, snapshot)
			require.ErrorIs(t, err, roomkv.ErrForbidden, what)
			assert.ErrorContains(t, err, "power level 50")
			assert.Zero(t, changed)
			assert.Equal(t, memory, memoryOf(t, store))
		}
		p.level(t, 0)
		refused(before, "where the store does not know yet that it has lost the power")
		assert.Empty(t, p.data(t, opts...))
		require.NoError(t, store.PutAll(ctx, map[string]any{"b": 3, "c": 3}))
		refused(before, "from before")
		now, err := store.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
		require.NoError(t, err)
		refused(now, "from now")
		roomkv.ForgetAccounts(p.room)
		store = open(t, p.bot, p.room, opts...)
		refused(now, "in a new process")

		p.level(t, 50)
		roomkv.PassTime(p.room)
		require.NoError(t, store.Put(ctx, "d", 4))
		entry, err = store.Entry(ctx, "d")
		require.NoError(t, err)
		changed, err := store.Restore(ctx, before)
		require.NoError(t, err)
		assert.Equal(t, 4, changed)
		assert.Equal(t, map[string]string{"a": "1"}, memoryOf(t, store))
		moved, err := store.At(ctx, roomkv.AtRevision(entry.Revision))
		require.NoError(t, err)
		_, err = store.Restore(ctx, moved)
		require.NoError(t, err)
		want := map[string]string{"a": "2", "b": "3", "c": "3", "d": "4"}
		assert.Equal(t, want, memoryOf(t, store), "what has moved has a history")
		roomkv.PassTime(p.room)
		require.NoError(t, store.Delete(ctx, "nothing"))
		assert.Equal(t, want, memoryOf(t, open(t, p.bot, p.room, opts[1:]...)))
	})
}

// A panic in the function of an Update ends nothing but that Update.
func TestPanicBesideAccountData(t *testing.T) {
	hstest.Parallel(t)
	for name, perKey := range map[string]bool{"single": false, "per key": true} {
		t.Run(name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			defer cancel()
			p := newPowerless(t, false)
			p.level(t, 50)
			opts := []roomkv.Option{roomkv.WithAccountDataFallback()}
			if perKey {
				opts = append(opts, roomkv.WithPerKeyState())
			}
			store := open(t, p.bot, p.room, opts...)
			require.NoError(t, store.Put(ctx, "key", 1))
			assert.Panics(t, func() {
				_ = roomkv.Update(ctx, store, "key", func(int, bool) (int, error) { panic("in a handler") })
			})
			p.level(t, 0)
			require.NoError(t, store.Put(ctx, "key", 2))
			got, err := roomkv.Get[int](ctx, store, "key")
			require.NoError(t, err)
			assert.Equal(t, 2, got)
		})
	}
}

// What the user has written to account data after the power went counts more than what the user had sent to the state before, also where the
// homeserver leaves that out of the state in between.
func TestAccountDataOverWhatWasLeftOut(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	p := newPowerless(t, false)
	p.level(t, 50)
	store := open(t, p.bot, p.room, roomkv.WithAccountDataFallback(), roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "a", 1))
	require.NoError(t, roomkv.Update(ctx, store, "a", func(n int, _ bool) (int, error) { return n + 1, nil }))
	p.level(t, 0)
	var back atomic.Bool
	use, next := through(p.bot)
	use(func(req *http.Request) (*http.Response, error) {
		isState := strings.Contains(req.URL.Path, "/state/"+roomkv.DefaultEventType)
		if isState && req.Method == http.MethodGet && !back.Load() {
			return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
				Body: io.NopCloser(strings.NewReader(`{"errcode":"M_NOT_FOUND","error":"it is not in the state"}`))}, nil
		}
		resp, err := next.RoundTrip(req)
		if err == nil && isState && req.Method == http.MethodPut && resp.StatusCode == http.StatusOK {
			back.Store(true)
		}
		return resp, err
	})
	require.NoError(t, store.Put(ctx, "a", 100))
	require.NoError(t, store.Put(ctx, "a", 101))
	got, err := roomkv.Get[int](ctx, store, "a")
	require.NoError(t, err)
	assert.Equal(t, 101, got)
	p.level(t, 50)
	roomkv.PassTime(p.room, store)
	require.NoError(t, store.Put(ctx, "b", 1))
	got, err = roomkv.Get[int](ctx, store, "a")
	require.NoError(t, err)
	assert.Equal(t, 101, got)
}
