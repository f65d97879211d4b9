package roomkv

import (
	"context"
	"fmt"
	"sync"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// encryptedRooms remembers what the homeserver said about rooms' encryption. The zero value is ready.
type encryptedRooms struct {
	mu    sync.Mutex
	known map[id.RoomID]bool // true stays: a room cannot be made unencrypted again
}

func (e *encryptedRooms) get(room id.RoomID) (encrypted, known bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	encrypted, known = e.known[room]
	return encrypted, known
}

func (e *encryptedRooms) set(room id.RoomID, encrypted bool) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.known == nil {
		e.known = map[id.RoomID]bool{}
	}
	e.known[room] = e.known[room] || encrypted
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

// isEncrypted asks the homeserver once a room. That the room became encrypted later is learned from the
// client's state store, which a client that syncs keeps up to date; what that store does not know it calls
// unencrypted, so its no counts for nothing.
func (e *encryptedRooms) isEncrypted(ctx context.Context, state roomState) (bool, error) {
	encrypted, known := e.get(state.room)
	if !encrypted && state.client.StateStore != nil {
		// An error here is a reason to ask, which happens below where nothing is known.
		synced, err := state.client.StateStore.IsEncrypted(ctx, state.room)
		encrypted = err == nil && synced
	}
	if !encrypted && !known {
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
