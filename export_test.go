package roomkv

import (
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
)

// ForgetAccounts makes what comes next be as in a new process, for account data of the room.
func ForgetAccounts(room id.RoomID) { fallback.Process.Forget(room) }

// PassTime makes it be long ago that power was asked for in the room, and that the stores saw that a room was upgraded or failed to follow it.
func PassTime(room id.RoomID, stores ...*Store) {
	for _, s := range stores {
		s.core.upgrades.mu.Lock()
		for _, about := range s.core.upgrades.rooms {
			if about.since = (time.Time{}); about.tombstone != nil {
				long := *about.tombstone
				long.seen = time.Time{}
				about.tombstone = &long
			}
		}
		s.core.upgrades.mu.Unlock()
	}
	fallback.Process.AskAgain(room)
}

// AccountType is the type of the account data of a store's memory.
func AccountType(s *Store) string { return fallback.TypeOf(s.core.Room("")) }
