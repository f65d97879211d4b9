package hstest

import (
	"context"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Crypto gives the client end-to-end encryption with stores in memory that know nothing yet, as mautrix's
// documentation says. Call it before the client syncs.
func Crypto(t testing.TB, client *mautrix.Client) *cryptohelper.CryptoHelper {
	t.Helper()
	helper, err := NewCrypto(t.Context(), client)
	require.NoError(t, err)
	return helper
}

// NewCrypto is [Crypto] for code without a testing.TB.
func NewCrypto(ctx context.Context, client *mautrix.Client) (*cryptohelper.CryptoHelper, error) {
	if client.StateStore == nil {
		client.StateStore = mautrix.NewMemoryStateStore()
	}
	helper, err := cryptohelper.NewCryptoHelper(client, []byte("of a test"), crypto.NewMemoryStore(nil))
	if err != nil {
		return nil, err
	}
	if err := helper.Init(ctx); err != nil {
		return nil, err
	}
	client.Crypto = helper
	return helper, nil
}

// EncryptedRoom makes a room as [Room] does, and turns encryption on.
func EncryptedRoom(t testing.TB, client *mautrix.Client, invite ...id.UserID) id.RoomID {
	t.Helper()
	return Room(t, client, &mautrix.ReqCreateRoom{
		Preset: "private_chat",
		Invite: invite,
		InitialState: []*event.Event{{
			Type:    event.StateEncryption,
			Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}},
	})
}
