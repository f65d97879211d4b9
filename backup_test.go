package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// The device and its crypto store are gone, and the recovery key is all there is.
func TestValuesOutliveTheCryptoStore(t *testing.T) {
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
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		backup := &failingBackup{fails: true}
		store, client, room := newEncrypted(t, layout, roomkv.WithKeyBackup(backup))
		recorder := hstest.Record(client)
		ctx := mautrix.WithMaxRetries(t.Context(), 0)
		require.ErrorIs(t, store.Put(ctx, "key", 1), errBackup)
		require.ErrorIs(t, roomkv.Update(ctx, store, "key", func(int, bool) (int, error) { return 1, nil }), errBackup)
		for _, request := range recorder.Requests() {
			assert.NotContains(t, request.Path, "/send/")
			assert.False(t, request.Method == http.MethodPut && strings.Contains(request.Path, "/state/"), request.Path)
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
