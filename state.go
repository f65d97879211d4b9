package roomkv

import (
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// roomState is the memory of one room as the store's options have it: in the room's state, or in account data, with the room's upgrades.
// It implements [memory.Memory].
type roomState struct {
	memory.Room
	core *core

	dead error // why nothing may be written here, nil where it may
}

// memory is where the room's memory is, but for upgrades.
func (r roomState) memory() memory.Memory {
	if r.core.fallback {
		return r.core.accounts.Memory(r.Room)
	}
	return r.InState()
}

// in is the memory of another room.
func (r roomState) in(room id.RoomID) roomState {
	r.Room, r.dead = r.Of(room), nil
	return r
}

// handle is the room with its memory.
func (r roomState) handle() memory.Handle {
	return memory.Handle{Room: r.Room, Memory: guard{r.memory(), r}}
}

// seen notes that a page of the room's events shows tombstones.
func (u *upgrades) seen(room id.RoomID, page matrix.Page) {
	for _, tombstone := range page.Tombstones {
		u.doubt(room, tombstone)
	}
}
