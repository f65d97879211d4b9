package commit

import (
	"container/list"
	"sync"

	"maunium.net/go/mautrix/id"
)

// maxWritten bounds how many writes are remembered; the oldest are forgotten first.
const maxWritten = 4096

// Written remembers the last event that this process wrote to each dict, for listings of the room to be held against.
// A homeserver that has acknowledged an event can leave it out of a listing: Dendrite feeds its sync with some
// delay, and Synapse gives the state on one branch of the room's history, which need not be that of an event sent
// at the same time, and can be another branch in the next listing. The zero value is ready, and methods are safe
// for concurrent use.
type Written struct {
	mu    sync.Mutex
	rooms map[memory]map[string]*list.Element // by state key
	order list.List                           // of write, the oldest first
}

// memory is what one listing covers.
type memory struct {
	room      id.RoomID
	eventType string
}

type write struct {
	dict  Dict
	event id.EventID
}

// Add notes that event is the last one that was written to dict.
func (w *Written) Add(dict Dict, event id.EventID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.remove(dict)
	at := memory{dict.Room, dict.Type}
	if w.rooms == nil {
		w.rooms = map[memory]map[string]*list.Element{}
	}
	if w.rooms[at] == nil {
		w.rooms[at] = map[string]*list.Element{}
	}
	w.rooms[at][dict.StateKey] = w.order.PushBack(write{dict, event})
	if w.order.Len() > maxWritten {
		w.remove(w.order.Front().Value.(write).dict)
	}
}

// In gives the state key and event of each write to the room.
func (w *Written) In(room id.RoomID, eventType string) map[string]id.EventID {
	w.mu.Lock()
	defer w.mu.Unlock()
	writes := make(map[string]id.EventID, len(w.rooms[memory{room, eventType}]))
	for stateKey, element := range w.rooms[memory{room, eventType}] {
		writes[stateKey] = element.Value.(write).event
	}
	return writes
}

// Forget is for when event is no longer the current one. A later write to the dict stays remembered.
func (w *Written) Forget(dict Dict, event id.EventID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if element := w.rooms[memory{dict.Room, dict.Type}][dict.StateKey]; element != nil && element.Value.(write).event == event {
		w.remove(dict)
	}
}

func (w *Written) remove(dict Dict) {
	at := memory{dict.Room, dict.Type}
	element := w.rooms[at][dict.StateKey]
	if element == nil {
		return
	}
	w.order.Remove(element)
	delete(w.rooms[at], dict.StateKey)
	if len(w.rooms[at]) == 0 {
		delete(w.rooms, at)
	}
}
