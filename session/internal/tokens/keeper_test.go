package tokens

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestLeft(t *testing.T) {
	now := time.Now()
	fresh := func(life time.Duration) session { return newSession(Token{Expires: now.Add(life).Round(0)}, now) }
	assert.Equal(t, 30*time.Second, fresh(time.Hour).early)
	assert.Equal(t, 6*time.Second, fresh(time.Minute).early)
	assert.Zero(t, fresh(-time.Minute).early)
	assert.Equal(t, time.Minute, fresh(time.Hour).left(now.Add(59*time.Minute)))
	assert.Negative(t, fresh(time.Hour).left(now.Add(61*time.Minute)))
	assert.Greater(t, newSession(Token{}, now).left(now.Add(time.Hour)), 1000*time.Hour, "it never ends")

	slept := fresh(time.Hour) // the clock on the wall has gone on
	slept.Expires = slept.Expires.Add(-50 * time.Minute)
	assert.Equal(t, 10*time.Minute, slept.left(now))
	set := fresh(time.Hour) // the clock on the wall was set back
	set.Expires = set.Expires.Add(50 * time.Minute)
	assert.Equal(t, time.Hour, set.left(now))

	var token Token
	token.expiresIn(now, 1<<62)
	assert.Equal(t, now.Add(longestLife), token.Expires)
	token.expiresIn(now, -1)
	assert.Zero(t, token.Expires)
}

func TestATokenIsRefreshedBeforeItsEnd(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10*time.Minute)
	var told []string
	k, client := w.keeper(t, w.files, func(c *Config) { c.Changed = func(token Token) { told = append(told, token.AccessToken) } })
	w.after(9 * time.Minute)
	w.good(t, client)
	assert.Zero(t, w.requests("refresh"))
	asked, goOn := make(chan struct{}), make(chan struct{})
	w.answer("refresh", func(req *http.Request) (*http.Response, error) {
		close(asked)
		<-goOn
		return w.server.RoundTrip(req)
	})
	w.after(9*time.Minute + 40*time.Second)
	w.good(t, client)
	<-asked
	w.good(t, client) // the request does not wait
	assert.Equal(t, w.start.AccessToken, k.Token().AccessToken)
	close(goOn)
	require.Eventually(t, func() bool { return k.Token().AccessToken != w.start.AccessToken }, time.Minute, time.Millisecond)
	w.good(t, client)
	require.NoError(t, k.Close(t.Context()))
	assert.Equal(t, []string{w.start.AccessToken, k.Token().AccessToken}, told)
	kept, _, err := Load(w.files)
	require.NoError(t, err)
	assert.Equal(t, k.Token().AccessToken, kept.AccessToken)
	assert.NotEqual(t, w.start.RefreshToken, kept.RefreshToken)
	assert.Equal(t, 1, w.requests("refresh"))
}

func TestManyRequestsWaitForOneRefresh(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	_, client := w.keeper(t, w.files, nil)
	w.after(2 * time.Minute)
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			status, err := w.whoami(t.Context(), client)
			assert.NoError(t, err)
			assert.Equal(t, 200, status)
		})
	}
	all.Wait()
	assert.Equal(t, 1, w.requests("refresh"))
	assert.Equal(t, 50, w.requests("whoami"), "no request was made with the old token")
}

// A request that was sent with the old token, and is refused when there is a new one, does not renew that.
func TestARequestIsRefusedLate(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, client := w.keeper(t, w.files, nil)
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	first := make(chan struct{}, 1)
	first <- struct{}{}
	w.answer("whoami", func(req *http.Request) (*http.Response, error) {
		select {
		case <-first: // waits until another request has renewed the token
			for k.Token().AccessToken == w.start.AccessToken {
				time.Sleep(time.Millisecond)
			}
		default:
		}
		return w.server.RoundTrip(req)
	})
	late := make(chan error)
	go func() {
		_, err := w.whoami(t.Context(), client)
		late <- err
	}()
	require.Eventually(t, func() bool { return w.requests("whoami") == 1 }, time.Minute, time.Millisecond)
	w.good(t, client)
	require.NoError(t, <-late)
	assert.Equal(t, 1, w.requests("refresh"))
}

// A request that gives up does not take the refresh with it, for the homeserver may have done that.
func TestARequestGivesUp(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, client := w.keeper(t, w.files, nil)
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	ctx, cancel := context.WithCancel(t.Context())
	w.answer("refresh", func(req *http.Request) (*http.Response, error) {
		cancel()
		time.Sleep(20 * time.Millisecond)
		return w.server.RoundTrip(req)
	})
	_, err := w.whoami(ctx, client)
	require.ErrorIs(t, err, context.Canceled)
	require.NoError(t, k.Close(t.Context()))
	kept, _, err := Load(w.files)
	require.NoError(t, err)
	assert.NotEqual(t, w.start.AccessToken, kept.AccessToken)
	assert.Equal(t, kept.AccessToken, k.Token().AccessToken)
}

func TestARefreshFailsForAWhile(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, client := w.keeper(t, w.files, nil)
	clock := time.Duration(0)
	for name, answer := range map[string]func(*http.Request) (*http.Response, error){
		"500": says(500, ""), "429": says(429, `{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 1}`), "404": says(404, "no such page"),
		"broken": says(200, "{"), "empty": says(200, "{}"), "5xx with a code": says(502, `{"errcode": "M_UNKNOWN_TOKEN"}`),
		"lost": func(*http.Request) (*http.Response, error) { return nil, errors.New("connection reset") },
	} {
		w.answer("refresh", answer)
		require.NoError(t, w.server.EndAccess(w.client.UserID))
		_, err := w.whoami(t.Context(), client)
		require.ErrorContains(t, err, "cannot refresh the access token now", name)
		require.NotErrorIs(t, err, ErrSignedOut, name)
		before := w.requests("refresh")
		_, err = w.whoami(t.Context(), client)
		require.Error(t, err)
		assert.Equal(t, before, w.requests("refresh"), "another follows after a pause, and not with each request")
		w.answer("refresh", nil)
		clock += time.Second
		w.after(clock)
		w.good(t, client)
		require.NoError(t, k.Err())
	}
	assert.Equal(t, 1, w.requests("login"))
}

// A homeserver that refuses each token that it gives is not asked without end.
func TestEachTokenIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, client := w.keeper(t, w.files, nil)
	w.answer("whoami", says(401, `{"errcode": "M_UNKNOWN_TOKEN"}`))
	for range 20 {
		_, err := w.whoami(t.Context(), client)
		require.ErrorIs(t, err, errNewToken)
	}
	require.NoError(t, k.Err())
	assert.Equal(t, 1, w.requests("refresh"))
	w.after(time.Second)
	_, err := w.whoami(t.Context(), client)
	require.Error(t, err)
	assert.Equal(t, 2, w.requests("refresh"))
	w.answer("whoami", nil)
	w.after(2 * time.Second)
	w.good(t, client)
}

// A refresh token that is refused while the access token is good ends nothing. When the access token ends, the homeserver says whether the device is there.
func TestARefreshTokenIsRefused(t *testing.T) {
	t.Parallel()
	w := newWorld(t, 10*time.Minute)
	k, client := w.keeper(t, w.files, nil)
	w.answer("refresh", says(403, `{"errcode": "M_FORBIDDEN"}`))
	w.after(9*time.Minute + 50*time.Second)
	for range 5 {
		w.good(t, client)
		require.NoError(t, landed(t.Context(), k))
	}
	w.after(11 * time.Minute) // and the homeserver's clock is behind
	w.good(t, client)
	assert.Equal(t, 1, w.requests("refresh"))
	assert.Equal(t, 1, w.requests("login"))
	require.NoError(t, w.server.SoftLogout(w.client.UserID))
	w.good(t, client)
	assert.Equal(t, 2, w.requests("login"))
	assert.Equal(t, w.start.DeviceID, k.Token().DeviceID)
	require.NoError(t, k.Err())
}

// landed waits until nothing is on its way.
func landed(ctx context.Context, k *Keeper) error {
	k.mu.Lock()
	f := k.flight
	k.mu.Unlock()
	if f == nil {
		return nil
	}
	_, err := f.wait(ctx)
	return err
}

// ending is a folder in which a process dies, or fails, before or after it writes.
type ending struct {
	Files
	before, after error
}

func (e *ending) Write(name string, content []byte) error {
	if e.before != nil {
		return e.before
	}
	return errors.Join(e.Files.Write(name, content), e.after)
}

// A process that dies before or after the new token is in the file leaves a session that the next one goes on with.
func TestAProcessDiesWhileItRefreshes(t *testing.T) {
	t.Parallel()
	for _, soft := range []bool{false, true} {
		for _, files := range []*ending{{before: errors.New("died")}, {after: errors.New("died")}} {
			w := newWorld(t, time.Minute)
			files.Files = w.files
			if soft {
				require.NoError(t, w.server.SoftLogout(w.client.UserID))
			} else {
				require.NoError(t, w.server.EndAccess(w.client.UserID))
			}
			_, client := w.keeper(t, files, nil)
			_, err := w.whoami(t.Context(), client)
			require.ErrorContains(t, err, "died")

			next, client := w.keeper(t, w.files, nil)
			w.good(t, client)
			require.NoError(t, w.server.EndAccess(w.client.UserID))
			w.good(t, client)
			assert.Equal(t, w.start.DeviceID, next.Token().DeviceID)
			assert.Len(t, w.server.Devices(w.client.UserID), 2, "with the one that made the user")
			if !soft {
				assert.Equal(t, 1, w.requests("login"))
			}
		}
	}
}

// A new token that cannot be kept is not used, and not lost: an authorization server has no other.
func TestTheDiskIsFull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	files := &ending{Files: w.files, before: errors.New("no space left on device")}
	k, client := w.keeper(t, files, nil)
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	_, err := w.whoami(t.Context(), client)
	require.ErrorContains(t, err, "no space left on device")
	require.NotErrorIs(t, err, ErrSignedOut)
	assert.Equal(t, w.start.AccessToken, k.Token().AccessToken)
	files.before = nil
	w.after(time.Second)
	w.good(t, client)
	assert.Equal(t, 1, w.requests("refresh"))
	kept, _, err := Load(w.files)
	require.NoError(t, err)
	assert.Equal(t, kept.AccessToken, k.Token().AccessToken)
}

func TestAnotherProcessHasRefreshed(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	first, one := w.keeper(t, w.files, nil)
	second, two := w.keeper(t, w.files, nil)
	for round := range 3 {
		require.NoError(t, w.server.EndAccess(w.client.UserID))
		w.good(t, one)
		w.good(t, two)
		assert.Equal(t, first.Token().AccessToken, second.Token().AccessToken)
		assert.Equal(t, round+1, w.requests("refresh"))
	}
	other := second.Token()
	other.DeviceID, other.AccessToken = "OTHER", "other"
	require.NoError(t, Save(w.files, other))
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	_, err := w.whoami(t.Context(), two)
	require.ErrorIs(t, err, ErrSignedOut)
	assert.Contains(t, err.Error(), "device OTHER")
	<-second.Ended()
	kept, _, err := Load(w.files)
	require.NoError(t, err)
	assert.Equal(t, other, kept, "it stays the other's")
}

func TestASessionEnds(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct {
		end    func(w *world) error
		change func(*Config)
		says   string
		device bool // whether the next start signs in with the same device
	}{
		"logged out": {func(w *world) error { return w.server.LogOut(w.client.UserID) }, nil, "has logged out the device", false},
		"soft, no password": {func(w *world) error { return w.server.SoftLogout(w.client.UserID) },
			func(c *Config) { c.Password = nil }, "there is no password", true},
		"soft, another password": {func(w *world) error { return w.server.SoftLogout(w.client.UserID) },
			func(c *Config) { c.Password = &Password{c.Password.Client, c.Now, c.Password.User, "wrong", ""} }, "does not take the password", true},
		"soft, no logins": {func(w *world) error {
			w.answer("login", says(404, `{"errcode": "M_UNRECOGNIZED"}`))
			return w.server.SoftLogout(w.client.UserID)
		}, nil, "does not take the password", true},
		"deactivated": {func(w *world) error {
			w.answer("login", says(403, `{"errcode": "M_USER_DEACTIVATED"}`))
			return w.server.SoftLogout(w.client.UserID)
		}, nil, "does not take the password", true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, time.Minute)
			k, client := w.keeper(t, w.files, test.change)
			w.good(t, client)
			require.NoError(t, test.end(w))
			for range 3 {
				status, err := w.whoami(t.Context(), client)
				assert.Equal(t, 401, status)
				require.ErrorIs(t, err, ErrSignedOut)
				require.ErrorContains(t, err, test.says)
			}
			<-k.Ended()
			require.ErrorIs(t, k.Err(), ErrSignedOut)
			assert.Equal(t, 2, w.requests("whoami"), "it is asked once after the end")
			kept, found, err := Load(w.files)
			require.NoError(t, err)
			require.True(t, found)
			assert.Empty(t, kept.AccessToken+kept.RefreshToken)
			assert.Equal(t, test.device, kept.DeviceID == w.start.DeviceID)
			assert.Equal(t, w.start.UserID, kept.UserID)
		})
	}
}

func TestATokenDoesNotShowItsSecrets(t *testing.T) {
	t.Parallel()
	token := Token{UserID: "@bot:example.org", DeviceID: "D", AccessToken: "secret", RefreshToken: "secret"}
	text := fmt.Sprintf("%v %+v %#v %s", token, token, token, &token)
	assert.NotContains(t, text, "secret")
	assert.Contains(t, text, "@bot:example.org")
}
