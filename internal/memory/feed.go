package memory

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
)

// Feed gives the replicas, and what else is known of rooms, what the client's sync brings. Its methods are called one after the other.
type Feed struct {
	*Shared

	mu         sync.Mutex
	powerTaken map[id.RoomID]*powerTaken
}

// Missed is for a sync of which responses were missed: nothing is believed that they would have changed.
func (f *Feed) Missed() {
	f.Encrypted.Doubt()
	for _, d := range f.Dicts.All() {
		d.Forget()
	}
}

// Skipped is for a room of which the sync has skipped events.
func (f *Feed) Skipped(room id.RoomID) {
	for _, d := range f.Dicts.In(room) {
		d.Forget()
	}
}

// Joined takes what the sync has of a room. It gives the memory's own events, in the order in which they came, and tells whether something was
// redacted.
func (f *Feed) Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom) (own []*matrix.Event, redacted bool) {
	for _, evt := range joined.Timeline.Events {
		if evt.Type.Type == event.EventEncrypted.Type {
			f.bring(room, evt)
		}
		f.encrypt(room, evt)
		if evt := f.stateEvent(evt); evt != nil {
			own = append(own, evt)
		}
	}
	f.add(room, own)
	f.reconsider(room, joined)
	for _, evt := range joined.Timeline.Events {
		if evt.Type.Type == event.EventRedaction.Type {
			f.redact(room, evt)
			redacted = true
		}
	}
	state := joined.State.Events
	if joined.StateAfter != nil {
		state = joined.StateAfter.Events
	}
	for _, evt := range state {
		f.encrypt(room, evt)
		own := f.stateEvent(evt)
		if own == nil {
			continue
		}
		if d := f.Room(room).Replica(*own.StateKey); d != nil {
			d.Resolved(own.ID)
		}
	}
	return own, redacted
}

// add takes what one response has of the room, each dict's events at once: within a response Dendrite does not list events of the same
// depth in the order in which it stored them, and if they were added one by one, a writer could see its own event without a
// rival that was stored before it, and wrongly report success.
func (f *Feed) add(room id.RoomID, events []*matrix.Event) {
	read := map[commit.Address][]merge.Event{}
	for _, evt := range events {
		at := f.Room(room).Address(*evt.StateKey)
		read[at] = append(read[at], f.Room(room).Parsed(evt))
	}
	for at, events := range read {
		if d := f.Dicts.Find(at); d != nil {
			d.Bring(events...)
		}
	}
}

// bring keeps an encrypted event for the read that comes when the state refers to it.
func (f *Feed) bring(room id.RoomID, evt *event.Event) {
	if len(f.Dicts.In(room)) == 0 { // all that is said in rooms without memory would come here too
		return
	}
	if text, err := json.Marshal(evt); err == nil {
		f.Megolm.Bring(room, evt.ID, text)
	}
}

// encrypt notes that a room is encrypted, whatever the event's content.
func (f *Feed) encrypt(room id.RoomID, evt *event.Event) {
	if matrix.IsRooms(evt, event.StateEncryption) {
		f.Encrypted.Set(room, true, true)
	}
}

// stateEvent is the event as the homeserver gave it, where it is one of the store's.
func (f *Feed) stateEvent(evt *event.Event) *matrix.Event {
	if evt.Type.Type != f.Type.Type || evt.StateKey == nil || !f.Layout.Holds(*evt.StateKey) {
		return nil
	}
	content := evt.Content.VeryRaw
	if content == nil {
		content, _ = json.Marshal(evt.Content.Raw) // a syncer that has been at it
	}
	own := &matrix.Event{ID: evt.ID, Sender: evt.Sender, Time: evt.Timestamp, Type: evt.Type.Type, StateKey: evt.StateKey, Content: content, Listed: true}
	own.Unsigned.ReplacesState = evt.Unsigned.ReplacesState
	return own
}

func (f *Feed) redact(room id.RoomID, redaction *event.Event) {
	redacted := redaction.Redacts
	if inContent, ok := redaction.Content.Raw["redacts"].(string); ok && redacted == "" { // since room version 11
		redacted = id.EventID(inContent)
	}
	f.Megolm.Forget(room, redacted)
	for _, d := range f.Dicts.In(room) {
		d.Redacted(redacted)
	}
}

// reconsider has dicts looked at again where somebody's power to write, or their membership, has been taken away of late.
func (f *Feed) reconsider(room id.RoomID, joined *mautrix.SyncJoinedRoom) {
	f.mu.Lock()
	defer f.mu.Unlock()
	at := f.powerTaken[room]
	of := at != nil && time.Since(at.heard) < f.Policy.PowerRace // whether there was something of late
	for _, evt := range joined.Timeline.Events {                 // after a gap in it all is read again
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
			f.Background.Go(context.Background(), func(ctx context.Context) { f.readAgain(ctx, room, at) })
		}
	case at != nil && !at.reading:
		delete(f.powerTaken, room)
	}
}

// readAgain reads the dicts one after the other, and once more where the sync has brought something meanwhile.
func (f *Feed) readAgain(ctx context.Context, room id.RoomID, at *powerTaken) {
	for ctx.Err() == nil {
		f.mu.Lock()
		from, since, again := at.from, at.sent-f.Policy.PowerRace.Milliseconds(), at.again
		at.again, at.reading = false, again
		f.mu.Unlock()
		if !again {
			return
		}
		for _, d := range f.Dicts.In(room) {
			d.Reconsider(ctx, from, since)
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
