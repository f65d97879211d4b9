package roomkv

import (
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
)

// ForgetAccounts makes what comes next be as in a new process, for account data of the room.
func ForgetAccounts(room id.RoomID) { fallback.Forget(room) }

// PassTime makes it be long ago that power was asked for in the room, and that the stores failed to follow an upgrade.
func PassTime(room id.RoomID, stores ...*Store) {
	for _, s := range stores {
		s.core.upgrades.TryAgain()
	}
	fallback.AskAgain(room)
}

// AccountType is the type of the account data of a store's memory.
func AccountType(s *Store) string { return fallback.TypeOf(s.core.Room("")) }
