package roomkv

import (
	"context"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// askAgain is how long the homeserver's word that a room is not encrypted counts.
const askAgain = time.Minute

// encryptedRooms remembers what the homeserver said about rooms' encryption. The zero value is ready, and methods
// are safe for concurrent use.
type encryptedRooms struct {
	mu        sync.Mutex
	encrypted map[id.RoomID]bool // for good: a room cannot be made unencrypted again
	clear     map[id.RoomID]time.Time
}

// get is not known where the homeserver has not been asked within askAgain.
func (e *encryptedRooms) get(room id.RoomID) (encrypted, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.encrypted[room] {
		return true, true
	}
	asked, ok := e.clear[room]
	return false, ok && time.Since(asked) < askAgain
}

func (e *encryptedRooms) set(room id.RoomID, encrypted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.encrypted == nil {
		e.encrypted, e.clear = map[id.RoomID]bool{}, map[id.RoomID]time.Time{}
	}
	if encrypted {
		e.encrypted[room] = true
		delete(e.clear, room)
	} else {
		e.clear[room] = time.Now()
	}
}

// mayWriteClear fails where a value must not be written in the clear: with ErrNoCrypto in an encrypted room,
// and with the request's error where it is not known whether the room is one.
func (e *encryptedRooms) mayWriteClear(ctx context.Context, state roomState) error {
	encrypted, err := e.isEncrypted(ctx, state)
	if err != nil {
		return fmt.Errorf("%w; nothing was written, for the room may be encrypted", err)
	}
	if encrypted {
		return fail(ErrNoCrypto, nil, "%s is encrypted and this version of roomkv cannot encrypt, so nothing was written; WithEncryption(false) would write values that the homeserver can read", state.room)
	}
	return nil
}

// isEncrypted asks the homeserver, once a minute while the answer is no. Sooner than that, the client's state store
// knows that the room became encrypted, if the client's sync feeds it; what that store does not know it calls
// unencrypted, so its no counts for nothing.
func (e *encryptedRooms) isEncrypted(ctx context.Context, state roomState) (bool, error) {
	encrypted, known := e.get(state.room)
	if !encrypted && state.client.StateStore != nil {
		// An error here leaves it to the homeserver.
		synced, err := state.client.StateStore.IsEncrypted(ctx, state.room)
		encrypted = err == nil && synced
	}
	if !encrypted && known {
		return false, nil
	}
	if !encrypted {
		// One of those who want to know asks, and the others hear its answer.
		unlock, err := commit.Lock(ctx, commit.Dict{Room: state.room, Type: event.StateEncryption.Type})
		if err != nil {
			return false, err
		}
		defer unlock()
		if encrypted, known = e.get(state.room); known {
			return encrypted, nil
		}
		state.eventType = event.StateEncryption
		evt, err := state.get(ctx, "")
		if err != nil {
			return false, err
		}
		encrypted = evt != nil
	}
	e.set(state.room, encrypted)
	return encrypted, nil
}
