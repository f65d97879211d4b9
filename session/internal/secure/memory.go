package secure

import (
	"context"
	"maps"
	"sync"

	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/id"
)

// memoryStore is mautrix's crypto store in memory, whose signatures of keys are written under a lock for reading only (v0.32.0): a sync and an
// Encrypt that learn of devices at once would write them together.
type memoryStore struct {
	*crypto.MemoryStore
	signatures sync.Mutex
}

func newMemoryStore() *memoryStore { return &memoryStore{MemoryStore: crypto.NewMemoryStore(nil)} }

func (s *memoryStore) PutSignature(ctx context.Context, signedUser id.UserID, signed id.Ed25519, signer id.UserID, key id.Ed25519, signature string) error {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.PutSignature(ctx, signedUser, signed, signer, key, signature)
}

func (s *memoryStore) GetSignaturesForKeyBy(ctx context.Context, user id.UserID, key id.Ed25519, signer id.UserID) (map[id.Ed25519]string, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	signatures, err := s.MemoryStore.GetSignaturesForKeyBy(ctx, user, key, signer)
	return maps.Clone(signatures), err
}

func (s *memoryStore) IsKeySignedBy(ctx context.Context, user id.UserID, key id.Ed25519, signer id.UserID, signerKey id.Ed25519) (bool, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.IsKeySignedBy(ctx, user, key, signer, signerKey)
}

func (s *memoryStore) DropSignaturesByKey(ctx context.Context, user id.UserID, key id.Ed25519) (int64, error) {
	s.signatures.Lock()
	defer s.signatures.Unlock()
	return s.MemoryStore.DropSignaturesByKey(ctx, user, key)
}
