package session

import (
	"context"
	"math"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// Close is called by a handler, as one of a command that ends the bot.
func TestAHandlerCloses(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		bot := w.open(t, w.config(""))
		bot.signals = nil
		took := make(chan time.Duration, 1)
		bot.OnMessage(closing(bot, took))
		over := make(chan error, 1)
		go func() { over <- bot.Run(t.Context()) }()
		time.Sleep(time.Second)
		send(t, other, w.room, text("end"))
		began := time.Now()
		assert.NoError(t, <-over)
		assert.Less(t, time.Since(began), 10*time.Second)
		assert.Less(t, <-took, 10*time.Second)
	})
}

func TestOnMessageAfterRunAndStoreAfterClose(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		r := w.run(t, w.config(""))
		time.Sleep(time.Second)
		heard := make(chan string, 9)
		r.bot.OnMessage(hearing(heard))
		send(t, other, w.room, text("late"))
		assert.Equal(t, "late", <-heard)
		assert.ErrorIs(t, r.bot.Run(t.Context()), ErrClosed)
		_, err := r.bot.Store(w.room.String())
		assert.ErrorIs(t, err, ErrRunning)
		assert.NoError(t, r.bot.Close())
		assert.NoError(t, <-r.over)
		r.over <- nil
		_, err = r.bot.Store(w.room.String())
		assert.ErrorIs(t, err, ErrClosed)
		assert.ErrorIs(t, r.bot.Run(t.Context()), ErrClosed)
	})
}

// Close ends a Run that waits for another process.
func TestCloseWhileRunWaitsForTheFolder(t *testing.T) {
	t.Parallel()
	dir := t.TempDir() + "/bot"
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		w.run(t, w.config(dir))
		time.Sleep(time.Second)
		second := w.open(t, w.config(dir))
		second.signals = nil
		over := make(chan error, 1)
		go func() { over <- second.Run(t.Context()) }()
		time.Sleep(time.Second)
		began := time.Now()
		assert.NoError(t, second.Close())
		assert.Less(t, time.Since(began), time.Second, "Close ends Run, which waits for the lock")
		assert.NoError(t, <-over)
	})
}

// A session is not sent to another server than the one that has given it, unless the user's server is named.
func TestOpenSendsNoSessionToAnotherServer(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t, fakehs.Forking), t.TempDir()+"/bot"
	config := w.config(dir)
	config.User = w.user.Localpart()
	require.NoError(t, w.open(t, config).Close())
	asked := 0
	elsewhere := names{"elsewhere.example": `{"versions": ["v1.11"]}`}
	config.Homeserver = "https://elsewhere.example"
	_, err := open(t.Context(), config, roundTrip(func(req *http.Request) (*http.Response, error) {
		asked++
		return elsewhere.over(w.server).RoundTrip(req)
	}))
	require.ErrorIs(t, err, ErrInvalidConfig)
	assert.Zero(t, asked)
	config.Homeserver = w.server.URL()
	require.NoError(t, w.open(t, config).Close(), "what was kept is still there")
	assert.Equal(t, 1, w.requests("login"))
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// The errors for a homeserver that is not one have no password, and not all that a server says.
func TestAHomeserverThatIsNone(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	for _, homeserver := range []string{"https://bot:hunter22@example.org", "bot:hunter22@example.org", "ftp://bot:hunter22@example.org", "long.example"} {
		config := w.config("")
		config.Homeserver = homeserver
		_, err := open(t.Context(), config, names{"long.example": `{"m.homeserver": {"base_url": "` + strings.Repeat("x", 100_000) + `"}}`}.over(w.server))
		require.ErrorIs(t, err, ErrHomeserver)
		assert.NotContains(t, err.Error(), "hunter22")
		assert.Less(t, len(err.Error()), 1000)
	}
}

// A timeout that stands for none does not make the sync fail.
func TestTheLongestTimeout(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		config := w.config("")
		config.Timeout = math.MaxInt64
		r := w.run(t, config)
		time.Sleep(time.Second)
		send(t, other, w.room, text("one"))
		r.hears(t, "one")
	})
}

func closing(bot *Bot, took chan<- time.Duration) mautrix.EventHandler {
	return func(context.Context, *event.Event) {
		began := time.Now()
		_ = bot.Close()
		took <- time.Since(began)
	}
}

func hearing(heard chan<- string) mautrix.EventHandler {
	return func(_ context.Context, evt *event.Event) { heard <- evt.Content.AsMessage().Body }
}
