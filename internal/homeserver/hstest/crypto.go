package hstest

import (
	"context"
	"maps"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// oneTimeKeys is how many one-time keys a device of a test has. mautrix makes 50 before a device's first request, which would be most of what a test
// with encryption computes.
const oneTimeKeys = 10

type account struct{ olm.Account }

// MaxNumberOfOneTimeKeys implements [olm.Account]. mautrix makes half as many (v0.32.0).
func (account) MaxNumberOfOneTimeKeys() uint { return 2 * oneTimeKeys }

func init() {
	create, blank, pickled := olm.InitNewAccount, olm.InitBlankAccount, olm.InitNewAccountFromPickled
	olm.InitNewAccount = func() (olm.Account, error) { return few(create()) }
	olm.InitBlankAccount = func() olm.Account { return account{blank()} }
	olm.InitNewAccountFromPickled = func(text, key []byte) (olm.Account, error) { return few(pickled(text, key)) }
}

func few(of olm.Account, err error) (olm.Account, error) { return account{of}, err }

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
	return NewCryptoIn(ctx, client, NewCryptoStore())
}

// NewCryptoIn is [NewCrypto] with a store that can know of the client's device already, as that of a process that begins again does.
func NewCryptoIn(ctx context.Context, client *mautrix.Client, store *CryptoStore) (*cryptohelper.CryptoHelper, error) {
	if client.StateStore == nil {
		client.StateStore = mautrix.NewMemoryStateStore()
	}
	helper, err := cryptohelper.NewCryptoHelper(client, []byte("of a test"), store)
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

// NewCryptoStore returns a store that knows nothing.
func NewCryptoStore() *CryptoStore { return &CryptoStore{MemoryStore: crypto.NewMemoryStore(nil)} }

// CryptoStore is mautrix's in memory, whose signatures of keys are written under a lock for reading only (v0.31.0): a sync and an
// Encrypt that learn of devices at once would write them together.
type CryptoStore struct {
	*crypto.MemoryStore
	signatures sync.Mutex
}

func (s *CryptoStore) PutSignature(ctx context.Context, signedUser id.UserID, signed id.Ed25519, signer id.UserID, key id.Ed25519, signature string) error {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.PutSignature(ctx, signedUser, signed, signer, key, signature)
}

func (s *CryptoStore) GetSignaturesForKeyBy(ctx context.Context, user id.UserID, key id.Ed25519, signer id.UserID) (map[id.Ed25519]string, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	signatures, err := s.MemoryStore.GetSignaturesForKeyBy(ctx, user, key, signer)
	return maps.Clone(signatures), err
}

func (s *CryptoStore) IsKeySignedBy(ctx context.Context, user id.UserID, key id.Ed25519, signer id.UserID, signerKey id.Ed25519) (bool, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.IsKeySignedBy(ctx, user, key, signer, signerKey)
}

func (s *CryptoStore) DropSignaturesByKey(ctx context.Context, user id.UserID, key id.Ed25519) (int64, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.DropSignaturesByKey(ctx, user, key)
}
