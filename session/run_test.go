package session

import (
	"context"
	"fmt"
	"slices"
	"sync"
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

// running is a bot that runs.
type running struct {
	bot  *Bot
	stop context.CancelFunc
	over chan error

	mu    sync.Mutex
	heard []string
}

// run runs a bot that counts messages in its room, as the package's example does, and has stores of other rooms too.
func (w *world) run(t *testing.T, config Config, others ...id.RoomID) *running {
	t.Helper()
	r := &running{bot: w.open(t, config), over: make(chan error, 1)}
	r.bot.signals = nil
	store, err := r.bot.Store(w.room.String())
	require.NoError(t, err)
	for _, other := range others {
		_, err := r.bot.Store(other.String())
		require.NoError(t, err)
	}
	r.bot.OnMessage(store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		err := roomkv.Update(ctx, room, "messages", func(n int, _ bool) (int, error) { return n + 1, nil })
		r.mu.Lock()
		defer r.mu.Unlock()
		if err != nil {
			r.heard = append(r.heard, err.Error())
			return
		}
		r.heard = append(r.heard, evt.Content.AsMessage().Body)
	}))
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	r.stop = stop
	done := make(chan struct{})
	go func() {
		defer close(done)
		r.over <- r.bot.Run(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-done
		assert.NoError(t, r.bot.Close())
	})
	return r
}

func (r *running) hears(t *testing.T, want ...string) {
	t.Helper()
	assert.Eventually(t, func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return slices.Equal(want, r.heard)
	}, 10*time.Second, 5*time.Millisecond)
	r.mu.Lock()
	defer r.mu.Unlock()
	assert.Equal(t, want, r.heard)
}

// someone is a user in the bot's room.
func (w *world) someone(t *testing.T) *mautrix.Client {
	t.Helper()
	client, err := w.server.Register(t.Context(), "someone")
	require.NoError(t, err)
	_, err = client.JoinRoomByID(t.Context(), w.room)
	require.NoError(t, err)
	return client
}

func send(t *testing.T, client *mautrix.Client, room id.RoomID, content *event.MessageEventContent) id.EventID {
	t.Helper()
	sent, err := client.SendMessageEvent(t.Context(), room, event.EventMessage, content)
	require.NoError(t, err)
	return sent.EventID
}

func text(body string) *event.MessageEventContent {
	return &event.MessageEventContent{MsgType: event.MsgText, Body: body}
}

func TestRun(t *testing.T) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			w, dir := newWorld(t, mode), t.TempDir()+"/bot"
			other := w.someone(t)
			first := w.run(t, w.config(dir))
			assert.Eventually(t, func() bool { return w.requests("sync") > 1 }, 10*time.Second, 5*time.Millisecond)
			send(t, other, w.room, text("one"))
			sent := send(t, other, w.room, text("two"))
			send(t, other, w.room, &event.MessageEventContent{MsgType: event.MsgNotice, Body: "a notice"})
			send(t, other, w.room, &event.MessageEventContent{MsgType: event.MsgText, Body: "an edit", RelatesTo: &event.RelatesTo{Type: event.RelReplace, EventID: sent}})
			send(t, other, w.room, text("three"))
			first.hears(t, "one", "two", "three")
			first.stop()
			assert.NoError(t, <-first.over)
			assert.ErrorIs(t, first.bot.Run(t.Context()), ErrClosed)
			assert.NoError(t, first.bot.Close())

			for n := range 3 {
				send(t, other, w.room, text(fmt.Sprint(n)))
			}
			logins := w.requests("login")
			second := w.run(t, w.config(dir))
			second.hears(t, "0", "1", "2")
			assert.Equal(t, logins, w.requests("login"), "no login")
			assert.NoError(t, second.bot.Close())
			assert.NoError(t, <-second.over, "Close ends Run")
			w.private(t, dir)
		})
	}
}

func TestRunEndsWhereTheBotIsSignedOut(t *testing.T) {
	w := newWorld(t, fakehs.Forking)
	config := w.config("")
	r := w.run(t, config)
	assert.Eventually(t, func() bool { return w.requests("sync") > 1 }, 10*time.Second, 5*time.Millisecond)
	require.NoError(t, w.server.SetPassword(w.user, "another"))
	before := time.Now()
	assert.ErrorIs(t, <-r.over, ErrSignedOut)
	assert.Less(t, time.Since(before), 5*time.Second)
}

func TestOneProcessRunsWithAFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w, dir := newWorld(t, fakehs.Forking), t.TempDir()+"/bot"
		first := w.run(t, w.config(dir))
		time.Sleep(time.Second)
		second := w.open(t, w.config(dir))
		assert.ErrorIs(t, second.Run(t.Context()), ErrInUse)
		assert.NoError(t, second.Close())
		first.stop()
		assert.NoError(t, <-first.over)
		third := w.run(t, w.config(dir))
		time.Sleep(time.Second)
		third.stop()
		assert.NoError(t, <-third.over)
	})
}

func TestInvitedAndLeftAlone(t *testing.T) {
	w := newWorld(t, fakehs.Forking)
	other := w.someone(t)
	config := w.config("")
	config.Invites = Invites{Allow: []string{other.UserID.String()}}
	config.LeaveEmpty = true
	elsewhere, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat"})
	require.NoError(t, err)
	r := w.run(t, config, elsewhere.RoomID) // in which the bot is not, and which it may join later
	made, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{w.user}})
	require.NoError(t, err)
	is := func() []id.RoomID {
		resp, err := r.bot.Client.JoinedRooms(t.Context())
		require.NoError(t, err)
		return resp.JoinedRooms
	}
	assert.Eventually(t, func() bool { return slices.Contains(is(), made.RoomID) }, 10*time.Second, 5*time.Millisecond)
	for _, room := range []id.RoomID{made.RoomID, w.room} {
		_, err = other.LeaveRoom(t.Context(), room)
		require.NoError(t, err)
	}
	assert.Eventually(t, func() bool { return !slices.Contains(is(), made.RoomID) }, 20*time.Second, 50*time.Millisecond)
	assert.Contains(t, is(), w.room, "the owner is in there")
}
