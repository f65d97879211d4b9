package upgrade

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/policy"
)

// tombstone is what says that a room was upgraded.
type tombstone struct {
	event       id.EventID
	sender      id.UserID
	time        int64 // Unix milliseconds
	replacement id.RoomID
}

// tombstoneOf is nil where the event says nothing, as after a redaction.
func tombstoneOf(evt *matrix.Event) *tombstone {
	var content struct { // whatever else it says
		Replacement id.RoomID `json:"replacement_room"`
	}
	if evt == nil || json.Unmarshal(evt.Content, &content) != nil || !strings.HasPrefix(content.Replacement.String(), "!") {
		return nil
	}
	return &tombstone{evt.ID, evt.Sender, evt.Time, content.Replacement}
}

// Rooms is what the stores that come from one New know of rooms' upgrades. The exported fields are set before the first use. Methods are safe for
// concurrent use.
type Rooms struct {
	Policy   *policy.Policy                                            // nil for the default
	Follow   bool                                                      // whether the memory goes along with a room that was upgraded
	Replaced func(room id.RoomID)                                      // is told of each room that turns out to be upgraded
	Away     func(ctx context.Context, room memory.Room) (bool, error) // whether account data has a part of a memory; nil where it never has

	mu    sync.Mutex
	rooms map[id.RoomID]*upgrade
}

// upgrade is what is known of one room.
type upgrade struct {
	tombstone *tombstone // what the homeserver said last, nil where there was none
	asked     time.Time  // when it was asked, zero where it never was
	from      time.Time  // from when on the answer is believed, zero for at once
	live      bool       // whether the sync has told of all changes since
	doubted   time.Time  // when there was last something that can have changed the answer

	created *creation // how the room began, nil where nobody has asked
	entered id.RoomID // the room's replacement, once it is known to be that
	moved   bool      // whether the memory that the room's predecessors had is here
	failed  failure   // why the replacement cannot be used
}

// failure is why a room's replacement could not be joined, or the memory not be moved there.
type failure struct {
	stone id.EventID // the tombstone that names the replacement; what another one names is another matter
	err   error
	final bool          // whether that room is no replacement, which it never will be
	pause time.Duration // else how long it is not tried again
	until time.Time     // when that ends
}

func (f failure) of(stone *tombstone) error {
	if f.stone == stone.event && (f.final || time.Now().Before(f.until)) {
		return f.err
	}
	return nil
}

// isKnown tells whether the homeserver has told of the tombstone, and nothing can have changed its answer since.
func (u *upgrade) isKnown() bool { return u.asked.After(u.doubted) && !time.Now().Before(u.from) }

// in lets f read and change what is known of a room.
func (u *Rooms) in(room id.RoomID, f func(*upgrade)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rooms == nil {
		u.rooms = map[id.RoomID]*upgrade{}
	}
	if u.rooms[room] == nil {
		u.rooms[room] = new(upgrade)
	}
	f(u.rooms[room])
}

// of is a copy of what is known of a room.
func (u *Rooms) of(room id.RoomID) (about upgrade) {
	u.in(room, func(known *upgrade) { about = *known })
	return about
}

// doubt makes the homeserver be asked again, for there is an event that can have changed the answer.
func (u *Rooms) doubt(room id.RoomID, event id.EventID) {
	u.in(room, func(about *upgrade) {
		if about.tombstone == nil || about.tombstone.event != event {
			about.doubted = time.Now()
		}
	})
}

// Missed is for a sync of which responses were missed: the homeserver is asked again about all rooms.
func (u *Rooms) Missed() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, about := range u.rooms {
		about.doubted = time.Now()
	}
}

// fail notes why the room's replacement cannot be used: final where it is none, else it is tried again after a pause.
func (u *Rooms) fail(room memory.Room, stone *tombstone, err error, final bool) {
	u.in(room.ID, func(about *upgrade) {
		if about.failed.stone != stone.event {
			about.failed = failure{}
		}
		pause := min(room.Policy.AnswerFor, max(room.Policy.FollowPause, 2*about.failed.pause))
		about.failed = failure{stone.event, err, final, pause, time.Now().Add(pause)}
	})
}

// Seen takes a list of a room's events, which can show tombstones.
func (u *Rooms) Seen(room id.RoomID, page matrix.Page) {
	for _, tombstone := range page.Tombstones {
		u.doubt(room, tombstone)
	}
}

// Joined takes what the sync has of a room, and tells whether the room may have been upgraded. That there is no tombstone is believed a moment later:
// Dendrite's sync can lack at first what the homeserver has acknowledged just before, and then brings it.
func (u *Rooms) Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom, shows follow.Shows) (upgraded bool) {
	all := slices.Concat(joined.State.Events, joined.Timeline.Events)
	if joined.StateAfter != nil {
		all = append(all, joined.StateAfter.Events...)
	}
	for _, evt := range all {
		if matrix.IsRooms(evt, event.StateTombstone) {
			u.doubt(room, evt.ID)
			upgraded = true
		}
	}
	if !upgraded && shows(event.StateTombstone) {
		u.in(room, func(about *upgrade) {
			now := time.Now()
			about.tombstone, about.asked, about.from, about.live, about.doubted = nil, now, now.Add(u.Policy.Or().StoredLate), true, time.Time{}
		})
	}
	return upgraded
}

// TryAgain makes a replacement be tried again that could not be used.
func (u *Rooms) TryAgain() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, about := range u.rooms {
		about.failed.until = time.Time{}
	}
}
