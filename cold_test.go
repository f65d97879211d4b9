package roomkv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
	"github.com/roomkv/roomkv/keybackup"
)

// The numbers of requests that docs/encryption.md promises until a process of an encrypted bot has its first value, beside the login and the syncs.
// One layout at a time: what other tests write meanwhile delays what the first sync tells of, and mautrix then asks for its own keys once more.
func TestColdStart(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		for _, test := range []struct {
			kept   bool // whether the process before has left its crypto store
			follow bool
			behind int // messages that were sent after the value
			want   int
		}{
			{true, true, 0, 3},
			{true, true, 60, 4},
			{true, false, 0, 4},
			{false, true, 0, 8},
			{false, true, 60, 9},
			{false, false, 0, 9},
		} {
			t.Run(fmt.Sprintf("%+v", test), func(t *testing.T) {
				ctx := t.Context()
				old := hstest.Client(t)
				cryptoStore := hstest.NewCryptoStore()
				helper, err := hstest.NewCryptoIn(ctx, old, cryptoStore)
				require.NoError(t, err)
				room := hstest.EncryptedRoom(t, old)
				recoveryKey, backup, err := keybackup.SetUp(ctx, helper.Machine(), "")
				require.NoError(t, err)
				require.NoError(t, open(t, old, room, layout, roomkv.WithKeyBackup(backup)).Put(ctx, "k", 1))
				if talk(t, old, room, test.behind); test.behind > 0 {
					time.Sleep(1100 * time.Millisecond) // what the sync lists of a moment alone need not be all of that
					talk(t, old, room, 1)
				}
				require.NoError(t, helper.Close())
				time.Sleep(100 * time.Millisecond) // Dendrite's sync lags some milliseconds behind what it has acknowledged

				process := again(t, old)
				if !test.kept {
					cryptoStore = hstest.NewCryptoStore()
				} else {
					process, err = mautrix.NewClient(old.HomeserverURL.String(), old.UserID, old.AccessToken)
					require.NoError(t, err)
					process.DeviceID = old.DeviceID
				}
				recorder := hstest.Record(process)
				helper, err = hstest.NewCryptoIn(ctx, process, cryptoStore)
				require.NoError(t, err)
				opened, err := keybackup.Open(ctx, helper.Machine(), recoveryKey)
				require.NoError(t, err)
				store := open(t, process, room, layout, roomkv.WithKeyBackup(opened))
				if test.follow {
					require.NoError(t, store.Follow())
					syncing(t, process)
				}
				require.NoError(t, store.Get(ctx, "k", new(int)))
				want := test.want
				if !test.follow && stateKeyOf(t, old, room, "k") == wire.ShardKey(wire.Shard("k", shards), shards) {
					want++ // over how many events keys are spread
				}
				assert.Equal(t, want, requests(recorder), sent(recorder))
			})
		}
	})
}
