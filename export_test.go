package roomkv

import (
	"time"

	"github.com/roomkv/roomkv/internal/commit"
)

// ForgetAccounts makes what comes next be as in a new process, for account data.
func ForgetAccounts() {
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	accounts.all = map[commit.Dict]*account{}
}

// PassTime makes it be long ago that power was asked for, and that memories were moved.
func PassTime() {
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	for _, a := range accounts.all {
		a.mu.Lock()
		a.asked, a.moved = time.Time{}, time.Time{}
		a.mu.Unlock()
	}
}
