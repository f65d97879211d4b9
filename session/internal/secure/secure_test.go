package secure_test

import (
	"context"
	"errors"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
	"github.com/roomkv/roomkv/session/internal/secure"
)

// through is a transport that shows each request before it is sent.
type through struct {
	http.RoundTripper
	show func(req *http.Request)
}

func (t through) RoundTrip(req *http.Request) (*http.Response, error) {
	t.show(req)
	return t.RoundTripper.RoundTrip(req)
}

func TestANewAccountIsSetUpOnce(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		kept := ""
		var once sync.Once
		client, _ := bot.client(t)
		client.Client.Transport = through{client.Client.Transport, func(req *http.Request) {
			if changes(req.Method, req.URL.Path) {
				once.Do(func() { kept = bot.key(t) })
			}
		}}
		wire := hstest.Record(client)
		opened, err := secure.Open(t.Context(), bot.config(t, client, ""))
		require.NoError(t, err)
		t.Logf("a set-up makes %d requests", wire.Count())
		key := bot.key(t)
		assert.Equal(t, key, kept, "the key was there before the first upload")
		assert.Equal(t, id.TrustStateCrossSignedTOFU, bot.seenAs(t))
		all, chosen := bot.storageKeys(t)
		assert.Equal(t, []string{chosen}, all)
		version := opened.Backup().Version()
		require.NoError(t, opened.Close())

		for _, given := range []string{"", key, strings.ReplaceAll(key, " ", "") + "\n"} {
			again, wire := bot.open(t, given)
			assert.LessOrEqual(t, wire.Count(), 3, "%v", wire.Requests())
			for _, request := range wire.Requests() {
				assert.False(t, changes(request.Method, request.Path), request.Path)
			}
			assert.Equal(t, version, again.Backup().Version())
			assert.NotNil(t, again.Machine().CrossSigningKeys)
			require.NoError(t, again.Close())
		}
		assert.Equal(t, key, bot.key(t))
		entries, err := os.ReadDir(bot.dir)
		require.NoError(t, err)
		for _, entry := range entries {
			about, err := entry.Info()
			require.NoError(t, err)
			assert.Equal(t, os.FileMode(0o600), about.Mode().Perm(), entry.Name())
		}
	})
}

func TestTheRecoveryKeyIsHandedOver(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		start := func(answer error) (told string, err error) {
			client, _ := bot.client(t)
			config := bot.config(t, client, told)
			config.OnRecoveryKey = func(_ context.Context, key string) error {
				told = key
				return answer
			}
			opened, err := secure.Open(t.Context(), config)
			if err == nil {
				require.NoError(t, opened.Close())
			}
			return told, err
		}
		down := errors.New("the vault is down")
		first, err := start(down)
		require.ErrorIs(t, err, down)
		assert.NotContains(t, err.Error(), first)
		assert.Equal(t, first, bot.key(t))
		again, err := start(nil)
		require.NoError(t, err)
		assert.Equal(t, first, again)
		assert.NoFileExists(t, filepath.Join(bot.dir, "recovery.key"))
		_, err = start(nil)
		require.ErrorIs(t, err, secure.ErrRecoveryKeyNeeded)
		_, _ = bot.open(t, first)
	})
}

// A person has set up the account in another client, as Element does.
func TestAnAccountThatElementHasSetUp(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		client, err := server.NewDevice(t.Context(), bot.user)
		require.NoError(t, err)
		element := hstest.Crypto(t, client).Machine()
		key, _, err := element.GenerateAndUploadCrossSigningKeys(t.Context(), nil, "")
		require.NoError(t, err)
		_, backup, err := keybackup.SetUp(t.Context(), element, key)
		require.NoError(t, err)
		allBefore, chosenBefore := bot.storageKeys(t)

		assert.ErrorIs(t, bot.fails(t, ""), secure.ErrRecoveryKeyNeeded)
		opened, _ := bot.open(t, key)
		assert.Equal(t, backup.Version(), opened.Backup().Version())
		assert.Equal(t, id.TrustStateCrossSignedTOFU, bot.seenAs(t))
		all, chosen := bot.storageKeys(t)
		assert.Equal(t, allBefore, all)
		assert.Equal(t, chosenBefore, chosen)
		assert.NoFileExists(t, filepath.Join(bot.dir, "recovery.key"), "a key that was given is not written")
		require.NoError(t, opened.Close())
		_, wire := bot.open(t, key)
		assert.LessOrEqual(t, wire.Count(), 3)
	})
}

func TestWhatCannotBeOpenedSaysWhy(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		opened, _ := bot.open(t, "")
		key := bot.key(t)
		client, _ := bot.client(t)
		ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
		_, err := secure.Open(ctx, bot.config(t, client, ""))
		require.ErrorIs(t, err, context.DeadlineExceeded, "who waits for the lock has time")
		cancel()
		config := bot.config(t, client, "")
		config.LockWait = 10 * time.Millisecond
		_, err = secure.Open(t.Context(), config)
		require.ErrorIs(t, err, secure.ErrInUse)
		require.NoError(t, opened.Close())

		assert.ErrorIs(t, bot.fails(t, "EsTx mistyped"), secure.ErrWrongRecoveryKey)
		assert.ErrorIs(t, bot.fails(t, secure.NewRecoveryKey()), secure.ErrWrongRecoveryKey)
		require.NoError(t, os.Remove(filepath.Join(bot.dir, "recovery.key")))
		assert.ErrorIs(t, bot.fails(t, ""), secure.ErrRecoveryKeyNeeded)

		other := *bot
		other.dir = t.TempDir() // the device's keys are gone
		assert.ErrorIs(t, other.fails(t, key), secure.ErrNoDevice)
		other.device = ""
		assert.ErrorIs(t, other.fails(t, key), secure.ErrNoDevice)
		other.device, other.dir = bot.device, ""
		fresh := newAccount(t, server)
		fresh.dir = ""
		assert.ErrorIs(t, fresh.fails(t, ""), secure.ErrRecoveryKeyNeeded)

		_, _ = bot.open(t, key)
	})
}

// The public keys of cross-signing are there, and the private ones are nowhere, or not for the recovery key.
func TestCrossSigningWithoutPrivateKeys(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		client, err := server.NewDevice(t.Context(), bot.user)
		require.NoError(t, err)
		machine := hstest.Crypto(t, client).Machine()
		keys, err := machine.GenerateCrossSigningKeys()
		require.NoError(t, err)
		require.NoError(t, machine.PublishCrossSigningKeys(t.Context(), keys, nil))
		assert.ErrorIs(t, bot.fails(t, ""), secure.ErrCrossSigning)
		assert.NoFileExists(t, filepath.Join(bot.dir, "recovery.key"))
		assert.ErrorIs(t, bot.fails(t, secure.NewRecoveryKey()), secure.ErrCrossSigning)

		key, _, err := keybackup.SetUp(t.Context(), machine, "")
		require.NoError(t, err)
		assert.ErrorIs(t, bot.fails(t, key), secure.ErrCrossSigning)

		// Somebody has set up the account, and cross-signing was reset later by a client that did not have secret storage.
		second := newAccount(t, server)
		opened, _ := second.open(t, "")
		require.NoError(t, opened.Close())
		client, err = server.NewDevice(t.Context(), second.user)
		require.NoError(t, err)
		machine = hstest.Crypto(t, client).Machine()
		keys, err = machine.GenerateCrossSigningKeys()
		require.NoError(t, err)
		require.NoError(t, machine.PublishCrossSigningKeys(t.Context(), keys, func(asked *mautrix.RespUserInteractive) any {
			return &mautrix.ReqUIAuthLogin{
				BaseAuthData: mautrix.BaseAuthData{Type: mautrix.AuthTypePassword, Session: asked.Session}, User: second.user.String(), Password: second.password,
			}
		}))
		assert.ErrorIs(t, second.fails(t, ""), secure.ErrCrossSigning)
	})
}

// A device that was removed, and one that is new in the folder of another.
func TestAFolderWithAnotherDevice(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		opened, _ := bot.open(t, "")
		room := hstest.EncryptedRoom(t, opened.Machine().Client)
		client := opened.Machine().Client
		fakehstest.Sync(t, client)()
		encrypted, err := client.Crypto.Encrypt(t.Context(), room, event.EventMessage, map[string]any{"body": "hello"})
		require.NoError(t, err)
		before := opened.Machine().OwnIdentity()
		require.NoError(t, opened.Close())

		next, err := server.NewDevice(t.Context(), bot.user)
		require.NoError(t, err)
		bot.device, bot.token = next.DeviceID, next.AccessToken
		opened, _ = bot.open(t, "")
		assert.Equal(t, id.TrustStateCrossSignedTOFU, bot.seenAs(t))
		session, err := opened.Machine().CryptoStore.GetGroupSession(t.Context(), room, encrypted.SessionID)
		require.NoError(t, err)
		assert.NotNil(t, session, "what the device before had is still there")
		outbound, err := opened.Machine().CryptoStore.GetOutboundGroupSession(t.Context(), room)
		require.NoError(t, err)
		assert.Nil(t, outbound, "what the device before encrypted with is not used again")
		own := opened.Machine().OwnIdentity()
		assert.NotEqual(t, before.IdentityKey, own.IdentityKey)
		require.NoError(t, opened.Close())
		opened, _ = bot.open(t, "")
		assert.Equal(t, own.IdentityKey, opened.Machine().OwnIdentity().IdentityKey)
	})
}
