package roomkv_test

import (
	"context"
	"math"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

// expiring is a room on a homeserver in memory, in virtual time.
type expiring struct {
	server *fakehs.Server
	admin  *mautrix.Client
	room   id.RoomID
}

func newExpiring(t *testing.T) expiring {
	s := fakehs.New(fakehs.Options{Mode: fakehs.Modes[0], Seed: 1, Name: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))})
	admin, err := s.Register(t.Context(), "admin")
	require.NoError(t, err)
	return expiring{s, admin, administeredBy(t, admin, false)}
}

func eachExpiring(t *testing.T, f func(t *testing.T, r expiring, layout roomkv.Option, single bool)) {
	for _, name := range []string{"single", "perkey"} {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { f(t, newExpiring(t), layouts[name], name == "single") })
		})
	}
}

// What has expired and is still in the state is purged too.
func TestPurgeOfWhatHasExpired(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		s := open(t, r.admin, r.room, layout)
		require.NoError(t, s.Put(t.Context(), "k", "topsecret", roomkv.ExpireAfter(10*time.Second)))
		require.NoError(t, s.Put(t.Context(), "other", 1))
		time.Sleep(20 * time.Second)
		_, err := s.Purge(t.Context(), "k")
		assert.NoError(t, err)
		assert.NotContains(t, string(everything(t, r.admin, r.room)), "topsecret")
	})
}

// Delete takes what has expired out of the state.
func TestDeleteOfWhatHasExpired(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		s := open(t, r.admin, r.room, layout)
		require.NoError(t, s.Put(t.Context(), "k", "topsecret", roomkv.ExpireAfter(10*time.Second)))
		time.Sleep(20 * time.Second)
		require.NoError(t, s.Delete(t.Context(), "k"))
		assert.NotContains(t, allState(t, r.admin, r.room), "topsecret")
	})
}

// A source with values that expire, or have expired, is redacted as a whole.
func TestCopyRedactSourceOfWhatExpires(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		src := open(t, r.admin, r.room, layout)
		dst := open(t, r.admin, r.room, layout, roomkv.WithEventType("com.example.dst"))
		require.NoError(t, src.Put(t.Context(), "k", "v", roomkv.ExpireAfter(time.Hour)))
		require.NoError(t, src.Put(t.Context(), "gone", "expiredsecret", roomkv.ExpireAfter(time.Second)))
		time.Sleep(5 * time.Second)
		_, err := roomkv.Copy(t.Context(), dst, src, roomkv.CopyRedactSource())
		assert.NoError(t, err)
		assert.NotContains(t, allState(t, r.admin, r.room), "expiredsecret")
	})
}

func TestCopyRedactSourceToASub(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		src := open(t, r.admin, r.room, layout)
		dst := open(t, r.admin, r.room, layout, roomkv.WithEventType("com.example.dst")).Sub("x/")
		require.NoError(t, src.Put(t.Context(), "k", "v"))
		_, err := roomkv.Copy(t.Context(), dst, src, roomkv.CopyRedactSource())
		assert.NoError(t, err)
	})
}

func giveLevel(t *testing.T, r expiring, user id.UserID, level int) {
	var levels event.PowerLevelsEventContent
	require.NoError(t, r.admin.StateEvent(t.Context(), r.room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(user, level)
	_, err := r.admin.SendStateEvent(t.Context(), r.room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
}

func powerlessBot(t *testing.T, r *expiring) *mautrix.Client {
	bot, err := r.server.Register(t.Context(), "bot")
	require.NoError(t, err)
	r.room = administeredBy(t, r.admin, false, bot)
	giveLevel(t, *r, bot.UserID, 0)
	return bot
}

// What lies in account data over an expired value moves into the state when power comes.
func TestAccountDataMovesOverWhatHasExpired(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		bot := powerlessBot(t, &r)
		admin := open(t, r.admin, r.room, layout)
		require.NoError(t, admin.Put(t.Context(), "k", "admins", roomkv.ExpireAfter(time.Minute)))
		s := open(t, bot, r.room, layout, roomkv.WithAccountDataFallback())
		require.NoError(t, s.Put(t.Context(), "k", "mine"))
		time.Sleep(2 * time.Minute)
		giveLevel(t, r, bot.UserID, 100)
		time.Sleep(time.Hour)
		require.NoError(t, s.Put(t.Context(), "other", "x"))
		got, err := roomkv.Get[string](t.Context(), s, "k")
		assert.NoError(t, err)
		assert.Equal(t, "mine", got)
	})
}

// What lies in account data over an expired value still counts when that was removed, moves into the state when power comes, and is no longer there
// when the state has another value.
func TestAccountDataOverWhatWasSwept(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		bot := powerlessBot(t, &r)
		admin := open(t, r.admin, r.room, layout)
		require.NoError(t, admin.PutAll(t.Context(), map[string]any{"k": "admins", "later": "admins"}, roomkv.ExpireAfter(time.Minute)))
		fallback := func() *roomkv.Store { return open(t, bot, r.room, layout, roomkv.WithAccountDataFallback()) }
		s := fallback()
		require.NoError(t, s.PutAll(t.Context(), map[string]any{"k": "mine", "later": "mine"}))
		want := map[string]string{"k": `"mine"`, "later": `"mine"`}
		assert.Equal(t, want, memoryOf(t, s))
		time.Sleep(2 * time.Minute)
		assert.Equal(t, want, memoryOf(t, s))
		require.NoError(t, admin.Sweep(t.Context()))
		for _, s := range []*roomkv.Store{s, fallback()} {
			assert.Equal(t, want, memoryOf(t, s))
			got, err := roomkv.Get[string](t.Context(), s, "k")
			require.NoError(t, err)
			assert.Equal(t, "mine", got)
		}
		require.NoError(t, admin.Put(t.Context(), "later", "newer"))
		want["later"] = `"newer"`
		s = fallback()
		assert.Equal(t, want, memoryOf(t, s))
		require.NoError(t, s.Put(t.Context(), "other", 1))
		giveLevel(t, r, bot.UserID, 100)
		time.Sleep(time.Hour)
		require.NoError(t, s.Delete(t.Context(), "other"))
		assert.Equal(t, want, memoryOf(t, admin))
	})
}

// An expired value beneath account data is not there.
func TestUpdateOverExpiredState(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		bot := powerlessBot(t, &r)
		admin := open(t, r.admin, r.room, layout)
		require.NoError(t, admin.Put(t.Context(), "k", "admins", roomkv.ExpireAfter(time.Minute)))
		s := open(t, bot, r.room, layout, roomkv.WithAccountDataFallback())
		time.Sleep(2 * time.Minute)
		_, err := roomkv.Get[string](t.Context(), s, "k")
		require.ErrorIs(t, err, roomkv.ErrNotFound)
		assert.NoError(t, roomkv.Update(t.Context(), s, "k", func(old string, found bool) (string, error) {
			assert.False(t, found, "Update sees %q", old)
			return "u", nil
		}))
		require.NoError(t, s.Delete(t.Context(), "k"))
		assert.NoError(t, s.Create(t.Context(), "k", "mine"))
	})
}

func TestCreateOverExpiredState(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		bot := powerlessBot(t, &r)
		admin := open(t, r.admin, r.room, layout)
		require.NoError(t, admin.Put(t.Context(), "k", "admins", roomkv.ExpireAfter(time.Minute)))
		s := open(t, bot, r.room, layout, roomkv.WithAccountDataFallback())
		time.Sleep(2 * time.Minute)
		assert.NoError(t, s.Create(t.Context(), "k", "mine"))
	})
}

// Account data does not grow with names that have expired.
func TestExpiredNamesLeaveAccountData(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		bot := powerlessBot(t, &r)
		s := open(t, bot, r.room, layout, roomkv.WithAccountDataFallback())
		for i := range 40 {
			require.NoError(t, s.Put(t.Context(), strings.Repeat("k", 20+i), "v", roomkv.ExpireAfter(time.Second)))
			time.Sleep(3 * time.Second)
		}
		require.NoError(t, s.Sweep(t.Context()))
		var names map[string]any
		_ = bot.GetRoomAccountData(t.Context(), r.room, roomkv.AccountType(s), &names)
		assert.NotContains(t, names, "roomkv.account")
	})
}

// Release goes by its context.
func TestReleaseGoesByItsContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExpiring(t)
		client := twin(t, r.admin)
		next := r.admin.Client.Transport
		var stall atomic.Bool
		client.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if stall.Load() {
				<-req.Context().Done()
				return nil, req.Context().Err()
			}
			return next.RoundTrip(req)
		})}
		s := open(t, client, r.room)
		lease, err := s.Lease(t.Context(), "l", 3*time.Hour)
		require.NoError(t, err)
		stall.Store(true)
		time.Sleep(time.Hour + time.Minute) // a renewal hangs
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		before := time.Now()
		err = lease.Release(ctx)
		assert.Error(t, err)
		assert.Less(t, time.Since(before), time.Minute)
		stall.Store(false)
		require.NoError(t, s.Close(t.Context()))
		time.Sleep(time.Minute)
	})
}

// Neither the longest ttl nor a record that reaches far makes those who wait panic.
func TestLeaseForEver(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		r := newExpiring(t)
		s := open(t, r.admin, r.room)
		lease, err := s.Lease(t.Context(), "l", math.MaxInt64)
		require.NoError(t, err)
		ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = open(t, r.admin, r.room).Lease(ctx, "l", time.Minute)
		assert.ErrorIs(t, err, context.DeadlineExceeded)
		select {
		case <-lease.Done():
			assert.Fail(t, "done")
		case <-time.After(time.Hour):
		}
		require.NoError(t, lease.Release(t.Context()))
		require.NoError(t, s.Put(t.Context(), "l", map[string]any{"holder": "x", "fence": 1, "until": int64(11000000000000)}))
		ctx, cancel = context.WithTimeout(t.Context(), 10*time.Second)
		defer cancel()
		_, err = open(t, r.admin, r.room).Lease(ctx, "l", time.Minute)
		assert.Error(t, err)
		require.NoError(t, s.Close(t.Context()))
		time.Sleep(time.Minute)
	})
}

// A watch does not tell first what has expired.
func TestWatchInitialWithoutWhatHasExpired(t *testing.T) {
	eachExpiring(t, func(t *testing.T, r expiring, layout roomkv.Option, single bool) {
		ctx, cancel := context.WithCancel(t.Context())
		client := twin(t, r.admin)
		client.Client = &http.Client{Transport: r.admin.Client.Transport}
		s := open(t, client, r.room, layout)
		require.NoError(t, s.Put(ctx, "k", "v", roomkv.ExpireAfter(time.Second)))
		require.NoError(t, s.Put(ctx, "z", "v"))
		time.Sleep(10 * time.Second)
		require.NoError(t, s.Follow())
		stop := startSync(client)
		time.Sleep(5 * time.Second)
		for change, err := range s.Watch(ctx, roomkv.WatchInitial()) {
			require.NoError(t, err)
			assert.NotEqual(t, "k", change.Key)
			if change.EndOfInitial {
				break
			}
		}
		cancel()
		stop()
		require.NoError(t, s.Close(context.Background()))
		time.Sleep(2 * time.Minute)
	})
}
