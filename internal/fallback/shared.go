package fallback

import (
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// accountOf is what all stores of the process know of account data. Each write replaces the whole of it, so that they must know of each other's.
func accountOf(dict commit.Address) *account {
	return commit.ThisProcess.Keep(dict, func() any { return &account{dict: dict, gate: newGate()} }).(*account)
}

// Forget forgets what is known of a room, as a new process does.
func Forget(room id.RoomID) { commit.ThisProcess.Kept(room, func(any) bool { return false }) }

// AskAgain makes the homeserver be asked for the power in a room before the next write.
func AskAgain(room id.RoomID) {
	commit.ThisProcess.Kept(room, func(kept any) bool {
		kept.(*account).powerChanged()
		return true
	})
}
