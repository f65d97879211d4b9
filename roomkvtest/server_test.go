package roomkvtest_test

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
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
	"github.com/roomkv/roomkv/roomkvtest"
)

// inBoth runs a test in both modes, each in virtual time.
func inBoth(t *testing.T, test func(t *testing.T, server *roomkvtest.Server)) {
	t.Helper()
	for _, mode := range []roomkvtest.Mode{roomkvtest.Linear, roomkvtest.Forking} {
		t.Run(string(mode), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { test(t, roomkvtest.New(t, mode)) })
		})
	}
}

func open(t *testing.T, client *mautrix.Client, room id.RoomID, options ...roomkv.Option) *roomkv.Store {
	t.Helper()
	store, err := roomkv.New(client, room.String(), options...)
	require.NoError(t, err)
	return store
}

func count(seen int, _ bool) (int, error) { return seen + 1, nil }

// counting has a bot count each message, and gives its store.
func counting(t *testing.T, bot *mautrix.Client, room id.RoomID) *roomkv.Store {
	t.Helper()
	store := open(t, bot, room)
	require.NoError(t, store.Follow())
	bot.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		assert.NoError(t, roomkv.Update(ctx, room, evt.Sender.String(), count))
	}))
	return store
}

// says sends a text message.
func says(t *testing.T, client *mautrix.Client, room id.RoomID, text string) {
	t.Helper()
	_, err := client.SendText(t.Context(), room, text)
	require.NoError(t, err)
}

func TestSettleWaitsForHandlers(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot, alice := server.Client("bot"), server.Client("alice")
		room := server.Room(bot, alice)
		store := counting(t, bot, room)
		bot.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, func(context.Context, *event.Event) { time.Sleep(time.Second) })
		server.Sync(bot)
		for want := 1; want <= 3; want++ {
			says(t, alice, room, "Hello")
			server.Settle(bot)
			seen, err := roomkv.Get[int](t.Context(), store, "@alice:example.org")
			require.NoError(t, err)
			assert.Equal(t, want, seen)
		}
		says(t, alice, server.Room(alice), "where the bot is not")
		server.Settle(bot)
	})
}

// A bot that is stopped and started again has what was sent meanwhile once Sync returns.
func TestSyncAgain(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot, alice := server.Client("bot"), server.Client("alice")
		room := server.Room(bot, alice)
		store := counting(t, bot, room)
		for want := 1; want <= 20; want++ {
			says(t, alice, room, "Hello")
			stop := server.Sync(bot)
			seen, err := roomkv.Get[int](t.Context(), store, "@alice:example.org")
			require.NoError(t, err)
			require.Equal(t, want, seen)
			stop()
		}
	})
}

func TestSettleListsWhatWasSent(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		alice := server.Client("alice")
		room := server.Room(alice)
		sent, err := alice.SendText(t.Context(), room, "Hello")
		require.NoError(t, err)
		server.Settle()
		page, err := alice.Messages(t.Context(), room, "", "", mautrix.DirectionBackward, nil, 1)
		require.NoError(t, err)
		require.Len(t, page.Chunk, 1)
		assert.Equal(t, sent.EventID, page.Chunk[0].ID)
	})
}

func TestClientsOfOneNameAreDevicesOfOneUser(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		first, second, alice := server.Client("bot"), server.Client("bot"), server.Client("alice")
		assert.Equal(t, id.UserID("@bot:example.org"), first.UserID)
		assert.Equal(t, first.UserID, second.UserID)
		assert.NotEqual(t, first.DeviceID, second.DeviceID)
		room := server.Room(first, second, alice)
		members, err := alice.JoinedMembers(t.Context(), room)
		require.NoError(t, err)
		assert.Len(t, members.Joined, 2)
		mine, err := open(t, first, room).Once(t.Context(), "$event", time.Hour)
		require.NoError(t, err)
		theirs, err := open(t, second, room).Once(t.Context(), "$event", time.Hour)
		require.NoError(t, err)
		assert.True(t, mine)
		assert.False(t, theirs)
		require.ErrorIs(t, open(t, alice, room).Put(t.Context(), "k", 1), roomkv.ErrForbidden)
	})
}

func TestVirtualTime(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot := server.Client("bot")
		store := open(t, bot, server.Room(bot))
		require.NoError(t, store.Put(t.Context(), "cooldown", true, roomkv.ExpireAfter(time.Hour)))
		time.Sleep(59 * time.Minute)
		require.NoError(t, store.Get(t.Context(), "cooldown", new(bool)))
		time.Sleep(2 * time.Minute)
		require.ErrorIs(t, store.Get(t.Context(), "cooldown", new(bool)), roomkv.ErrNotFound)
	})
}

// A lease is renewed in the background until its store is closed. A bubble waits for that.
func TestLeaseInVirtualTime(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot := server.Client("bot")
		store := open(t, bot, server.Room(bot))
		lease, err := store.Lease(t.Context(), "reminders", time.Minute)
		require.NoError(t, err)
		time.Sleep(5 * time.Minute)
		select {
		case <-lease.Done():
			t.Error("the lease is lost")
		default:
		}
		require.NoError(t, store.Close(t.Context()))
	})
}

func TestEncryptedRoom(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot := server.Client("bot")
		require.ErrorIs(t, open(t, bot, server.EncryptedRoom(bot)).Put(t.Context(), "k", 1), roomkv.ErrNoCrypto)
	})
}

func TestFail(t *testing.T) {
	inBoth(t, func(t *testing.T, server *roomkvtest.Server) {
		bot := server.Client("bot")
		store := open(t, bot, server.Room(bot))
		require.NoError(t, store.Put(t.Context(), "visits", 1))
		for _, c := range []struct {
			name    string
			err     error
			arrives bool
			is      error // of the write, nil where it is made again
		}{
			{"refused", mautrix.MForbidden.WithMessage("not you"), false, roomkv.ErrForbidden},
			{"too large", mautrix.MTooLarge, false, mautrix.MTooLarge},
			{"limited", mautrix.MLimitExceeded.WithExtraField("retry_after_ms", 50), false, nil},
			{"a status that says nothing", mautrix.RespError{ErrCode: "M_UNKNOWN"}, false, nil},
			{"no network", errors.New("no network"), false, nil},
			{"a lost answer", roomkvtest.ErrLostAnswer, true, nil},
		} {
			before, err := roomkv.Get[int](t.Context(), store, "visits")
			require.NoError(t, err)
			var failed, arrived atomic.Int64
			innermost := server.Fail(func(req *http.Request) error {
				if writesState(req) {
					arrived.Add(1)
				}
				return nil
			})
			stop := server.Fail(func(req *http.Request) error {
				if writesState(req) && failed.Add(1) == 1 {
					return c.err
				}
				return nil
			})
			err = roomkv.Update(t.Context(), store, "visits", count)
			stop()
			innermost()
			after := before
			if c.is == nil {
				require.NoError(t, err, c.name)
				after++
			} else {
				require.ErrorIs(t, err, c.is, c.name)
			}
			wantArrived := failed.Load() - 1
			if c.arrives {
				wantArrived++
			}
			assert.Equal(t, wantArrived, arrived.Load(), c.name)
			got, err := roomkv.Get[int](t.Context(), store, "visits")
			require.NoError(t, err)
			assert.Equal(t, after, got, "%s: an update counts once, or not at all", c.name)
		}
	})
}

func TestServeHTTP(t *testing.T) {
	server := roomkvtest.New(t, roomkvtest.Forking)
	bot := server.Client("bot")
	room := server.Room(bot)
	listening := httptest.NewServer(server)
	defer listening.Close()
	client, err := mautrix.NewClient(listening.URL, "", "")
	require.NoError(t, err)
	_, err = client.Login(t.Context(), &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: "bot"}, Password: "bot", StoreCredentials: true,
	})
	require.NoError(t, err)
	require.NoError(t, open(t, client, room).Put(t.Context(), "k", 1))
	got, err := roomkv.Get[int](t.Context(), open(t, bot, room), "k")
	require.NoError(t, err)
	assert.Equal(t, 1, got)
}

// A bot's own test is to take less than 50 ms. In virtual time that is what it waits for, whatever else the machine does.
func TestIsQuick(t *testing.T) {
	for _, mode := range []roomkvtest.Mode{roomkvtest.Linear, roomkvtest.Forking} {
		t.Run(string(mode), func(t *testing.T) {
			before := time.Now()
			synctest.Test(t, func(t *testing.T) { waitsLittle(t, mode) })
			t.Log("in real time", time.Since(before))
		})
	}
}

func waitsLittle(t *testing.T, mode roomkvtest.Mode) {
	t.Helper()
	began := time.Now()
	server := roomkvtest.New(t, mode)
	bot, alice := server.Client("bot"), server.Client("alice")
	room := server.Room(bot, alice)
	store := counting(t, bot, room)
	stop := server.Sync(bot)
	says(t, alice, room, "Hello")
	server.Settle(bot)
	seen, err := roomkv.Get[int](t.Context(), store, "@alice:example.org")
	require.NoError(t, err)
	assert.Equal(t, 1, seen)
	stop()
	t.Log("in virtual time", time.Since(began))
	assert.Less(t, time.Since(began), 50*time.Millisecond)
}
