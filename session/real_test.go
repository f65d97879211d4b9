package session

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var onReal = flag.Bool("real", false, "run also the tests that need a Dendrite, or the homeserver that ROOMKV_HOMESERVER names")

// real is a real homeserver, with a user for a bot, who has no device, and a room for its memory.
type real struct {
	seen
	server   *homeserver.Server
	owner    *mautrix.Client
	user     id.UserID
	password string
	room     id.RoomID

	// trouble answers a request in the homeserver's place where it is not nil.
	trouble atomic.Pointer[func(req *http.Request) (*http.Response, error)]
}

func newReal(t *testing.T) *real {
	t.Helper()
	if !*onReal {
		t.Skip("it needs a real homeserver; see -real")
	}
	r := &real{server: hstest.Server(t), seen: newSeen()}
	bot, err := r.server.Register(t.Context(), "bot")
	require.NoError(t, err)
	r.user = bot.UserID
	r.password, err = r.server.Password(r.user)
	require.NoError(t, err)
	r.secrets[r.password] = true
	r.owner, err = r.server.Register(t.Context(), "owner")
	require.NoError(t, err)
	made, err := r.owner.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "public_chat", PowerLevelOverride: &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{r.owner.UserID: 100}, StateDefaultPtr: new(int),
	}})
	require.NoError(t, err)
	r.room = made.RoomID
	_, err = bot.JoinRoomByID(t.Context(), r.room)
	require.NoError(t, err)
	_, err = bot.Logout(t.Context())
	require.NoError(t, err)
	return r
}

// RoundTrip implements [http.RoundTripper].
func (r *real) RoundTrip(req *http.Request) (*http.Response, error) {
	r.request(req)
	if trouble := r.trouble.Load(); trouble != nil {
		if resp, err := (*trouble)(req); resp != nil || err != nil {
			return resp, err
		}
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return resp, r.answer(resp)
}

// failing answers requests for an endpoint in the homeserver's place, for so long.
func (r *real) failing(last string, lasting time.Duration, f func(req *http.Request) (*http.Response, error)) {
	trouble := func(req *http.Request) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/"+last) {
			return nil, nil
		}
		return f(req)
	}
	r.trouble.Store(&trouble)
	time.AfterFunc(lasting, func() { r.trouble.Store(nil) })
}

func (r *real) config(dir string) Config {
	log := zerolog.New(&r.log).Level(zerolog.TraceLevel)
	return Config{Homeserver: r.server.URL, User: r.user.String(), Password: r.password, Dir: dir, DeviceName: "our bot", Logger: &log}
}

func (r *real) open(t *testing.T, config Config) *Bot {
	t.Helper()
	bot, err := open(t.Context(), config, r)
	require.NoError(t, err)
	bot.signals = nil
	return bot
}

// devices are those of the bot's user, as the bot sees them.
func (r *real) devices(t *testing.T, bot *Bot) (all []id.DeviceID) {
	t.Helper()
	resp, err := bot.Client.GetDevicesInfo(t.Context())
	require.NoError(t, err)
	for _, device := range resp.Devices {
		all = append(all, device.DeviceID)
	}
	return all
}

// has asserts that another user reads all those keys.
func (r *real) has(t *testing.T, keys []string) {
	t.Helper()
	client, err := r.server.Register(t.Context(), "reader")
	require.NoError(t, err)
	_, err = client.JoinRoomByID(t.Context(), r.room)
	require.NoError(t, err)
	store, err := roomkv.New(client, r.room.String())
	require.NoError(t, err)
	there, err := store.Keys(t.Context())
	require.NoError(t, err)
	assert.Subset(t, there, keys, "no acknowledged write is lost")
}

// refreshable tells whether the homeserver gives access tokens that end within seconds.
func refreshable(bot *Bot) bool {
	token := bot.keeper.Token()
	return token.RefreshToken != "" && !token.Expires.IsZero() && time.Until(token.Expires) < 10*time.Second
}

// A bot signs in by its password, and goes on with its session at later starts.
func TestRealSignIn(t *testing.T) {
	r := newReal(t)
	dir := filepath.Join(t.TempDir(), "bot")
	wrong := r.config(filepath.Join(t.TempDir(), "wrong"))
	wrong.Password = "wrong"
	_, err := open(t.Context(), wrong, r)
	require.ErrorIs(t, err, ErrWrongPassword)

	r.all()
	bot := r.open(t, r.config(dir))
	t.Logf("the first start makes %d requests", r.all())
	devices, err := bot.Client.GetDevicesInfo(t.Context())
	require.NoError(t, err)
	require.Len(t, devices.Devices, 1)
	assert.Equal(t, "our bot", devices.Devices[0].DisplayName)
	secret := hstest.EncryptedRoom(t, bot.Client)
	store, err := bot.Store(secret.String())
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "key", "value"))
	require.NoError(t, bot.Close())
	text, err := os.ReadFile(filepath.Join(dir, "recovery.key"))
	require.NoError(t, err)
	key := strings.TrimSpace(string(text))
	r.secrets[key] = true

	r.all()
	again := r.open(t, r.config(dir))
	assert.Equal(t, bot.Client.DeviceID, again.Client.DeviceID)
	ctx, stop := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- again.Run(ctx) }()
	require.Eventually(t, func() bool { return r.requests("sync") > 0 }, time.Minute, time.Millisecond)
	assert.Zero(t, r.requests("login"))
	asked := r.all()
	t.Logf("a later start makes %d requests up to its first sync, and with it", asked)
	assert.LessOrEqual(t, asked, 5)
	stop()
	require.NoError(t, <-ended)
	require.NoError(t, again.Close())
	r.private(t, dir)

	// Without the folder the recovery key brings back the value, and the device is another one.
	config := r.config("")
	config.RecoveryKey = key
	for range 3 {
		bare := r.open(t, config)
		store, err := bare.Store(secret.String())
		require.NoError(t, err)
		value, err := roomkv.Get[string](t.Context(), store, "key")
		require.NoError(t, err)
		assert.Equal(t, "value", value)
		assert.LessOrEqual(t, len(r.devices(t, bare)), 3, "the folder's, this one and the one before it")
		require.NoError(t, bare.Close())
	}
	r.silent(t)
}

func TestRealSignInByToken(t *testing.T) {
	r := newReal(t)
	device, err := r.server.NewDevice(t.Context(), r.user)
	require.NoError(t, err)
	config := r.config(filepath.Join(t.TempDir(), "bot"))
	config.Password, config.AccessToken = "", device.AccessToken
	r.secrets[device.AccessToken] = true
	bot := r.open(t, config)
	assert.Equal(t, device.DeviceID, bot.Client.DeviceID)
	require.NoError(t, bot.Close())
	_, err = device.Logout(t.Context())
	require.NoError(t, err)
	_, err = open(t.Context(), config, r)
	require.ErrorIs(t, err, ErrSignedOut)
	r.silent(t, err.Error())
}

// realTroubles are what happens to a session on a homeserver whose access tokens end after some seconds.
var realTroubles = []struct {
	name    string
	trouble func(r *real)
	lasting time.Duration
}{
	{"access tokens expire, and the session ends softly", func(*real) {}, 50 * time.Second},
	{"a refresh is answered with 503", func(r *real) {
		r.failing("refresh", 5*time.Second, func(req *http.Request) (*http.Response, error) {
			return status(http.StatusServiceUnavailable)(req, nil)
		})
	}, 15 * time.Second},
	{"a refresh is done, and its answer is lost", func(r *real) {
		r.failing("refresh", 5*time.Second, func(req *http.Request) (*http.Response, error) {
			resp, err := http.DefaultTransport.RoundTrip(req)
			if err == nil {
				_ = resp.Body.Close()
			}
			return nil, errors.Join(err, errors.New("connection reset"))
		})
	}, 15 * time.Second},
	{"a login is answered with 502", func(r *real) {
		r.failing("login", 25*time.Second, func(req *http.Request) (*http.Response, error) { return status(http.StatusBadGateway)(req, nil) })
	}, 40 * time.Second},
}

// Puts go on while access tokens end and are refreshed, and while the session ends and the bot signs in again. None is lost, and the device stays.
func TestRealPutsWhileTheSessionIsRenewed(t *testing.T) {
	for _, test := range realTroubles {
		t.Run(test.name, func(t *testing.T) {
			r := newReal(t)
			dir := filepath.Join(t.TempDir(), "bot")
			bot := r.open(t, r.config(dir))
			if !refreshable(bot) {
				require.NoError(t, bot.Close())
				t.Skip("the homeserver's access tokens do not end within seconds")
			}
			device := bot.Client.DeviceID
			store, err := bot.Store(r.room.String())
			require.NoError(t, err)
			ctx, stop := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- bot.Run(ctx) }()
			time.AfterFunc(2*time.Second, func() { test.trouble(r) })
			done := write(t, store, "key", test.lasting)
			assert.Empty(t, done.errs)
			assert.Len(t, done.acked, int(test.lasting/(50*time.Millisecond)))
			t.Logf("%d Puts, the slowest took %v; %d logins, %d refreshes", len(done.acked), done.slow.Round(time.Millisecond), r.requests("login"), r.requests("refresh"))
			assert.Equal(t, []id.DeviceID{device}, r.devices(t, bot), "the device stays")
			stop()
			require.NoError(t, <-ended)
			require.NoError(t, bot.Close())
			r.has(t, done.acked)
			r.private(t, dir)
		})
	}
}

// Somebody removes the bot's device, or changes its password, while it writes.
func TestRealSignedOut(t *testing.T) {
	for _, how := range []string{"device removed", "password changed"} {
		t.Run(how, func(t *testing.T) {
			r := newReal(t)
			dir := filepath.Join(t.TempDir(), "bot")
			config := r.config(dir)
			config.NoEncryption = true
			bot := r.open(t, config)
			device := bot.Client.DeviceID
			store, err := bot.Store(r.room.String())
			require.NoError(t, err)
			ended := make(chan error, 1)
			go func() { ended <- bot.Run(t.Context()) }()
			over := make(chan time.Duration, 1)
			go func() {
				time.Sleep(2 * time.Second)
				person, err := r.server.NewDevice(t.Context(), r.user)
				if !assert.NoError(t, err) {
					return
				}
				at := time.Now()
				if how == "device removed" {
					assert.NoError(t, r.withPassword(t.Context(), person, person.BuildClientURL("v3", "delete_devices"), map[string]any{"devices": []id.DeviceID{device}}))
				} else {
					assert.NoError(t, r.withPassword(t.Context(), person, person.BuildClientURL("v3", "account", "password"), map[string]any{"new_password": "another one", "logout_devices": true}))
				}
				<-bot.keeper.Ended()
				over <- time.Since(at)
			}()
			done := write(t, store, "key", 6*time.Second)
			require.NotEmpty(t, done.errs)
			for i, err := range done.errs {
				require.ErrorIs(t, err, ErrSignedOut)
				assert.Less(t, done.late[i], 5*time.Second)
				r.silent(t, err.Error())
			}
			require.ErrorIs(t, <-ended, ErrSignedOut)
			took := <-over
			assert.Less(t, took, 5*time.Second)
			t.Logf("%d Puts were acknowledged, %d failed, the slowest took %v; the bot knew after %v", len(done.acked), len(done.errs), done.slow.Round(time.Millisecond), took.Round(time.Millisecond))
			require.NoError(t, bot.Close())
			if how == "password changed" {
				_, err := open(t.Context(), config, r)
				require.ErrorIs(t, err, ErrWrongPassword)
				config.Password = "another one"
			}
			again := r.open(t, config)
			assert.NotEqual(t, device, again.Client.DeviceID)
			require.NoError(t, again.Close())
			r.has(t, done.acked)
			r.private(t, dir)
		})
	}
}

// withPassword makes a request of a person, and gives the password where the homeserver asks for it.
func (r *real) withPassword(ctx context.Context, client *mautrix.Client, address string, body map[string]any) error {
	send := func() (string, error) {
		answer, err := client.MakeFullRequest(ctx, mautrix.FullRequest{Method: http.MethodPost, URL: address, RequestJSON: body})
		var asked mautrix.RespUserInteractive
		_ = json.Unmarshal(answer, &asked)
		return asked.Session, err
	}
	session, err := send()
	if err == nil {
		return nil
	}
	body["auth"] = map[string]any{
		"type": "m.login.password", "session": session, "password": r.password, "identifier": map[string]any{"type": "m.id.user", "user": r.user},
	}
	_, err = send()
	return err
}

// killed is a transport of a process that ends with its n-th request: no further one is sent, and the n-th is either not sent, or nobody hears what
// came of it.
type killed struct {
	next http.RoundTripper
	n    int64
	sent bool
	so   atomic.Int64
}

var errKilled = errors.New("the process was killed")

// RoundTrip implements [http.RoundTripper].
func (k *killed) RoundTrip(req *http.Request) (*http.Response, error) {
	switch so := k.so.Add(1); {
	case so < k.n:
		return k.next.RoundTrip(req)
	case so == k.n && k.sent:
		if resp, err := k.next.RoundTrip(req); err == nil {
			_ = resp.Body.Close()
		}
	}
	return nil, errKilled
}

// A first start is killed at each of its requests, from the look at the homeserver to the key backup, and the next start too.
func TestRealFirstStartKilledAtEachRequest(t *testing.T) {
	for _, sent := range []bool{false, true} {
		kills := int64(0)
		for done := false; !done; {
			kills++
			done = killedAt(t, kills, sent)
		}
		t.Logf("a first start was killed at each of its %d requests (sent: %v)", kills-1, sent)
		assert.Greater(t, kills, int64(15))
	}
}

// killedAt kills a first start at its n-th request. It tells whether the start had less.
func killedAt(t *testing.T, n int64, sent bool) (done bool) {
	t.Helper()
	what := fmt.Sprintf("killed at request %d, sent: %v", n, sent)
	r := newReal(t)
	config := r.config(filepath.Join(t.TempDir(), "bot"))
	keys := map[string]bool{}
	start := func(base http.RoundTripper) (*Bot, error) {
		bot, err := open(mautrix.WithMaxRetries(t.Context(), 0), config, base)
		if text, err := os.ReadFile(filepath.Join(config.Dir, "recovery.key")); err == nil {
			keys[strings.TrimSpace(string(text))] = true
		}
		return bot, err
	}
	bot, err := start(&killed{next: r, n: n, sent: sent})
	if err == nil {
		require.NoError(t, bot.Close())
		return true
	}
	require.ErrorIs(t, err, errKilled, what)
	if bot, err := start(&killed{next: r, n: n/2 + 1, sent: sent}); err == nil {
		require.NoError(t, bot.Close())
	} else {
		require.ErrorIs(t, err, errKilled, what)
	}
	bot, err = start(r)
	require.NoError(t, err, what)
	assert.Len(t, keys, 1, what)
	assert.Equal(t, []id.DeviceID{bot.Client.DeviceID}, r.devices(t, bot), what)
	require.NoError(t, bot.Close())
	return t.Failed()
}
