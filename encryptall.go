package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/memory"
)

// EncryptAll encrypts the values that stand in the state of an encrypted room in the clear, because they were stored before
// it was encrypted, by a store without encryption, or by opsdroid. With [WithSealedKeys] it also seals keys that were stored
// without. It returns how many keys it has changed, and can be called again where it failed halfway. A value that cannot be
// read, or is too large, is left as it is, and its error returned when all others are done.
//
// A large value is uploaded again with another key, for the state has shown the first.
//
// What was in the clear stays in the history of the room's state, where the homeserver and the members can read it.
//
// It takes the requests of [Store.Keys], one to read each value whose key it seals that was not read before, and those of
// [Store.PutAll]; in the per-key layout each key that is sealed takes those of [Store.Delete] too. Writes of others in between
// are kept. But while keys are sealed no store without the secret may write: what it does to a key that has been read and
// not yet moved is lost.
//
// Errors: those of [Store.All] and [Store.PutAll]; [ErrNoCrypto] also where the room is not encrypted.
func (s *Store) EncryptAll(ctx context.Context) (changed int, err error) {
	ctx, op := s.begin(ctx, "EncryptAll")
	defer op.end(&err)
	err = s.write(ctx, nil, func(h memory.Handle) (err error) {
		changed, err = h.EncryptAll(ctx, s.prefix.listed(memory.Listing{}))
		return err
	})
	return changed, err
}
