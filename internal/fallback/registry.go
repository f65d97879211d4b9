package fallback

import (
	"maps"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
)

// Registry has an account for each memory for which somebody has asked.
type Registry struct {
	mu  sync.Mutex
	all map[commit.Dict]*account
}

// Process has the accounts of all stores of this process. A test that stands for another process replaces it.
var Process = new(Registry)

func (r *Registry) of(dict commit.Dict) *account {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.all == nil {
		r.all = map[commit.Dict]*account{}
	}
	if r.all[dict] == nil {
		r.all[dict] = &account{dict: dict, gate: newGate()}
	}
	return r.all[dict]
}

// Forget forgets what is known of a room, as a new process does.
func (r *Registry) Forget(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	maps.DeleteFunc(r.all, func(at commit.Dict, _ *account) bool { return at.Room == room })
}

// AskAgain makes the homeserver be asked for the power in a room before the next write.
func (r *Registry) AskAgain(room id.RoomID) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for at, a := range r.all {
		if at.Room == room {
			a.powerChanged()
		}
	}
}
