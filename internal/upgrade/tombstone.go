package upgrade

import (
	"context"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/memory"
)

// Home is a room, and what is known of its upgrades.
type Home struct {
	memory.Room
	rooms *Rooms
	dead  error // why nothing may be written here, nil where it may
}

// Of is the room as it stands.
func (u *Rooms) Of(room memory.Room) Home { return Home{Room: room, rooms: u} }

// in is another room.
func (r Home) in(room id.RoomID) Home { return r.rooms.Of(r.Room.Of(room)) }

// ReplacedBy is the room that has replaced this one, empty where it was not upgraded.
func (r Home) ReplacedBy(ctx context.Context) (id.RoomID, error) {
	stone, err := r.tombstone(ctx, r.Policy.AnswerFor)
	if stone == nil || err != nil {
		return "", err
	}
	return stone.replacement, nil
}

// tombstone is the room's, or nil where it was not upgraded. The homeserver is asked where it was not for so long and no sync
// tells, and within no time in any case.
func (r Home) tombstone(ctx context.Context, within time.Duration) (*tombstone, error) {
	live := r.Follower.TellsUpgrades(r.ID)
	about := r.rooms.of(r.ID)
	if about.isKnown() && (live && about.live && within > 0 || time.Since(about.asked) < within) {
		return about.tombstone, nil
	}
	// One of those who want to know asks, and the others hear its answer.
	began := time.Now()
	unlock, err := commit.Lock(ctx, commit.Address{Room: r.ID, Type: event.StateTombstone.Type})
	if err != nil {
		return nil, err
	}
	defer unlock()
	if about = r.rooms.of(r.ID); about.isKnown() && about.asked.After(began) {
		return about.tombstone, nil
	}
	asked := time.Now()
	evt, err := r.State(ctx, event.StateTombstone, "")
	if err != nil {
		return nil, err
	}
	stone := tombstoneOf(evt)
	r.rooms.in(r.ID, func(about *upgrade) {
		about.tombstone, about.asked, about.from, about.live = stone, asked, time.Time{}, live
	})
	if stone != nil { // a sync's filter can leave tombstones out
		r.rooms.Replaced(r.ID)
	}
	return stone, nil
}
