package session

import (
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// world is a homeserver as Synapse, with a user for a bot and a room for its memory.
type world struct {
	seen
	server   *fakehs.Server
	user     id.UserID
	password string
	room     id.RoomID // anybody may write to it
}

func newWorld(t *testing.T, mode fakehs.Mode) *world {
	t.Helper()
	w := &world{server: fakehstest.New(t, fakehs.Options{Mode: mode, Name: fakehstest.Name()}), seen: newSeen()}
	owner, err := w.server.Register(t.Context(), "owner")
	require.NoError(t, err)
	made, err := owner.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat", PowerLevelOverride: &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{owner.UserID: 100}, StateDefaultPtr: new(int),
	}})
	require.NoError(t, err)
	w.room = made.RoomID
	bot, err := w.server.Register(t.Context(), "bot")
	require.NoError(t, err)
	_, err = bot.JoinRoomByID(t.Context(), w.room)
	require.NoError(t, err)
	_, err = bot.Logout(t.Context())
	require.NoError(t, err)
	w.user = bot.UserID
	w.password, err = w.server.Password(w.user)
	require.NoError(t, err)
	w.secrets[w.password] = true
	w.server.Intercept(w.watch)
	return w
}

// watch counts requests, and notes the tokens that are given.
func (w *world) watch(req *http.Request, next fakehs.Next) (*http.Response, error) {
	w.request(req)
	resp, err := next(req)
	if err != nil {
		return nil, err
	}
	return resp, w.answer(resp)
}

// config is that of a bot with a password.
func (w *world) config(dir string) Config {
	log := zerolog.New(&w.log).Level(zerolog.TraceLevel)
	return Config{Homeserver: w.server.URL(), User: w.user.String(), Password: w.password, Dir: dir, NoEncryption: true, Logger: &log}
}

func (w *world) open(t *testing.T, config Config) *Bot {
	t.Helper()
	bot, err := open(t.Context(), config, w.server)
	require.NoError(t, err)
	bot.Client.SyncTraceLog = true
	return bot
}

// has asserts that another device reads all those keys.
func (w *world) has(t *testing.T, keys []string, options ...roomkv.Option) {
	t.Helper()
	client, err := w.server.NewDevice(t.Context(), w.user)
	require.NoError(t, err)
	store, err := roomkv.New(client, w.room.String(), options...)
	require.NoError(t, err)
	there, err := store.Keys(t.Context())
	require.NoError(t, err)
	assert.Subset(t, there, keys, "no acknowledged write is lost")
}

// writing is 20 Puts a second, each of a key of its own.
type writing struct {
	mu    sync.Mutex
	acked []string
	errs  []error
	late  []time.Duration // how long each took that failed
	slow  time.Duration   // how long the slowest took
	all   sync.WaitGroup
}

// write writes for so long, and waits until each Put has returned.
func write(t *testing.T, store *roomkv.Store, name string, lasting time.Duration) *writing {
	t.Helper()
	var w writing
	for n := range int(lasting / (50 * time.Millisecond)) {
		w.all.Go(func() {
			key, began := fmt.Sprintf("%s-%04d", name, n), time.Now()
			err := store.Put(t.Context(), key, n)
			w.mu.Lock()
			defer w.mu.Unlock()
			took := time.Since(began)
			if w.slow = max(w.slow, took); err == nil {
				w.acked = append(w.acked, key)
				return
			}
			w.errs, w.late = append(w.errs, err), append(w.late, took)
		})
		time.Sleep(50 * time.Millisecond)
	}
	w.all.Wait()
	return &w
}
