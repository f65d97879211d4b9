package roomkv

import (
	"context"
	"fmt"
	"reflect"

	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/seal"
)

// Sealer implements [commit.Room].
func (p place) Sealer(ctx context.Context, again bool) (commit.Sealer, error) {
	if !p.core.encrypt {
		return nil, nil
	}
	encrypted, err := p.isEncrypted(ctx, again)
	switch {
	case err != nil:
		return nil, fmt.Errorf("%w; nothing was written, for the room may be encrypted", err)
	case !encrypted && p.core.secret != nil:
		return nil, fault.Of(ErrNoCrypto, nil, "%s is not encrypted, where the names of keys cannot be hidden, so nothing was written; encrypt the room, or leave out WithSealedKeys", p.ID)
	case !encrypted:
		return nil, nil
	case p.Client.Crypto == nil:
		return nil, fault.Of(ErrNoCrypto, nil, "%s is encrypted, or has encrypted values in its memory, and the client has no Crypto, so nothing was written; give it one (mautrix's cryptohelper), or write values that the homeserver can read with WithEncryption(false)", p.ID)
	}
	return p.megolm().Sealer(), nil
}

// megolm encrypts and decrypts values of the room.
func (r roomState) megolm() seal.Room {
	return seal.Room{Room: r.Room, Megolm: &r.core.megolm, WaitUntil: r.waitUntil}
}

// sealer is the room's sealer, for who has just asked whether the room is encrypted. It is nil where values are not to be encrypted.
func (r roomState) sealer(ctx context.Context) (commit.Sealer, error) {
	return place{roomState: r}.Sealer(ctx, true)
}

// isEncrypted tells whether the room is encrypted; see [seal.Rooms.IsEncrypted].
func (r roomState) isEncrypted(ctx context.Context, again bool) (bool, error) {
	about := seal.Question{Again: again, Live: r.core.follower.TellsEncryption(r.ID)}
	if r.core.layout.oneKey() { // else each write has read the dict that it changes
		about.Look = r.lookForReferences
	}
	return r.core.encrypted.IsEncrypted(ctx, r.Room, about)
}

func (r roomState) lookForReferences(ctx context.Context) error {
	_, err := r.scan(ctx, func() matrix.Visit {
		return func(evt *matrix.Event, _ bool) error {
			if r.core.layout.holds(*evt.StateKey) {
				_ = place{r, *evt.StateKey}.snapshot(evt) // learns of references
			}
			return nil
		}
	})
	return err
}

// mautrix warns of each event that it decrypts for which it has no Go type, and so of each value that the sync brings back. The map is
// not guarded: only the types that are known from the start can be put there.
func init() {
	for _, eventType := range []string{DefaultEventType, "dev.opsdroid.database", "opsdroid.database"} {
		event.TypeMap[seal.ContentType(eventType)] = reflect.TypeFor[struct{}]()
	}
}
