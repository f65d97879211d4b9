package roomkv

import (
	"context"
	"fmt"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// ForgetAccounts makes what comes next be as in a new process, for account data.
func ForgetAccounts() {
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	accounts.all = map[commit.Dict]*account{}
}

// PassTime makes it be long ago that power was asked for, that memories were moved to the state, and that the stores saw that a room
// was upgraded or failed to follow it.
func PassTime(stores ...*Store) {
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
	for _, a := range accounts.all {
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
