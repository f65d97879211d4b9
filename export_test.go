package roomkv

import (
	"context"
	"fmt"
	"maps"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// ForgetAccounts makes what comes next be as in a new process, for account data of the room.
func ForgetAccounts(room id.RoomID) {
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	maps.DeleteFunc(accounts.all, func(at commit.Dict, _ *account) bool { return at.Room == room })
}

// PassTime makes it be long ago that power was asked for in the room, that its memories were moved to the state, and that the stores saw
// that a room was upgraded or failed to follow it.
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
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	for at, a := range accounts.all {
		if at.Room != room {
			continue
		}
		a.mu.Lock()
		a.asked, a.moved = time.Time{}, time.Time{}
		a.mu.Unlock()
	}
}

// SendLately notes so many state events, as if they had been sent at once, and tells how many of them are remembered.
func SendLately(ctx context.Context, s *Store, n int) int {
	state, err := s.state(ctx)
	if err != nil {
		return 0
	}
	a := state.overlay().account
	for i := range n {
		a.sent(fmt.Sprint("key ", i), id.EventID(fmt.Sprint("$event ", i)), nil)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.recent)
}
