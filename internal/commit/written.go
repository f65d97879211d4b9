package commit

import (
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/lru"
)

// Written remembers the last event that this process wrote to each dict, for listings of the room to be held against.
// A homeserver that has acknowledged an event can leave it out of a listing: Dendrite feeds its sync with some
// delay, and Synapse gives the state on one branch of the room's history, which need not be that of an event sent
// at the same time, and can be another branch in the next listing. The zero value is ready, and methods are safe
// for concurrent use.
type Written struct {
	mu     sync.Mutex
	events lru.Cache[Address, id.EventID]
}

// Add notes that event is the last one that was written to dict.
func (w *Written) Add(dict Address, event id.EventID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.events.Most = maxWritten
	w.events.Put(dict, event)
}

// In gives the state key and event of each write to the room.
func (w *Written) In(room id.RoomID, eventType string) map[string]id.EventID {
	w.mu.Lock()
	defer w.mu.Unlock()
	writes := map[string]id.EventID{}
	for dict, event := range w.events.All {
		if dict.Room == room && dict.Type == eventType {
			writes[dict.StateKey] = event
		}
	}
	return writes
}

// Forget is for when event is no longer the current one. A later write to the dict stays remembered.
func (w *Written) Forget(dict Address, event id.EventID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if last, ok := w.events.Get(dict); ok && last == event {
		w.events.Forget(dict)
	}
}
