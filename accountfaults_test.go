package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// eachGuest tests a bot without power on both kinds of homeserver.
func eachGuest(t *testing.T, test func(t *testing.T, b *guestBot)) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			test(t, newGuest(t, fakehstest.New(t, fakehs.Options{Mode: mode, Seed: 1, Spread: -1})))
		})
	}
}

// guestBot is a bot in a room where it has no power to write state.
type guestBot struct {
	server *fakehs.Server
	admin  *mautrix.Client
	client *mautrix.Client
	room   id.RoomID
}

func newGuest(t *testing.T, server *fakehs.Server) *guestBot {
	t.Helper()
	b := &guestBot{server: server, admin: fakehstest.Client(t, server), client: fakehstest.Client(t, server)}
	b.room = hstest.Room(t, b.admin)
	_, err := b.admin.InviteUser(t.Context(), b.room, &mautrix.ReqInviteUser{UserID: b.client.UserID})
	require.NoError(t, err)
	_, err = b.client.JoinRoomByID(t.Context(), b.room)
	require.NoError(t, err)
	return b
}

// open makes a store of the bot's.
func (b *guestBot) open(t *testing.T, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	return open(t, b.client, b.room, append(opts, roomkv.WithAccountDataFallback())...)
}

// process makes a store of the bot's in another process, as far as account data goes.
func (b *guestBot) process(t *testing.T, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	roomkv.ForgetAccounts(b.room)
	return b.open(t, opts...)
}

// power gives the bot so much.
func (b *guestBot) power(t *testing.T, level int) {
	t.Helper()
	assert.NoError(t, b.givePower(t.Context(), level))
}

func (b *guestBot) givePower(ctx context.Context, level int) error {
	var levels event.PowerLevelsEventContent
	if err := b.admin.StateEvent(ctx, b.room, event.StatePowerLevels, "", &levels); err != nil {
		return err
	}
	levels.SetUserLevel(b.client.UserID, level)
	_, err := b.admin.SendStateEvent(ctx, b.room, event.StatePowerLevels, "", &levels)
	return err
}

// isOwn tells whether a request is the bot's, of a method and of a path that contains a text.
func (b *guestBot) isOwn(req *http.Request, method, path string) bool {
	return req.Method == method && strings.Contains(req.URL.Path, path) && strings.HasSuffix(req.Header.Get("Authorization"), " "+b.client.AccessToken)
}

// account is the account data as the homeserver has it.
func (b *guestBot) account(t *testing.T) (content map[string]json.RawMessage) {
	t.Helper()
	require.NoError(t, b.client.GetRoomAccountData(t.Context(), b.room, roomkv.DefaultEventType, &content))
	return content
}

// emptyOnce makes the homeserver answer once that there is nothing in account data, though there is.
func (b *guestBot) emptyOnce() {
	var answered atomic.Bool
	b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !b.isOwn(req, http.MethodGet, "/account_data/") || answered.Swap(true) {
			return next(req)
		}
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
			Body: io.NopCloser(strings.NewReader(`{}`))}, nil
	})
}

// A write that moves the memory returns when its context ends, and the move goes on. Nobody else overtakes it.
func TestMoveGoesOnWithoutItsCaller(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		store := b.process(t)
		require.NoError(t, store.Put(t.Context(), "k", 1))
		b.power(t, 50)
		roomkv.PassTime(b.room, store)
		ctx, cancel := context.WithCancel(t.Context())
		sending, goOn := make(chan bool), make(chan bool)
		var held atomic.Bool
		b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if b.isOwn(req, http.MethodPut, "/state/") && !held.Swap(true) {
				close(sending)
				<-goOn
			}
			return next(req)
		})
		returned, updated := make(chan error, 1), make(chan error, 1)
		go func() { returned <- store.Put(ctx, "other", 2) }()
		<-sending
		cancel()
		select {
		case err := <-returned:
			require.ErrorIs(t, err, context.Canceled)
		case <-time.After(5 * time.Second):
			require.Fail(t, "the write outlives its context")
		}
		go func() { updated <- roomkv.Update(t.Context(), store, "k", increment) }()
		time.Sleep(50 * time.Millisecond)
		close(goOn)
		require.NoError(t, <-updated)
		assert.Equal(t, map[string]string{"k": "2"}, memoryOf(t, store))
		assert.Empty(t, b.account(t))
		assert.Equal(t, map[string]string{"k": "2"}, memoryOf(t, open(t, b.admin, b.room)))
	})
}

// A write to the state whose caller has given up is still on its way when another finds out that the power is gone. What goes to account data
// waits for it.
func TestAccountDataWaitsForWhoHasGivenUp(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		b.power(t, 50)
		store := b.process(t, roomkv.WithPerKeyState())
		require.NoError(t, store.Put(t.Context(), "count", 1))
		ctx, cancel := context.WithCancel(t.Context())
		sending, goOn := make(chan bool), make(chan bool)
		var held atomic.Bool
		b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if b.isOwn(req, http.MethodPut, "/count") && !held.Swap(true) {
				close(sending)
				<-goOn
			}
			return next(req)
		})
		gaveUp, updated := make(chan error, 1), make(chan error, 1)
		go func() { gaveUp <- roomkv.Update(ctx, store, "count", increment) }()
		<-sending
		cancel()
		require.ErrorIs(t, <-gaveUp, context.Canceled)
		b.power(t, 0)
		go func() {
			err := store.Put(t.Context(), "other", 1)
			if err == nil {
				err = roomkv.Update(t.Context(), store, "count", increment)
			}
			updated <- err
		}()
		time.Sleep(50 * time.Millisecond)
		b.power(t, 50)
		close(goOn)
		require.NoError(t, <-updated)
		assert.Equal(t, map[string]string{"count": "3", "other": "1"}, memoryOf(t, store))
	})
}

// Restore has sent its event, somebody else has written at the same time, and the power goes before it has merged the two.
func TestRestoreWhilePowerGoes(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		ctx := t.Context()
		b.power(t, 50)
		store := b.process(t)
		require.NoError(t, store.Put(ctx, "k", 1))
		b.server.Settle()
		snapshot, err := store.At(ctx, roomkv.AtTime(time.Now().Add(time.Hour)))
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "k", 2))
		var once atomic.Bool
		b.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if !b.isOwn(req, http.MethodPut, "/state/") || once.Swap(true) {
				return next(req)
			}
			_, err := b.admin.SendStateEvent(context.WithoutCancel(ctx), b.room, database, "", map[string]any{"k": 2, "theirs": 1})
			assert.NoError(t, err)
			resp, err := next(req)
			assert.NoError(t, b.givePower(context.WithoutCancel(ctx), 0))
			b.server.Settle()
			return resp, err
		})
		_, err = store.Restore(ctx, snapshot)
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		assert.ErrorContains(t, err, "power level 50")
	})
}

// The two layouts are two memories, also in account data.
func TestLayoutsHaveAccountDataOfTheirOwn(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		ctx := t.Context()
		single, perKey := b.process(t), b.open(t, roomkv.WithPerKeyState())
		require.NoError(t, single.Put(ctx, "k", 1))
		copied, err := roomkv.Copy(ctx, perKey, single)
		require.NoError(t, err)
		assert.Equal(t, roomkv.Copied{Total: 1, Written: 1}, copied)
		require.NoError(t, perKey.Delete(ctx, "k"))
		assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, single))
	})
}

// A slow watch is told the last change of account data, though it is not told each before that.
func TestSlowWatchOfAccountData(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		w := &heldStore{server: b.server, client: b.client, room: b.room, store: b.process(t)}
		w.follow(t)
		const waiting = 1001 // one more than a watch lets wait
		told, slow := make(chan string, 2*waiting), make(chan bool)
		go func() {
			for change, err := range w.store.Watch(ctx) {
				if err == nil {
					told <- string(change.New)
					<-slow
				}
			}
		}()
		for n, begun := -1000, false; !begun; n++ { // until it is slow
			require.NoError(t, w.store.Put(ctx, "k", n))
			select {
			case <-told:
				begun = true
			case <-time.After(20 * time.Millisecond):
			}
		}
		for n := range waiting {
			require.NoError(t, w.store.Put(ctx, "k", n+1))
		}
		close(slow)
		for last := ""; last != fmt.Sprint(waiting); {
			select {
			case last = <-told:
			case <-time.After(5 * time.Second):
				require.Fail(t, "the last change is not told", "%s is", last)
			}
		}
	})
}

// A homeserver says once that there is nothing in account data, though there is, to who knows better or to a new process.
func TestEmptyAnswerOfAccountData(t *testing.T) {
	eachGuest(t, func(t *testing.T, b *guestBot) {
		ctx := t.Context()
		store := b.process(t)
		require.NoError(t, store.Put(ctx, "k", 1))
		b.emptyOnce()
		_, err := roomkv.Copy(ctx, open(t, b.client, hstest.Room(t, b.client)), store) // which asks for account data anew
		require.NoError(t, err)
		require.NoError(t, store.Put(ctx, "other", 2))
		assert.Equal(t, map[string]string{"k": "1", "other": "2"}, memoryOf(t, b.process(t)))
		store = b.process(t)
		b.emptyOnce()
		require.NoError(t, store.Put(ctx, "other", 3))
		assert.Equal(t, map[string]string{"k": "1", "other": "3"}, memoryOf(t, b.process(t)))
	})
}
