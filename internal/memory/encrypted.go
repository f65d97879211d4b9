package memory

import (
	"context"
	"fmt"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/seal"
)

// Sealer says how new values are sent: without a sealer they are part of the dict. Again is for a write that has asked before.
//
// Errors: ErrNoCrypto where the values must be encrypted and cannot be; and those of requests.
func (r Room) Sealer(ctx context.Context, again bool) (commit.Sealer, error) {
	if !r.Encrypt {
		return nil, nil
	}
	encrypted, err := r.IsEncrypted(ctx, again)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; nothing was written, for the room may be encrypted", err)
	case !encrypted && r.Secret != nil:
		return nil, fault.Of(fault.ErrNoCrypto, nil, "%s is not encrypted, where the names of keys cannot be hidden, so nothing was written; encrypt the room, or leave out WithSealedKeys", r.ID)
	case !encrypted:
		return nil, nil
	case r.Client.Crypto == nil:
		return nil, fault.Of(fault.ErrNoCrypto, nil, "%s is encrypted, or has encrypted values in its memory, and the client has no Crypto, so nothing was written; give it one (mautrix's cryptohelper), or write values that the homeserver can read with WithEncryption(false)", r.ID)
	}
	return seal.Room{Room: r.Room, Megolm: &r.Megolm}.Sealer(), nil
}

// AskedSealer is Sealer for who has just asked whether the room is encrypted.
func (r Room) AskedSealer(ctx context.Context) (commit.Sealer, error) { return r.Sealer(ctx, true) }

// IsEncrypted tells whether the room is encrypted; see [seal.Rooms.IsEncrypted].
func (r Room) IsEncrypted(ctx context.Context, again bool) (bool, error) {
	about := seal.Question{Again: again, Live: r.Follower.TellsEncryption(r.ID)}
	if !r.Layout.Together("") { // else each write has read all that there is
		about.Look = r.lookForReferences
	}
	return r.Encrypted.IsEncrypted(ctx, r.Room, about)
}

func (r Room) lookForReferences(ctx context.Context) error {
	_, err := r.Scan(ctx, r.Type, func() matrix.Visit {
		return func(evt *matrix.Event, _ bool) error {
			if r.Layout.Holds(*evt.StateKey) {
				_ = r.Parsed(evt) // learns of references
			}
			return nil
		}
	})
	return err
}
