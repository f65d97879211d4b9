package memory

import (
	"context"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

// powerSettles is how long before and after a change of the power to write what is sent can be left out of the state for it: homeservers make
// requests that come at the same time part of different branches.
const powerSettles = 10 * time.Second

// reconsider has dicts looked at again where somebody's power to write, or their membership, has been taken away of late.
func (f *Feed) reconsider(room id.RoomID, joined *mautrix.SyncJoinedRoom) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.powerTaken[room]
	of := at != nil && time.Since(at.heard) < powerSettles // whether there was something of late
	for _, evt := range joined.Timeline.Events {           // after a gap in it all is read again
		from, takes := matrix.TakesPower(evt)
		if !takes {
			continue
		}
		if at == nil {
			at = new(powerTaken)
			if f.powerTaken == nil {
				f.powerTaken = map[id.RoomID]*powerTaken{}
			}
			f.powerTaken[room] = at
		}
		if of && at.from != from {
			from = ""
		}
		at.heard, at.from, of = time.Now(), from, true
		at.sent = max(evt.Timestamp, at.heard.Add(-time.Minute).UnixMilli()) // which its sender's homeserver chooses
	}
	switch {
	case of:
		at.again = true
		if !at.reading {
			at.reading = true
			go f.readAgain(room, at)
		}
	case at != nil && !at.reading:
		delete(f.powerTaken, room)
	}
}

// readAgain reads the dicts one after the other, and once more where the sync has brought something meanwhile.
func (f *Feed) readAgain(room id.RoomID, at *powerTaken) {
	for {
		f.mu.Lock()
		from, since, again := at.from, at.sent-powerSettles.Milliseconds(), at.again
		at.again, at.reading = false, again
		f.mu.Unlock()
		if !again {
			return
		}
		for _, d := range f.Dicts.In(room) {
			d.Reconsider(context.Background(), from, since)
		}
	}
}

// powerTaken is a change of power or membership in a room: when the sync told of it, when it was sent, in Unix milliseconds, and whom it
// concerns, empty where that can be several.
type powerTaken struct {
	heard time.Time
	sent  int64
	from  id.UserID

	reading bool // whether dicts are being read again
	again   bool // and must be once more
}
