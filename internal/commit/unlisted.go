package commit

import (
	"container/list"
	"sync"

	"maunium.net/go/mautrix/id"
)

// maxUnlisted bounds how many writes are remembered; the oldest are forgotten first.
const maxUnlisted = 4096

// Unlisted remembers the last event that was written to each dict until a listing of the room has shown it.
// A homeserver that has acknowledged an event can leave it out of a listing for a while: Dendrite feeds its
// sync with some delay, and Synapse gives the state after the latest event of the room, which need not be
// a descendant of one that was sent at the same time. The zero value is ready, and methods are safe for
// concurrent use.
type Unlisted struct {
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
func (u *Unlisted) Add(dict Dict, event id.EventID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	u.remove(dict)
	at := memory{dict.Room, dict.Type}
	if u.rooms == nil {
		u.rooms = map[memory]map[string]*list.Element{}
	}
	if u.rooms[at] == nil {
		u.rooms[at] = map[string]*list.Element{}
	}
	u.rooms[at][dict.StateKey] = u.order.PushBack(write{dict, event})
	if u.order.Len() > maxUnlisted {
		u.remove(u.order.Front().Value.(write).dict)
	}
}

// In gives the state key and event of each write to the room that no listing has shown yet.
func (u *Unlisted) In(room id.RoomID, eventType string) map[string]id.EventID {
	u.mu.Lock()
	defer u.mu.Unlock()
	writes := make(map[string]id.EventID, len(u.rooms[memory{room, eventType}]))
	for stateKey, element := range u.rooms[memory{room, eventType}] {
		writes[stateKey] = element.Value.(write).event
	}
	return writes
}

// Forget is for when a listing has shown event, or it is no longer the current one. A later write to the dict stays
// remembered.
func (u *Unlisted) Forget(dict Dict, event id.EventID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if element := u.rooms[memory{dict.Room, dict.Type}][dict.StateKey]; element != nil && element.Value.(write).event == event {
		u.remove(dict)
	}
}

func (u *Unlisted) remove(dict Dict) {
	at := memory{dict.Room, dict.Type}
	element := u.rooms[at][dict.StateKey]
	if element == nil {
		return
	}
	u.order.Remove(element)
	delete(u.rooms[at], dict.StateKey)
	if len(u.rooms[at]) == 0 {
		delete(u.rooms, at)
	}
}
