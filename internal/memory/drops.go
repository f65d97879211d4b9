package memory

import (
	"slices"
	"sync"

	"maunium.net/go/mautrix/id"
)

// maxDrops is how many events are remembered that are still to be redacted because that failed, and someDrops how many of
// them a write tries again.
const (
	maxDrops  = 1000
	someDrops = 5
)

// drops are the events that are still to be redacted. The zero value is ready, and methods are safe for concurrent use.
type drops struct {
	mu     sync.Mutex
	events map[id.RoomID][]id.EventID
}

// take gives some of a room's events and forgets them.
func (d *drops) take(room id.RoomID) []id.EventID {
	d.mu.Lock()
	defer d.mu.Unlock()
	events := d.events[room]
	some := events[:min(len(events), someDrops)]
	if len(some) == len(events) {
		delete(d.events, room)
	} else {
		d.events[room] = events[len(some):]
	}
	return slices.Clone(some)
}

func (d *drops) keep(room id.RoomID, events []id.EventID) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.events == nil {
		d.events = map[id.RoomID][]id.EventID{}
	}
	if len(d.events[room])+len(events) <= maxDrops {
		d.events[room] = append(d.events[room], events...)
	}
}
