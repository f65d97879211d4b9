package memory

import (
	"cmp"
	"math"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/lru"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
)

const (
	// maxBrought is how much is kept of what the sync brought and nobody has asked for yet, in bytes. Rooms that were used least recently go first.
	maxBrought = 64 << 20

	// maxBroughtDicts is of how many dicts of a room that is kept, and maxBroughtEvents how many events of each.
	maxBroughtDicts  = 10_000
	maxBroughtEvents = 24

	// broughtEvent is about what an event takes beside its content, in bytes.
	broughtEvent = 400
)

// brought is what the client's sync has brought of dicts of which there is no replica. A replica that is made begins with that and needs no request.
// The contents are not read before. The zero value is ready, and methods are safe for concurrent use.
type brought struct {
	mu    sync.Mutex
	rooms lru.Cache[id.RoomID, *broughtRoom]
}

type broughtRoom struct {
	at    time.Time               // when the sync began with the room
	whole bool                    // whether nothing is in a dict that is not among these
	dicts map[string]*broughtDict // by state key; nil where it is not known any more what the dict has, or a replica knows it
	size  int                     // about, in bytes
}

// broughtDict is what the sync has brought of a dict.
type broughtDict struct {
	from   int64           // all of its events that were sent since are among these, in Unix milliseconds
	events []*matrix.Event // what was current, and what came after that
}

// begins tells a new replica what is known of its dict. That there is nothing is believed a moment later: Dendrite's sync can lack at first what
// the homeserver has acknowledged just before.
func (b *brought) begins(room Room, stateKey string, made *commit.Replica) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.rooms.Get(room.ID)
	if !ok {
		return
	}
	dict, found := known.dicts[stateKey]
	switch {
	case !found && known.whole && time.Since(known.at) > room.Policy.StoredLate:
		dict = new(broughtDict)
	case dict == nil:
		return
	}
	var events []merge.Event
	for _, evt := range dict.events {
		events = append(events, room.Parsed(evt))
	}
	made.Begin(known.at, dict.from, events...)
	known.set(stateKey, nil)
	b.keep(room.ID, known)
}

// bring takes what a response has of a room: what was current before the timeline, and what is listed there, by state key. Whole tells that
// nothing else is in the state.
func (b *brought) bring(room Room, joined *mautrix.SyncJoinedRoom, whole bool, current, listed map[string][]*matrix.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.rooms.Get(room.ID)
	settled := follow.IsSettled(joined, room.Policy)
	if !ok || whole {
		if !settled || !whole && len(current) == 0 {
			return
		}
		known = &broughtRoom{at: time.Now(), whole: whole, dicts: map[string]*broughtDict{}}
	}
	from := room.listedFrom(joined.Timeline.Events)
	for stateKey, events := range current {
		later := listed[stateKey]
		known.set(stateKey, nil)
		switch {
		case !settled:
		case joined.StateAfter == nil || len(later) == 0:
			known.set(stateKey, &broughtDict{from, slices.Concat(events, later)})
		case slices.ContainsFunc(later, func(evt *matrix.Event) bool { return evt.ID == events[0].ID }):
			known.set(stateKey, &broughtDict{from, later})
		} // else the homeserver has left what is listed out of the state
	}
	for stateKey, events := range listed {
		if len(current[stateKey]) > 0 {
			continue
		}
		switch dict, found := known.dicts[stateKey]; {
		case dict != nil:
			known.set(stateKey, &broughtDict{dict.from, slices.Concat(dict.events, events)})
		case found, !known.whole:
		case whole && joined.StateAfter != nil: // what is listed is not in the state
			known.set(stateKey, nil)
		case whole:
			known.set(stateKey, &broughtDict{from, events})
		default: // the first ones
			known.set(stateKey, &broughtDict{0, events})
		}
	}
	b.keep(room.ID, known)
}

// listedFrom is the time since which a response lists all events of a room, in Unix milliseconds, 0 where it lists all there are. The times of events
// that are neither the store's nor the user's are not believed: any other member can send messages as of long ago.
func (r Room) listedFrom(timeline []*event.Event) int64 {
	for i, evt := range timeline {
		switch {
		case i == 0 && matrix.IsRooms(evt, event.StateCreate):
			return 0
		case evt.Type.Type == r.Type.Type && evt.StateKey != nil, evt.Sender == r.Client.UserID:
			return evt.Timestamp
		}
	}
	return math.MaxInt64 / 2
}

func (r *broughtRoom) set(stateKey string, dict *broughtDict) {
	r.size -= r.dicts[stateKey].bytes()
	if dict != nil && len(dict.events) > maxBroughtEvents {
		dict = nil
	}
	r.dicts[stateKey] = dict
	r.size += dict.bytes()
}

func (d *broughtDict) bytes() (size int) {
	if d != nil {
		for _, evt := range d.events {
			size += evt.Size() + broughtEvent
		}
	}
	return size
}

// keep is called with mu held.
func (b *brought) keep(room id.RoomID, known *broughtRoom) {
	if len(known.dicts) > maxBroughtDicts {
		b.rooms.Forget(room)
		return
	}
	b.rooms.Keep(room, known, cmp.Or(known.size, 1), maxBrought)
}

// forget is for a room of which the sync has skipped events.
func (b *brought) forget(room id.RoomID) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rooms.Forget(room)
}

// forgetAll is for a sync of which responses were missed.
func (b *brought) forgetAll() {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.rooms.ForgetThose(func(*broughtRoom) bool { return true })
}

// forgetThose is for events of a room that may not count any more.
func (b *brought) forgetThose(room id.RoomID, gone func(*matrix.Event) bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	if known, ok := b.rooms.Get(room); ok {
		for stateKey, dict := range known.dicts {
			if dict != nil && slices.ContainsFunc(dict.events, gone) {
				known.set(stateKey, nil)
			}
		}
	}
}

// has tells whether events with the state key are kept.
func (b *brought) has(room id.RoomID, stateKey string) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.rooms.Get(room)
	return ok && known.dicts[stateKey] != nil
}

// holds tells whether anything of the room is kept.
func (b *brought) holds(room id.RoomID) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	known, ok := b.rooms.Get(room)
	return ok && known.size > 0
}
