package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/memory"
)

// EncryptAll encrypts what stands in the clear in the state of an encrypted room: stored before it was encrypted, by a store without encryption, or by
// opsdroid. With [WithSealedKeys] it also seals keys; meanwhile no store without the secret may write. Other writes in between are kept.
// What was in the clear stays in the room's history. What has expired is removed.
//
// It returns how many keys it has changed, and can be called again. The error of a value that cannot be read, or is too large, comes when all others are done.
// A large value is uploaded anew. It takes the requests of [Store.Keys] and [Store.PutAll], and more where it seals keys.
//
// Errors: those of [Store.All] and [Store.PutAll]; [ErrNoCrypto] in any other room.
func (s *Store) EncryptAll(ctx context.Context) (changed int, err error) {
	ctx, op := s.begin(ctx, "EncryptAll")
	defer op.end(&err)
	err = s.write(ctx, nil, func(h memory.Handle) (err error) {
		changed, err = h.EncryptAll(ctx, s.prefix.listed(memory.Listing{}))
		return err
	})
	return changed, err
}
