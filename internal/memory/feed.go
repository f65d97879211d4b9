package memory

import (
	"context"
	"encoding/json"
	"maps"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
)

// Feed gives the replicas, and what else is known of rooms, what the client's sync brings. Its methods are called one after the other.
type Feed struct {
	*Shared

	mu         sync.Mutex
	powerTaken map[id.RoomID]*powerTaken
	rooms      map[id.RoomID]bool // that have a memory, nil where the sync has not told of all
}

// Missed is for a sync of which responses were missed: nothing is believed that they would have changed.
func (f *Feed) Missed(tells func(event.Type) bool) {
	f.mu.Lock()
	if f.rooms = nil; tells(f.Type) {
		f.rooms = map[id.RoomID]bool{}
	}
	f.mu.Unlock()
	f.Encrypted.Doubt()
	f.brought.forgetAll()
	for _, d := range f.Dicts.All() {
		d.Forget()
	}
}

// Left is for a room that the user has left.
func (f *Feed) Left(room id.RoomID) {
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.rooms, room)
}

// Rooms are those in which the user is and whose state has a memory, or had one, in order: as the sync has told, else with a request.
func (f *Feed) Rooms(ctx context.Context) ([]id.RoomID, error) {
	if rooms := f.told(); rooms != nil && f.Follower.Going() {
		return slices.Sorted(maps.Keys(rooms)), nil
	}
	rooms, err := matrix.RoomsWith(ctx, f.client, f.Type, f.Layout.Holds)
	if err != nil {
		return nil, fault.Because(err, "cannot list the rooms that have a memory: %s", matrix.Describe(err))
	}
	return rooms, nil
}

func (f *Feed) told() map[id.RoomID]bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	return maps.Clone(f.rooms)
}

// Skipped is for a room of which the sync has skipped events.
func (f *Feed) Skipped(room id.RoomID) {
	f.brought.forget(room)
	for _, d := range f.Dicts.In(room) {
		d.Forget()
	}
}

// Joined takes what the sync has of a room. It gives the memory's own events, in the order in which they came, and tells whether something was
// redacted.
func (f *Feed) Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom, shows follow.Shows) (own []*matrix.Event, redacted bool) {
	state := joined.State.Events
	if joined.StateAfter != nil {
		state = joined.StateAfter.Events
	}
	encrypted := false
	sort := func(events []*event.Event, listed bool) (byKey map[string][]*matrix.Event, all []*matrix.Event) {
		byKey = map[string][]*matrix.Event{}
		for _, evt := range events {
			encrypted = encrypted || matrix.IsRooms(evt, event.StateEncryption) // whatever its content
			if own := f.stateEvent(evt); own != nil {
				own.Listed = listed
				byKey[*own.StateKey], all = append(byKey[*own.StateKey], own), append(all, own)
			}
		}
		return byKey, all
	}
	listed, own := sort(joined.Timeline.Events, true)
	current, was := sort(state, false)
	all := slices.Concat(was, own)
	f.has(room, all)
	f.encrypt(room, encrypted, shows, all)
	f.brought.bring(f.Room(room), joined, shows(f.Type), current, listed) // before it is looked for replicas, for one that is made meanwhile takes it
	f.add(room, listed)
	f.reconsider(room, joined)
	f.bring(room, joined.Timeline.Events)
	for _, evt := range joined.Timeline.Events {
		if evt.Type.Type == event.EventRedaction.Type {
			f.redact(room, evt)
			redacted = true
		}
	}
	for _, evt := range was {
		if d := f.Room(room).Replica(*evt.StateKey); d != nil {
			d.Resolved(evt.ID)
		}
	}
	return own, redacted
}

// has notes that the room has a memory, where there is an event of it.
func (f *Feed) has(room id.RoomID, events []*matrix.Event) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.rooms != nil && slices.ContainsFunc(events, func(evt *matrix.Event) bool { return f.Layout.Holds(*evt.StateKey) }) {
		f.rooms[room] = true
	}
}

// add takes what one response has of the room, each dict's events at once: within a response Dendrite does not list events of the same
// depth in the order in which it stored them, and if they were added one by one, a writer could see its own event without a
// rival that was stored before it, and wrongly report success.
func (f *Feed) add(room id.RoomID, listed map[string][]*matrix.Event) {
	for stateKey, events := range listed {
		if d := f.Room(room).Replica(stateKey); d != nil {
			read := make([]merge.Event, len(events))
			for i, evt := range events {
				read[i] = f.Room(room).Parsed(evt)
			}
			d.Bring(read...)
		}
	}
}

// bring keeps encrypted events for the read that comes when the state refers to them.
func (f *Feed) bring(room id.RoomID, events []*event.Event) {
	if !f.brought.holds(room) && len(f.Dicts.In(room)) == 0 { // all that is said in rooms without memory would come here too
		return
	}
	for _, evt := range events {
		if evt.Type.Type != event.EventEncrypted.Type {
			continue
		}
		if text, err := json.Marshal(evt); err == nil {
			f.Megolm.Bring(room, evt.ID, text)
		}
	}
}

// Noticed is for somebody else than a sync who says that there is an event. Nothing of it is believed: what it can have changed is asked for again. It
// may be called by several goroutines at once.
func (f *Feed) Noticed(evt *event.Event) {
	switch {
	case f.Holds(evt):
		if d := f.Room(evt.RoomID).Replica(*evt.StateKey); d != nil {
			d.Doubt(evt.ID, time.Now())
		}
	case evt.Type.Type == event.EventRedaction.Type:
		f.redact(evt.RoomID, evt)
	case matrix.IsRooms(evt, event.StateEncryption):
		f.Encrypted.DoubtIn(evt.RoomID)
	}
}

// encrypt notes that a room is encrypted, or that the sync shows that it is not. What the memory refers to can show it all the same.
func (f *Feed) encrypt(room id.RoomID, encrypted bool, shows follow.Shows, own []*matrix.Event) {
	switch {
	case encrypted:
		f.Encrypted.Set(room, true, true)
	case shows(event.StateEncryption) && shows(f.Type):
		if !f.Layout.Together("") && f.client.Crypto != nil { // else each write has read all that there is
			for _, evt := range own {
				_ = f.Room(room).Parsed(evt) // learns of references
			}
		}
		f.Encrypted.Shows(room)
	}
}

// Holds tells whether the event is one of those that hold the memory.
func (f *Feed) Holds(evt *event.Event) bool {
	return evt.Type.Type == f.Type.Type && evt.StateKey != nil && f.Layout.Feeds(*evt.StateKey)
}

// stateEvent is the event as the homeserver gave it, where it is one of the store's.
func (f *Feed) stateEvent(evt *event.Event) *matrix.Event {
	if !f.Holds(evt) {
		return nil
	}
	content := evt.Content.VeryRaw
	if content == nil {
		content, _ = json.Marshal(evt.Content.Raw) // a syncer that has been at it
	}
	own := &matrix.Event{ID: evt.ID, Sender: evt.Sender, Time: evt.Timestamp, Type: evt.Type.Type, StateKey: evt.StateKey, Content: content}
	own.Unsigned.ReplacesState = evt.Unsigned.ReplacesState
	if evt.Unsigned.RedactedBecause != nil {
		own.Unsigned.Redaction = json.RawMessage("{}")
	}
	return own
}

// RedactedBy is the event that is redacted.
func RedactedBy(redaction *event.Event) id.EventID {
	redacted := redaction.Redacts
	if inContent, ok := redaction.Content.Raw["redacts"].(string); ok && redacted == "" { // since room version 11
		redacted = id.EventID(inContent)
	}
	return redacted
}

func (f *Feed) redact(room id.RoomID, redaction *event.Event) {
	redacted := RedactedBy(redaction)
	f.Megolm.Forget(room, redacted)
	f.brought.forgetThose(room, func(evt *matrix.Event) bool { return evt.ID == redacted })
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
		since := at.sent - f.Policy.PowerRace.Milliseconds()
		f.brought.forgetThose(room, func(evt *matrix.Event) bool { return evt.Time >= since && (at.from == "" || evt.Sender == at.from) })
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
