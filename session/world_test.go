package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"path/filepath"
	"strings"
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
	server   *fakehs.Server
	user     id.UserID
	password string
	room     id.RoomID // anybody may write to it
	log      logged    // of all bots, at trace level

	mu      sync.Mutex
	asked   map[string]int // how often, by the last part of the path
	secrets map[string]bool
}

func newWorld(t *testing.T, mode fakehs.Mode) *world {
	t.Helper()
	// Stores of one process share locks by room ID. Worlds of tests that run beside each other have rooms of their own.
	w := &world{server: fakehstest.New(t, fakehs.Options{Mode: mode, Seed: rand.Uint64()}), asked: map[string]int{}, secrets: map[string]bool{}}
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
	parts := strings.Split(req.URL.Path, "/")
	w.mu.Lock()
	w.asked[parts[len(parts)-1]]++
	w.mu.Unlock()
	resp, err := next(req)
	if err != nil {
		return nil, err
	}
	body, err := io.ReadAll(resp.Body)
	resp.Body = io.NopCloser(bytes.NewReader(body))
	var given struct {
		Access  string `json:"access_token"`
		Refresh string `json:"refresh_token"`
	}
	if json.Unmarshal(body, &given) == nil {
		w.mu.Lock()
		defer w.mu.Unlock()
		for _, token := range []string{given.Access, given.Refresh} {
			if token != "" {
				w.secrets[token] = true
			}
		}
	}
	return resp, err
}

// requests is how often an endpoint was asked, by the last part of its path.
func (w *world) requests(last string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[last]
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

// private asserts that others can read nothing in the folder, and that the log has no secret.
func (w *world) private(t *testing.T, dir string, texts ...string) {
	t.Helper()
	about, err := os.Stat(dir)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o700), about.Mode().Perm(), dir)
	files, err := os.ReadDir(dir)
	require.NoError(t, err)
	assert.NotEmpty(t, files)
	for _, file := range files {
		about, err := file.Info()
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), about.Mode().Perm(), filepath.Join(dir, file.Name()))
	}
	w.silent(t, texts...)
}

// silent asserts that neither the log nor the texts have a secret.
func (w *world) silent(t *testing.T, texts ...string) {
	t.Helper()
	text := w.log.String() + strings.Join(texts, "\n")
	w.mu.Lock()
	defer w.mu.Unlock()
	assert.Greater(t, len(w.secrets), 1)
	for secret := range w.secrets {
		if at := strings.Index(text, secret); at >= 0 {
			t.Errorf("a secret is in: %s", text[max(0, at-300):min(len(text), at+len(secret)+50)])
		}
	}
}

// logged is what was logged.
type logged struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (l *logged) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(line)
}

func (l *logged) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String()
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
