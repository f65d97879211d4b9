package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
)

// tombstone is what says that a room was upgraded.
type tombstone struct {
	event       id.EventID
	sender      id.UserID
	time        int64 // Unix milliseconds
	replacement id.RoomID
	seen        time.Time // when this process first heard of it
}

// tombstoneOf is nil where the event says nothing, as after a redaction.
func tombstoneOf(evt *matrix.Event) *tombstone {
	var content event.TombstoneEventContent
	if evt == nil || json.Unmarshal(evt.Content, &content) != nil || !strings.HasPrefix(content.ReplacementRoom.String(), "!") {
		return nil
	}
	return &tombstone{event: evt.ID, sender: evt.Sender, time: evt.Time, replacement: content.ReplacementRoom}
}

// upgrades remembers what is known of rooms' upgrades. The zero value is ready, and methods are safe for concurrent use.
type upgrades struct {
	mu    sync.Mutex
	rooms map[id.RoomID]*upgrade
}

// firstPause is how long it takes at first until a replacement that could not be used is tried again.
const firstPause = 300 * time.Millisecond

// askAgain is how long the homeserver's word that a room was not upgraded counts where the client's sync would not tell that it was since.
const askAgain = 10 * time.Second

// answer is the homeserver's word that a room was not upgraded.
type answer struct {
	at   time.Time
	live bool // whether the sync has told of all changes since
}

// upgrade is what is known of one room.
type upgrade struct {
	known     bool       // whether the homeserver was asked, and there was no doubt since
	doubts    int        // how often there was
	answer               // when
	tombstone *tombstone // what it said, nil where there is none

	entered id.RoomID     // the room's replacement, once it is known to be that
	moved   bool          // whether the memory is here that the predecessors had
	asked   time.Time     // when there was no predecessor yet
	failed  error         // why the room's replacement cannot be used, or the memory cannot be moved to this one
	since   time.Time     // when that was tried
	pause   time.Duration // how long it is not tried again: at first the invitation may only be on its way
	turn    chan struct{} // holds an element while somebody enters the replacement, or moves the memory here

	rejected id.EventID // the tombstone that names a room that is no replacement, which it never will be
	because  error
}

// in lets f read and change what is known of a room.
func (u *upgrades) in(room id.RoomID, f func(*upgrade)) {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.rooms == nil {
		u.rooms = map[id.RoomID]*upgrade{}
	}
	if u.rooms[room] == nil {
		u.rooms[room] = &upgrade{turn: make(chan struct{}, 1)}
	}
	f(u.rooms[room])
}

// get is not known where the homeserver has not been asked for so long, nor while the sync tells of changes.
func (u *upgrades) get(room id.RoomID, live bool, within time.Duration) (stone *tombstone, known bool) {
	u.in(room, func(about *upgrade) {
		stone = about.tombstone
		known = about.known && (about.live && live || time.Since(about.at) < within)
	})
	return stone, known
}

// set notes what the homeserver answered, when it was asked, whether the sync was going on then, and how many doubts there had
// been: what came up while it answered is still in doubt.
func (u *upgrades) set(room id.RoomID, stone *tombstone, asked answer, doubts int) {
	u.in(room, func(about *upgrade) {
		if stone != nil {
			stone.seen = asked.at
			if was := about.tombstone; was != nil && was.event == stone.event {
				stone.seen = was.seen
			}
		}
		about.known, about.tombstone, about.answer = about.doubts == doubts, stone, asked
	})
}

// doubt makes the homeserver be asked again, for there is an event that can have changed the answer.
func (u *upgrades) doubt(room id.RoomID, event id.EventID) {
	u.in(room, func(about *upgrade) {
		if about.tombstone == nil || about.tombstone.event != event {
			about.known = false
			about.doubts++
		}
	})
}

// doubtAll is doubt about all rooms.
func (u *upgrades) doubtAll() {
	u.mu.Lock()
	defer u.mu.Unlock()
	for _, about := range u.rooms {
		about.known = false
		about.doubts++
	}
}

// doubted tells whether the homeserver must be asked again though it was asked before.
func (u *upgrades) doubted(room id.RoomID) (doubted bool) {
	u.in(room, func(about *upgrade) { doubted = !about.known })
	return doubted
}

func (u *upgrades) doubtsAbout(room id.RoomID) (doubts int) {
	u.in(room, func(about *upgrade) { doubts = about.doubts })
	return doubts
}

// lock lets one goroutine at a time do something about the room's upgrade.
func (u *upgrades) lock(ctx context.Context, room id.RoomID) (unlock func(), err error) {
	var turn chan struct{}
	u.in(room, func(about *upgrade) { turn = about.turn })
	select {
	case turn <- struct{}{}:
		return func() { <-turn }, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// entered is the room's replacement where that is known to be one, else empty.
func (u *upgrades) entered(room id.RoomID) (next id.RoomID) {
	u.in(room, func(about *upgrade) { next = about.entered })
	return next
}

// settled tells whether the memory of the room's predecessors is there, if it has any.
func (u *upgrades) settled(room id.RoomID) (settled bool) {
	u.in(room, func(about *upgrade) { settled = about.moved || time.Since(about.asked) < askAgain })
	return settled
}

// settle notes that it is, for good or for now.
func (u *upgrades) settle(room id.RoomID, forGood bool) {
	u.in(room, func(about *upgrade) { about.moved, about.asked = forGood, time.Now() })
}

// failure is why the room could not be left for its replacement, or entered as one, where that was tried just now.
func (u *upgrades) failure(room id.RoomID) (err error) {
	u.in(room, func(about *upgrade) {
		if about.failed != nil && time.Since(about.since) < about.pause {
			err = about.failed
		}
	})
	return err
}

func (u *upgrades) fail(room id.RoomID, err error) {
	u.in(room, func(about *upgrade) {
		about.failed, about.since = err, time.Now()
		about.pause = min(askAgain, max(firstPause, 2*about.pause))
	})
}

// reject notes that the tombstone names a room that is no replacement. That room's first event says so, and does not change.
func (u *upgrades) reject(room id.RoomID, stone *tombstone, why error) {
	u.in(room, func(about *upgrade) { about.rejected, about.because = stone.event, why })
}

// rejection is why the room that the tombstone names is no replacement, nil where that is not known.
func (u *upgrades) rejection(room id.RoomID, stone *tombstone) (err error) {
	u.in(room, func(about *upgrade) {
		if about.rejected == stone.event {
			err = about.because
		}
	})
	return err
}

// invited is for an invitation, after which what has failed is tried again.
func (u *upgrades) invited(room id.RoomID) {
	u.mu.Lock()
	defer u.mu.Unlock()
	for at, about := range u.rooms {
		if at == room || about.tombstone != nil && about.tombstone.replacement == room {
			about.failed, about.pause = nil, 0
		}
	}
}

// tombstone is the room's, or nil where it was not upgraded. The homeserver is asked where it was not for so long and no sync
// tells, and within no time in any case.
func (r roomState) tombstone(ctx context.Context, within time.Duration) (*tombstone, error) {
	live := r.core.Follower.TellsUpgrades(r.ID)
	if stone, known := r.core.upgrades.get(r.ID, live && within > 0, within); known {
		return stone, nil
	}
	// One of those who want to know asks, and the others hear its answer.
	began := time.Now()
	unlock, err := commit.Lock(ctx, commit.Dict{Room: r.ID, Type: event.StateTombstone.Type})
	if err != nil {
		return nil, err
	}
	defer unlock()
	if stone, known := r.core.upgrades.get(r.ID, false, time.Since(began)); known {
		return stone, nil
	}
	asked, doubts := answer{time.Now(), live}, r.core.upgrades.doubtsAbout(r.ID)
	evt, err := r.State(ctx, event.StateTombstone, "")
	if err != nil {
		return nil, err
	}
	stone := tombstoneOf(evt)
	r.core.upgrades.set(r.ID, stone, asked, doubts)
	if stone != nil { // a sync's filter can leave tombstones out
		r.core.feed.watches.LookBack(r.ID)
	}
	return stone, nil
}

// Beneath the error of a write that found the room upgraded: errMeanwhile where nothing was written, errWritten where that may
// have been.
var (
	errMeanwhile = errors.New("the room was upgraded meanwhile")
	errWritten   = errors.New("the room was upgraded before what was written, or after")
)

// alive fails with ErrRoomUpgraded where nothing may be written to the room.
func (r roomState) alive(ctx context.Context) error {
	if r.dead != nil {
		return r.dead
	}
	stone, err := r.tombstone(ctx, askAgain)
	if err == nil && stone != nil {
		err = fault.Of(ErrRoomUpgraded, errMeanwhile, "%s was replaced by %s, so nothing was written; open that, or use WithRoomUpgrades", r.ID, stone.replacement)
	}
	return err
}

// stillAlive is alive after a write. One that was stored before there was a tombstone is among what is moved, for whoever moves
// reads the memory when he has seen that. So with WithRoomUpgrades the homeserver is asked again. A look back does not tell:
// homeservers choose the tombstone's place in the list when the upgrade begins and store it when that is nearly done. Nor does
// a sync, which can be behind a look back that has shown what was written.
func (r roomState) stillAlive(ctx context.Context) error {
	within := askAgain
	switch {
	case r.core.followUpgrades:
		within = 0
	case !r.core.upgrades.doubted(r.ID):
		return nil
	}
	stone, err := r.tombstone(ctx, within)
	switch {
	case err != nil:
		return fault.Because(err, "it is not known whether %s was upgraded before what was written there was stored: %v", r.ID, err)
	case stone != nil:
		return fault.Of(ErrRoomUpgraded, errWritten, "%s was replaced by %s, and what was written may have been stored in the old room; open the new one, or use WithRoomUpgrades", r.ID, stone.replacement)
	}
	return nil
}

// watchable fails where the room was upgraded, for what changes then changes elsewhere.
func (r roomState) watchable(ctx context.Context, within time.Duration) error {
	stone, err := r.tombstone(ctx, within)
	if err == nil && stone != nil {
		err = fault.Of(ErrRoomUpgraded, r.dead, "%s was replaced by %s, and nothing changes there any more; open that, or watch again with WithRoomUpgrades", r.ID, stone.replacement)
	}
	return err
}
