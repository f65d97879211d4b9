package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
	"github.com/roomkv/roomkv/keybackup"
)

// The device and its crypto store are gone, and the recovery key is all there is.
func TestValuesOutliveTheCryptoStore(t *testing.T) {
	hstest.Parallel(t)
	hstest.Real(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		old := hstest.Client(t)
		room := hstest.EncryptedRoom(t, old)
		recorder := hstest.Record(old)
		recoveryKey, backup, err := keybackup.SetUp(ctx, hstest.Crypto(t, old).Machine(), "")
		require.NoError(t, err)
		store := open(t, old, room, layout, roomkv.WithKeyBackup(backup), roomkv.WithSealedKeys(secret))
		recorder.Reset()
		values := map[string]string{}
		for i := range 20 {
			key := fmt.Sprint("key ", i)
			values[key] = fmt.Sprint(i)
			require.NoError(t, store.Put(ctx, key, i))
		}
		uploads := 0
		for _, request := range recorder.Requests() {
			if request.Method == http.MethodPut && strings.Contains(request.Path, "/room_keys/keys") {
				uploads++
			}
		}
		assert.Equal(t, 1, uploads, "all were encrypted with one session")

		now := again(t, old)
		_, err = old.Logout(ctx)
		require.NoError(t, err)
		opened, err := keybackup.Open(ctx, hstest.Crypto(t, now).Machine(), recoveryKey)
		require.NoError(t, err)
		assert.Equal(t, values, memoryOf(t, open(t, now, room, layout, roomkv.WithKeyBackup(opened), roomkv.WithSealedKeys(secret))))
		entry, err := open(t, now, room, layout, roomkv.WithKeyBackup(opened), roomkv.WithSealedKeys(secret)).Entry(ctx, "key 0")
		require.NoError(t, err)
		assert.Equal(t, id.TrustStateBackup, entry.Trust)
	})
}

// failingBackup implements [roomkv.KeyBackup].
type failingBackup struct{ fails bool }

var errBackup = errors.New("no backup today")

func (b *failingBackup) Save(context.Context, id.RoomID, id.SessionID) error {
	if b.fails {
		return errBackup
	}
	return nil
}

func (b *failingBackup) Restore(context.Context, id.RoomID, id.SessionID) (bool, error) {
	return false, errBackup
}

func TestValueThatCouldBeLostIsNotWritten(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		backup := &failingBackup{fails: true}
		store, client, room := newEncrypted(t, layout, roomkv.WithKeyBackup(backup))
		recorder := hstest.Record(client)
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		require.ErrorIs(t, store.Put(ctx, "key", 1), errBackup)
		require.ErrorIs(t, roomkv.Update(ctx, store, "key", func(int, bool) (int, error) { return 1, nil }), errBackup)
		for _, request := range recorder.Requests() {
			assert.NotContains(t, request.Path, "/send/")
			hasKeys := strings.Contains(request.Path, "/state/") && !strings.HasSuffix(request.Path, wire.ShardsName)
			assert.False(t, request.Method == http.MethodPut && hasKeys, request.Path)
		}
		backup.fails = false
		require.NoError(t, store.Put(ctx, "key", 1))

		lost := again(t, client)
		hstest.Crypto(t, lost)
		err := open(t, lost, room, layout, roomkv.WithKeyBackup(backup), roomkv.WithKeyWait(0)).Get(ctx, "key", new(int))
		require.ErrorIs(t, err, roomkv.ErrUndecryptable)
		require.ErrorIs(t, err, errBackup)
	})
}

// Another client replaces or deletes the account's backup, and this process goes on writing with the session that it has saved.
func TestBackupThatIsReplacedWhileASessionIsInUse(t *testing.T) {
	remove := func(t *testing.T, other *mautrix.Client) {
		now, err := other.GetKeyBackupLatestVersion(t.Context())
		require.NoError(t, err)
		require.NoError(t, other.DeleteKeyBackupVersion(t.Context(), now.Version))
	}
	replace := func(key func(id.Ed25519) id.Ed25519) func(t *testing.T, other *mautrix.Client) {
		return func(t *testing.T, other *mautrix.Client) {
			now, err := other.GetKeyBackupLatestVersion(t.Context())
			require.NoError(t, err)
			_, err = other.CreateKeyBackupVersion(t.Context(), &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
				Algorithm: now.Algorithm, AuthData: backup.MegolmAuthData{PublicKey: key(now.AuthData.PublicKey)},
			})
			require.NoError(t, err)
		}
	}
	for name, test := range map[string]struct {
		change func(t *testing.T, other *mautrix.Client)
		err    error
	}{
		"deleted":      {remove, keybackup.ErrNoBackup},
		"another key":  {replace(func(id.Ed25519) id.Ed25519 { return "hSDwCYkwp1R0i33ctD73Wg2/Og0mOBr066SpjqqbTmo" }), keybackup.ErrKeyMismatch},
		"the same key": {replace(func(key id.Ed25519) id.Ed25519 { return key }), nil},
	} {
		for _, mode := range fakehs.Modes {
			t.Run(name+"/"+mode.String(), func(t *testing.T) {
				synctest.Test(t, func(t *testing.T) {
					ctx := t.Context()
					server := fakehstest.New(t, fakehs.Options{Mode: mode})
					bot := fakehstest.Client(t, server)
					recoveryKey, opened, err := keybackup.SetUp(ctx, hstest.Crypto(t, bot).Machine(), "")
					require.NoError(t, err)
					room := hstest.EncryptedRoom(t, bot)
					store := open(t, bot, room, roomkv.WithKeyBackup(opened))
					recorder := hstest.Record(bot)
					values := map[string]string{}
					put := func(n int) error {
						values[fmt.Sprint("key ", n)] = fmt.Sprint(n)
						return store.Put(ctx, fmt.Sprint("key ", n), n)
					}
					require.NoError(t, put(0))
					recorder.Reset()
					for n := range 20 {
						require.NoError(t, put(n))
						time.Sleep(29 * time.Second)
					}
					asked := 0
					for _, request := range recorder.Requests() {
						assert.NotContains(t, request.Path, "/room_keys/keys", "the session is there")
						if strings.HasSuffix(request.Path, "/room_keys/version") {
							asked++
						}
					}
					assert.Equal(t, 1, asked, "in ten minutes")

					test.change(t, fakehstest.Device(t, server, bot))
					time.Sleep(5 * time.Minute)
					recorder.Reset()
					err = put(20)
					if test.err != nil {
						require.ErrorIs(t, err, test.err)
						require.ErrorIs(t, put(20), test.err, "once more")
						for _, request := range recorder.Requests() {
							assert.NotContains(t, request.Path, "/send/")
							assert.False(t, request.Method == http.MethodPut && strings.Contains(request.Path, "/state/"), request.Path)
						}
						return
					}
					require.NoError(t, err)
					require.NoError(t, put(21))

					now := fakehstest.Device(t, server, bot)
					again, err := keybackup.Open(ctx, hstest.Crypto(t, now).Machine(), recoveryKey)
					require.NoError(t, err)
					assert.Equal(t, opened.Version(), again.Version())
					assert.Equal(t, values, memoryOf(t, open(t, now, room, roomkv.WithKeyBackup(again))))
				})
			})
		}
	}
}
