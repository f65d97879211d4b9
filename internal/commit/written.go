package commit

import (
	"container/list"
	"sync"

	"maunium.net/go/mautrix/id"
)

// maxWritten bounds how many writes are remembered; the oldest are forgotten first.
const maxWritten = 4096

// Written remembers the last event that was written to each dict until a listing of the room has shown it.
// A homeserver that has acknowledged an event can leave it out of a listing for a while: Dendrite feeds its
// sync with some delay, and Synapse gives the state after the latest event of the room, which need not be
// a descendant of one that was sent at the same time. The zero value is ready, and methods are safe for
// concurrent use.
type Written struct {
	mu    sync.Mutex
	rooms map[memory]map[string]*list.Element // by state key
	order list.List                           // of written, the oldest first
}

// memory is what one listing covers.
type memory struct {
	room      id.RoomID
	eventType string
}

type written struct {
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
	w.rooms[at][dict.StateKey] = w.order.PushBack(written{dict, event})
	if w.order.Len() > maxWritten {
		w.remove(w.order.Front().Value.(written).dict)
	}
}

// Unseen gives the state key and event of each write that no listing of the room has shown yet.
func (w *Written) Unseen(room id.RoomID, eventType string) map[string]id.EventID {
	w.mu.Lock()
	defer w.mu.Unlock()
	unseen := make(map[string]id.EventID, len(w.rooms[memory{room, eventType}]))
	for stateKey, element := range w.rooms[memory{room, eventType}] {
		unseen[stateKey] = element.Value.(written).event
	}
	return unseen
}

// Seen notes that a listing has shown event, or that it is no longer the current one. A later write to the dict
// stays remembered.
func (w *Written) Seen(dict Dict, event id.EventID) {
	w.mu.Lock()
	defer w.mu.Unlock()
	if element := w.rooms[memory{dict.Room, dict.Type}][dict.StateKey]; element != nil && element.Value.(written).event == event {
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
