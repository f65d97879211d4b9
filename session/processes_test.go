package session

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var soak = flag.Bool("soak", false, "run what takes long")

// Two bots of one folder take turns at refreshing: each refresh token is used once.
func TestTwoProcessesShareASession(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		w.server.SetTokenLife(2 * time.Second)
		bots, writings := make([]*Bot, 2), make(chan *writing, 2)
		for i := range bots {
			bots[i] = w.open(t, w.config(dir))
			store, err := bots[i].Store(w.room.String(), roomkv.WithPerKeyState()) // so that what is tested is the session, and not how writes merge
			require.NoError(t, err)
			go func() { writings <- write(t, store, fmt.Sprint("bot", i), 12*time.Second) }()
		}
		var acked []string
		for range bots {
			done := <-writings
			assert.Empty(t, done.errs)
			assert.LessOrEqual(t, done.slow, 2*time.Second)
			acked = append(acked, done.acked...)
		}
		assert.Equal(t, 1, w.requests("login"))
		assert.InDelta(t, 6, w.requests("refresh"), 1, "one of both refreshes")
		assert.Equal(t, bots[0].Client.DeviceID, bots[1].Client.DeviceID)
		for _, bot := range bots {
			require.NoError(t, bot.Close())
		}
		w.has(t, acked, roomkv.WithPerKeyState())
		w.private(t, dir)
	})
}

// Two bots of one folder that start together sign in once.
func TestTwoProcessesStartTogether(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		bots := make(chan *Bot, 4)
		for range cap(bots) {
			go func() {
				bot, err := open(t.Context(), w.config(dir), w.server)
				assert.NoError(t, err)
				bots <- bot
			}()
		}
		for range cap(bots) {
			require.NoError(t, (<-bots).Close())
		}
		assert.Equal(t, 1, w.requests("login"))
		assert.Len(t, w.server.Devices(w.user), 1)
	})
}

// envKilled makes this program the bot that TestKilledAtAnyMoment kills. It has the folder.
const envKilled = "ROOMKV_TEST_KILLED"

func TestMain(m *testing.M) {
	if dir := os.Getenv(envKilled); dir != "" {
		fmt.Fprintln(os.Stderr, beKilled(dir))
		os.Exit(1)
	}
	flag.Parse()
	if *onReal {
		hstest.Main(m)
	}
	os.Exit(m.Run())
}

// beKilled starts a bot, and makes requests without end. It prints the number of each that was answered.
func beKilled(dir string) error {
	config, err := FromEnv()
	if err != nil {
		return err
	}
	config.Dir = dir
	bot, err := Open(context.Background(), config)
	if err != nil {
		return err
	}
	for {
		if _, err := bot.Client.Whoami(context.Background()); errors.Is(err, ErrSignedOut) {
			return err
		} else if err == nil { // else the token has ended before it was used
			fmt.Println("answered")
		}
	}
}

// A bot that is killed at any moment of its sign-in or of a refresh starts again: with the same device, and without another login once it has signed in.
func TestKilledAtAnyMoment(t *testing.T) {
	t.Parallel()
	kills := 30
	if *soak {
		kills = 500
	}
	w := newWorld(t, fakehs.Forking)
	w.server.SetTokenLife(20 * time.Millisecond)
	server := httptest.NewServer(w.server)
	defer server.Close()
	dir := filepath.Join(t.TempDir(), "data")
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	random := rand.New(rand.NewPCG(seed, 0))
	started := 0
	for range kills {
		began := w.requests("refresh")
		bot := exec.CommandContext(t.Context(), os.Args[0])
		var text logged
		bot.Stdout, bot.Stderr = &text, &text
		bot.Env = append(os.Environ(), envKilled+"="+dir, EnvHomeserver+"="+server.URL, EnvUser+"="+w.user.String(), EnvPassword+"="+w.password, EnvNoEncryption+"=1")
		require.NoError(t, bot.Start())
		if random.IntN(4) > 0 { // else while it starts
			require.Eventually(t, func() bool { return w.requests("refresh") > began || strings.Contains(text.String(), "session") }, time.Minute, time.Millisecond)
			started++
		}
		time.Sleep(time.Duration(random.IntN(30_000)) * time.Microsecond)
		require.NoError(t, bot.Process.Kill())
		_ = bot.Wait()
		for line := range strings.Lines(text.String()) {
			require.Equal(t, "answered\n", line)
		}
	}
	config := w.config(dir)
	config.Homeserver = server.URL
	bot, err := open(t.Context(), config, http.DefaultTransport)
	require.NoError(t, err)
	defer bot.Close()
	_, err = bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	assert.Len(t, w.server.Devices(w.user), 1)
	t.Logf("%d logins, %d refreshes, %d of %d starts came to a refresh", w.requests("login"), w.requests("refresh"), started, kills)
	if started > 0 {
		assert.LessOrEqual(t, w.requests("login"), 1+kills-started)
	}
	w.private(t, dir)
}
