package session

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
)

func TestOpenWithAPassword(t *testing.T) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t, mode), filepath.Join(t.TempDir(), "a", "b")
			config := w.config(dir)
			config.User, config.DeviceName, config.Presence = w.user.Localpart(), "our bot", event.PresenceUnavailable
			bot := w.open(t, config)
			assert.Equal(t, w.user, bot.Client.UserID)
			assert.Equal(t, event.PresenceUnavailable, bot.Client.SyncPresence)
			devices, err := bot.Client.GetDevicesInfo(t.Context())
			require.NoError(t, err)
			require.Len(t, devices.Devices, 1)
			assert.Equal(t, "our bot", devices.Devices[0].DisplayName)
			assert.Equal(t, bot.Client.DeviceID, devices.Devices[0].DeviceID)

			store, err := bot.Store(w.room.String())
			require.NoError(t, err)
			require.NoError(t, store.Put(t.Context(), "key", 1))
			require.NoError(t, bot.Close())
			require.NoError(t, bot.Close())
			_, err = bot.Store(w.room.String())
			require.ErrorIs(t, err, ErrClosed)

			before, versions := w.requests("login"), w.requests("versions")
			again := w.open(t, config)
			assert.Equal(t, bot.Client.DeviceID, again.Client.DeviceID)
			assert.Equal(t, bot.Client.AccessToken, again.Client.AccessToken)
			w.has(t, []string{"key"})
			assert.Equal(t, before+1, w.requests("login"), "that is the reader's")
			assert.Equal(t, versions, w.requests("versions"))
			w.private(t, dir)

			config.User = "@another:" + w.server.Name()
			_, err = open(t.Context(), config, w.server)
			require.ErrorIs(t, err, ErrInvalidConfig)
			assert.Contains(t, err.Error(), "Dir keeps a session of "+w.user.String())
			config.User, config.Password, config.Dir = w.user.String(), "wrong", ""
			_, err = open(t.Context(), config, w.server)
			require.ErrorIs(t, err, ErrWrongPassword)
		})
	}
}

func TestOpenWithoutAFolder(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	w.server.SetTokenLife(time.Second)
	bot := w.open(t, w.config(""))
	assert.Regexp(t, `^ROOMKV[0-9A-Z]+$`, bot.Client.DeviceID.String())
	for range 3 {
		require.NoError(t, w.server.EndAccess(w.user))
		_, err := bot.Client.Whoami(t.Context())
		require.NoError(t, err)
	}
	assert.Equal(t, 3, w.requests("refresh"))
	assert.Equal(t, bot.keeper.Token().AccessToken, bot.Client.AccessToken)
	w.silent(t)
}

func TestOpenWithAToken(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t, fakehs.Forking), t.TempDir()
	device, err := w.server.NewDevice(t.Context(), w.user)
	require.NoError(t, err)
	config := w.config(dir)
	config.Password, config.AccessToken = "", device.AccessToken
	bot := w.open(t, config)
	assert.Equal(t, device.DeviceID, bot.Client.DeviceID)
	assert.Equal(t, device.AccessToken, bot.Client.AccessToken)
	_, err = os.Stat(filepath.Join(dir, "token.json"))
	require.ErrorIs(t, err, os.ErrNotExist, "the token is not kept")

	other := config
	other.User = "@another:" + w.server.Name()
	_, err = open(t.Context(), other, w.server)
	require.ErrorIs(t, err, ErrInvalidConfig)
	assert.Contains(t, err.Error(), "the AccessToken is one of "+w.user.String())

	require.NoError(t, w.server.LogOut(w.user))
	_, err = bot.Client.Whoami(t.Context())
	require.ErrorIs(t, err, ErrSignedOut)
	require.ErrorIs(t, err, mautrix.MUnknownToken)
	_, err = open(t.Context(), config, w.server)
	require.ErrorIs(t, err, ErrSignedOut)
	_, err = os.Stat(filepath.Join(dir, "token.json"))
	require.ErrorIs(t, err, os.ErrNotExist)
	w.silent(t, err.Error())

	config.AccessToken = ""
	_, err = open(t.Context(), config, w.server)
	require.ErrorIs(t, err, ErrInvalidConfig)
	assert.Contains(t, err.Error(), "Dir keeps no session")
}

func TestOpenWhereTheHomeserverFails(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t, fakehs.Forking), t.TempDir()
	login := func(f func(*http.Request, fakehs.Next) (*http.Response, error)) error {
		remove := w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if strings.HasSuffix(req.URL.Path, "/login") {
				return f(req, next)
			}
			return next(req)
		})
		defer remove()
		_, err := open(t.Context(), w.config(dir), w.server)
		return err
	}
	for _, err := range []error{
		login(status(http.StatusBadGateway)),
		login(lost),
		login(func(req *http.Request, next fakehs.Next) (*http.Response, error) { // it was done
			_, err := next(req)
			return nil, errors.Join(err, errors.New("connection reset"))
		}),
		login(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"access_token": "x`))}, nil
		}),
		login(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			return &http.Response{StatusCode: 302, Header: http.Header{"Location": {"http://elsewhere.invalid/"}}, Body: http.NoBody}, nil
		}),
	} {
		require.Error(t, err)
		for _, kind := range []error{ErrWrongPassword, ErrSignedOut, ErrInvalidConfig} {
			require.NotErrorIs(t, err, kind)
		}
		t.Log(err)
	}
	w.open(t, w.config(dir))
	assert.Len(t, w.server.Devices(w.user), 1, "each try was for the same device")

	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	_, err := open(ctx, w.config(t.TempDir()), w.server)
	require.ErrorIs(t, err, context.Canceled)

	require.NoError(t, os.WriteFile(filepath.Join(dir, "token.json"), []byte(`{"access_token": "secret"`), 0o600))
	_, err = open(t.Context(), w.config(dir), w.server)
	require.ErrorContains(t, err, "damaged")
	assert.NotContains(t, err.Error(), "secret")
}

// A server that is given by name is looked up again where its name changes, and not otherwise.
func TestOpenKeepsWhereTheHomeserverIs(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t, fakehs.Forking), t.TempDir()
	base := names{"example.org": `{"m.homeserver": {"base_url": "` + strings.Replace(w.server.URL(), "http:", "https:", 1) + `/"}}`}.over(w.server)
	config := w.config(dir)
	config.Homeserver = "example.org"
	first, err := open(t.Context(), config, base)
	require.NoError(t, err)
	assert.Equal(t, strings.Replace(w.server.URL(), "http:", "https:", 1), first.Client.HomeserverURL.String())
	again, err := open(t.Context(), config, w.server)
	require.NoError(t, err, "nothing is looked up")
	assert.Equal(t, first.Client.DeviceID, again.Client.DeviceID)
	config.Homeserver = w.server.URL()
	again, err = open(t.Context(), config, w.server)
	require.NoError(t, err)
	assert.Equal(t, w.server.URL(), again.Client.HomeserverURL.String())
	assert.Equal(t, first.Client.DeviceID, again.Client.DeviceID)
}

func TestStoreNeedsAFilterThatLetsItsEventsThrough(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	config := w.config("")
	config.Filter = &mautrix.Filter{Room: &mautrix.RoomFilter{State: &mautrix.FilterPart{Types: []event.Type{event.StateMember}},
		Timeline: &mautrix.FilterPart{Types: []event.Type{event.EventMessage}}}}
	bot := w.open(t, config)
	_, err := bot.Store(w.room.String())
	require.ErrorIs(t, err, ErrFilter)
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	_, err = bot.Store("nowhere")
	require.ErrorIs(t, err, roomkv.ErrUnknownRoom)
	require.NotErrorIs(t, err, ErrFilter)
}

func TestSlog(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	var text bytes.Buffer
	config := w.config("")
	config.Logger, config.Slog = nil, slog.New(slog.NewJSONHandler(&text, &slog.HandlerOptions{Level: slogTrace}))
	bot := w.open(t, config)
	require.NoError(t, w.server.EndAccess(w.user))
	_, err := bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	require.NoError(t, bot.Close())
	assert.Contains(t, text.String(), `"level":"DEBUG","msg":"Session renewed"`)
	assert.Contains(t, text.String(), `"msg":"Request completed"`)
	w.silent(t, text.String())

	text.Reset()
	config.Slog = slog.New(slog.NewJSONHandler(&text, nil))
	w.open(t, config)
	assert.Empty(t, text.String(), "debug is not logged")
}

func TestTimeout(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	config := w.config("")
	config.Timeout = 300 * time.Millisecond
	bot := w.open(t, config)
	ended := make(chan struct{})
	defer close(ended)
	defer w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/whoami") {
			select {
			case <-ended:
			case <-time.After(20 * time.Second):
			}
		}
		return next(req)
	})()
	began := time.Now()
	_, err := bot.Client.Whoami(mautrix.WithMaxRetries(t.Context(), 0))
	require.ErrorIs(t, err, context.DeadlineExceeded)
	assert.Less(t, time.Since(began), 10*time.Second)
	_, err = bot.Client.FullSyncRequest(t.Context(), mautrix.ReqSync{Timeout: 600, Since: "s1_0_0_0"})
	require.NoError(t, err, "a sync has more time")
}
