package roomkv

import (
	"context"
	"encoding/json"
	"slices"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// Follow makes the store, and all others that come from the same [New], read from memory, which the client's sync
// feeds. A Get of a memory that was read before then takes no request. It sees all that this process has written, and
// what others have as soon as the sync brings it. A write waits for the sync to bring it back, which takes the place
// of one request. One that changes nothing, or fails for what is there, asks the homeserver what is current before it does so.
//
// Call it once for each [New], after cryptohelper's Init, before the client's Sync and before other handlers of whole responses are registered
// with the syncer, such as mautrix's DontProcessOldEvents, for these can keep responses from those after them. The
// client's Syncer must be a [mautrix.ExtensibleSyncer], as mautrix's own are, and its filter must let the store's events
// through.
//
// In a handler of the sync, use the handler's context or one made from it: the sync brings nothing while a handler runs,
// so a write looks back with a request of its own. With another context it first waits 0.3 seconds in vain.
//
// The store does not read from memory before the first response of the sync, after the user has left the room, after the sync has skipped
// events, after a handler that was registered earlier has kept a response back, after the sync's context has ended, or after the
// sync has said nothing for 40 seconds. Then everything is as without Follow. After [mautrix.Client.StopSync] a Get can return a value
// that others have replaced, for up to 40 seconds.
//
// While following, a memory that was changed in two places at once, for example by two homeservers that could not
// reach each other, is merged when that comes to light, which takes a moment and a write.
//
// The error is [ErrInvalidOption].
func (s *Store) Follow() error { return s.core.Follower.Start() }

// feed gives the replicas, and what else is known of rooms, what the client's sync brings. It implements [follow.Sink].
type feed struct {
	core *core

	mu         sync.RWMutex
	watchers   map[*watcher]bool
	powerTaken map[id.RoomID]*powerTaken
}

// Missed implements [follow.Sink]: nothing is believed that the sync would have changed.
func (f *feed) Missed() {
	f.core.Encrypted.Doubt()
	f.core.upgrades.doubtAll()
	f.core.overlays.Range(func(_, o any) bool {
		o.(*overlay).account.forget()
		return true
	})
	for _, d := range f.core.Dicts.All() {
		d.Forget()
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for w := range f.watchers {
		w.push(w.room, news{})
	}
}

// Skipped implements [follow.Sink].
func (f *feed) Skipped(room id.RoomID) {
	for _, d := range f.core.Dicts.In(room) {
		d.Forget()
	}
	f.lookBack(room)
}

// Invited implements [follow.Sink].
func (f *feed) Invited(room id.RoomID) { f.core.upgrades.invited(room) }

// Joined implements [follow.Sink].
func (f *feed) Joined(room id.RoomID, joined *mautrix.SyncJoinedRoom) (own []*matrix.Event) {
	own = f.take(room, joined)
	f.account(room, joined)
	return own
}

func (f *feed) take(room id.RoomID, joined *mautrix.SyncJoinedRoom) (own []*matrix.Event) {
	if f.upgrade(room, joined) { // first, for a write that the sync brings is done
		defer f.lookBack(room) // last, for a watch ends with that
	}
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
		if d := f.core.Dicts.Find(f.address(room, *own.StateKey)); d != nil {
			d.Resolved(own.ID)
		}
	}
	return own
}

// powerSettles is how long before and after a change of the power to write what is sent can be left out of the state for it: homeservers make
// requests that come at the same time part of different branches.
const powerSettles = 10 * time.Second

// reconsider has dicts looked at again where somebody's power to write, or their membership, has been taken away of late.
func (f *feed) reconsider(room id.RoomID, joined *mautrix.SyncJoinedRoom) {
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
func (f *feed) readAgain(room id.RoomID, at *powerTaken) {
	for {
		f.mu.Lock()
		from, since, again := at.from, at.sent-powerSettles.Milliseconds(), at.again
		at.again, at.reading = false, again
		f.mu.Unlock()
		if !again {
			return
		}
		for _, d := range f.core.Dicts.In(room) {
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

// account is for account data that another process may have changed, and for power levels.
func (f *feed) account(room id.RoomID, joined *mautrix.SyncJoinedRoom) {
	if !f.core.fallback {
		return
	}
	o := (roomState{Room: f.core.Room(room), core: f.core}).overlay()
	for _, evt := range joined.AccountData.Events {
		if evt.Type.Type == o.accountType() {
			content, _ := wire.ParseAccount(evt.Content.VeryRaw) // what is no dict is none that was saved
			o.account.heard(content)
		}
	}
	levels := func(evt *event.Event) bool { return matrix.IsRooms(evt, event.StatePowerLevels) }
	if slices.ContainsFunc(slices.Concat(joined.Timeline.Events, joined.State.Events), levels) {
		go o.powerChanged()
	}
}

// bring keeps an encrypted event for the read that comes when the state refers to it.
func (f *feed) bring(room id.RoomID, evt *event.Event) {
	if len(f.core.Dicts.In(room)) == 0 { // all that is said in rooms without memory would come here too
		return
	}
	if text, err := json.Marshal(evt); err == nil {
		f.core.Megolm.Bring(room, evt.ID, text)
	}
}

// encrypt notes that a room is encrypted, whatever the event's content.
func (f *feed) encrypt(room id.RoomID, evt *event.Event) {
	if matrix.IsRooms(evt, event.StateEncryption) {
		f.core.Encrypted.Set(room, true, true)
	}
}

// upgrade notes that the room may have been upgraded, and tells whether it may.
func (f *feed) upgrade(room id.RoomID, joined *mautrix.SyncJoinedRoom) (upgraded bool) {
	all := slices.Concat(joined.State.Events, joined.Timeline.Events)
	if joined.StateAfter != nil {
		all = append(all, joined.StateAfter.Events...)
	}
	for _, evt := range all {
		if matrix.IsRooms(evt, event.StateTombstone) {
			f.core.upgrades.doubt(room, evt.ID)
			upgraded = true
		}
	}
	return upgraded
}

func (f *feed) address(room id.RoomID, stateKey string) commit.Dict {
	return commit.Dict{Room: room, Type: f.core.Type.Type, StateKey: stateKey}
}

// stateEvent is the event as the homeserver gave it, where it is one of the store's.
func (f *feed) stateEvent(evt *event.Event) *matrix.Event {
	if evt.Type.Type != f.core.Type.Type || evt.StateKey == nil || !f.core.Layout.Holds(*evt.StateKey) {
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

// add takes what one response has of the room, each dict's events at once: within a response Dendrite does not list events of the same
// depth in the order in which it stored them, and a writer that saw its own without the rival before it was told that it stands.
func (f *feed) add(room id.RoomID, events []*matrix.Event) {
	read := map[commit.Dict][]merge.Event{}
	for _, evt := range events {
		at := f.address(room, *evt.StateKey)
		read[at] = append(read[at], f.core.Room(room).Parsed(evt))
	}
	for at, events := range read {
		if d := f.core.Dicts.Find(at); d != nil {
			d.Bring(events...)
		}
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, evt := range events {
		for w := range f.watchers {
			w.push(room, news{event: evt})
		}
	}
}

func (f *feed) redact(room id.RoomID, redaction *event.Event) {
	redacted := redaction.Redacts
	if inContent, ok := redaction.Content.Raw["redacts"].(string); ok && redacted == "" { // since room version 11
		redacted = id.EventID(inContent)
	}
	f.core.Megolm.Forget(room, redacted)
	for _, d := range f.core.Dicts.In(room) {
		d.Redacted(redacted)
	}
	f.lookBack(room)
}

// lookBack makes those who watch the room ask what they have missed.
func (f *feed) lookBack(room id.RoomID) {
	f.mu.RLock()
	defer f.mu.RUnlock()
	for w := range f.watchers {
		w.push(room, news{})
	}
}
