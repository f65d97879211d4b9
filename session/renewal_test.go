package session

import (
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// answering makes the homeserver answer to requests for an endpoint in another way, for so long.
func answering(t *testing.T, w *world, last string, lasting time.Duration, f func(req *http.Request, next fakehs.Next) (*http.Response, error)) {
	t.Helper()
	remove := w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/"+last) {
			return f(req, next)
		}
		return next(req)
	})
	time.AfterFunc(lasting, remove)
}

func status(status int) func(*http.Request, fakehs.Next) (*http.Response, error) {
	return func(req *http.Request, _ fakehs.Next) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
	}
}

func lost(*http.Request, fakehs.Next) (*http.Response, error) {
	return nil, errors.New("connection reset")
}

// troubles are what happens to a bot's session while it writes. None of it loses a write.
var troubles = []struct {
	name    string
	life    time.Duration // of access tokens
	trouble func(t *testing.T, w *world)
	logins  int
	slow    time.Duration // the slowest Put
}{
	{"the homeserver ends access tokens early", time.Hour, func(t *testing.T, w *world) {
		for range 5 {
			time.Sleep(2 * time.Second)
			require.NoError(t, w.server.EndAccess(w.user))
		}
	}, 1, time.Second},
	{"access tokens expire", 2 * time.Second, func(*testing.T, *world) {}, 1, time.Second},
	{"access tokens expire at once", 10 * time.Millisecond, func(*testing.T, *world) {}, 1, time.Second},
	{"a refresh is answered with 503", 2 * time.Second, func(t *testing.T, w *world) {
		time.Sleep(3 * time.Second)
		answering(t, w, "refresh", 5*time.Second, status(http.StatusServiceUnavailable))
	}, 1, 13 * time.Second},
	{"a refresh is not answered, and was not done", 2 * time.Second, func(t *testing.T, w *world) {
		time.Sleep(3 * time.Second)
		answering(t, w, "refresh", 5*time.Second, lost)
	}, 1, 13 * time.Second},
	{"a refresh is done, and its answer is lost", 2 * time.Second, func(t *testing.T, w *world) {
		time.Sleep(3 * time.Second)
		answering(t, w, "refresh", 5*time.Second, func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			_, err := next(req)
			return nil, errors.Join(err, errors.New("connection reset"))
		})
	}, 1, 13 * time.Second},
	{"a soft logout", time.Hour, func(t *testing.T, w *world) {
		time.Sleep(3 * time.Second)
		require.NoError(t, w.server.SoftLogout(w.user))
	}, 2, time.Second},
	{"a soft logout, and 502 at the login", time.Hour, func(t *testing.T, w *world) {
		time.Sleep(3 * time.Second)
		answering(t, w, "login", 5*time.Second, status(http.StatusBadGateway))
		require.NoError(t, w.server.SoftLogout(w.user))
	}, 2, 13 * time.Second},
	{"a soft logout of tokens that expire anyway", 2 * time.Second, func(t *testing.T, w *world) {
		time.Sleep(3*time.Second + 900*time.Millisecond)
		require.NoError(t, w.server.SoftLogout(w.user))
	}, 2, time.Second},
}

func TestPutsWhileTheSessionIsRenewed(t *testing.T) {
	t.Parallel()
	for _, test := range troubles {
		t.Run(test.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fakehs.Forking)
				w.server.SetTokenLife(test.life)
				bot := w.open(t, w.config(dir))
				first := bot.Client.DeviceID
				store, err := bot.Store(w.room.String())
				require.NoError(t, err)
				ctx, stop := context.WithCancel(t.Context())
				ended := make(chan error, 1)
				go func() { ended <- bot.Client.SyncWithContext(ctx) }()
				go test.trouble(t, w)

				done := write(t, store, "key", 12*time.Second)
				assert.Empty(t, done.errs)
				assert.LessOrEqual(t, done.slow, test.slow)
				stop()
				assert.ErrorIs(t, <-ended, context.Canceled)
				require.NoError(t, bot.Close())

				logins := w.requests("login")
				refreshed := w.requests("refresh")
				assert.Equal(t, []id.DeviceID{first}, w.server.Devices(w.user), "the device stays")
				again := w.open(t, w.config(dir))
				_, err = again.Client.Whoami(t.Context())
				require.NoError(t, err, "the next start goes on with what is kept")
				require.NoError(t, again.Close())
				assert.Equal(t, logins, w.requests("login"))
				w.has(t, done.acked)
				assert.Len(t, done.acked, 240)
				w.private(t, dir)
				w.refreshes(t, test.name, test.logins, logins, refreshed)
			})
		})
	}
}

// refreshes asserts how often the session was renewed.
func (w *world) refreshes(t *testing.T, name string, want, logins, refreshed int) {
	t.Helper()
	t.Logf("%d logins, %d refreshes", logins, refreshed)
	if strings.Contains(name, "502") {
		assert.GreaterOrEqual(t, logins, want)
	} else {
		assert.Equal(t, want, logins)
	}
	assert.Positive(t, refreshed)
}

func TestAChangedPasswordEndsTheSession(t *testing.T) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		for _, soft := range []bool{false, true} {
			if soft && mode == fakehs.Linear {
				continue // it has no soft logout
			}
			t.Run(mode.String(), func(t *testing.T) {
				t.Parallel()
				dir := t.TempDir()
				synctest.Test(t, func(t *testing.T) { changedPassword(t, newWorld(t, mode), dir, soft) })
			})
		}
	}
}

func changedPassword(t *testing.T, w *world, dir string, soft bool) {
	bot := w.open(t, w.config(dir))
	device := bot.Client.DeviceID
	store, err := bot.Store(w.room.String())
	require.NoError(t, err)
	ended := make(chan error, 1)
	go func() { ended <- bot.Client.SyncWithContext(t.Context()) }()
	var changed time.Time
	go func() {
		time.Sleep(3*time.Second + 10*time.Millisecond)
		changed = time.Now()
		if soft {
			answering(t, w, "login", time.Minute, func(req *http.Request, _ fakehs.Next) (*http.Response, error) {
				body := `{"errcode": "M_FORBIDDEN", "error": "Invalid username or password"}`
				return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
			})
			assert.NoError(t, w.server.SoftLogout(w.user))
			return
		}
		assert.NoError(t, w.server.SetPassword(w.user, "another"))
	}()
	go func() {
		<-bot.keeper.Ended()
		assert.Less(t, time.Since(changed), 5*time.Second)
	}()
	done := write(t, store, "key", 6*time.Second)
	assert.NotEmpty(t, done.errs)
	for i, err := range done.errs {
		require.ErrorIs(t, err, ErrSignedOut)
		assert.Less(t, done.late[i], 5*time.Second)
		w.silent(t, err.Error())
	}
	assert.Less(t, done.slow, 5*time.Second)
	err = <-ended
	require.ErrorIs(t, err, ErrSignedOut, "the sync ends too")
	require.ErrorIs(t, bot.keeper.Err(), ErrSignedOut)
	asked := w.requests("whoami")
	_, err = bot.Client.Whoami(t.Context())
	require.ErrorIs(t, err, ErrSignedOut)
	assert.Equal(t, asked, w.requests("whoami"), "nothing is asked any more")
	t.Log(err)
	require.NoError(t, bot.Close())

	config := w.config(dir)
	if !soft {
		_, err = open(t.Context(), config, w.server)
		require.ErrorIs(t, err, ErrWrongPassword)
		w.silent(t, err.Error())
		t.Log(err)
		config.Password = ""
		_, err = open(t.Context(), config, w.server)
		require.ErrorIs(t, err, ErrSignedOut)
		config.Password = "another"
	} else {
		time.Sleep(time.Minute) // until logins are possible again
	}
	again := w.open(t, config)
	assert.Equal(t, soft, device == again.Client.DeviceID, "after a hard logout the device is another one")
	assert.Len(t, w.server.Devices(w.user), 1)
	require.NoError(t, again.Close())
	password, err := w.server.Password(w.user)
	require.NoError(t, err)
	config.Password = password
	w.has(t, done.acked)
	w.private(t, dir)
}
