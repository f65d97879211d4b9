package inbox

import (
	"context"
	"errors"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Begin is called with each response of the sync before the client's syncer processes it. Where too much waits already, it waits until some of that was
// handled. The error is ctx's.
func (i *Inbox) Begin(ctx context.Context, resp *mautrix.RespSync) error {
	for told := false; ; told = true {
		i.mu.Lock()
		if i.kept < i.limits.Kept {
			break
		}
		if i.space == nil {
			i.space = make(chan struct{})
		}
		space, waiting := i.space, len(i.rooms)
		i.mu.Unlock()
		if !told {
			i.config.Log.Warn().Int("rooms", waiting).Msg("Too many events wait for handlers. The sync waits too.")
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-space:
		}
	}
	defer i.mu.Unlock()
	b := &batch{token: resp.NextBatch, open: 1, handled: i.again}
	for _, handled := range i.again {
		i.known[handled] = b
	}
	i.kept += len(i.again)
	i.again = nil
	i.batches = append(i.batches, b)
	i.filling, i.early = b, map[id.EventID]*event.Event{}
	return nil
}

// End is called after the syncer has processed the response. Since is the token that was asked with.
func (i *Inbox) End(resp *mautrix.RespSync, since string) {
	i.mu.Lock()
	defer i.mu.Unlock()
	b := i.filling
	if since != "" || i.config.OldEvents {
		for room, joined := range resp.Rooms.Join {
			i.take(b, room, &joined.Timeline, since)
		}
		for room, left := range resp.Rooms.Leave {
			i.take(b, room, &left.Timeline, since)
		}
	}
	i.filling, i.early = nil, nil
	b.open--
	i.settle()
}

// take takes what is to be told of a room. The caller has the lock.
func (i *Inbox) take(b *batch, at id.RoomID, timeline *mautrix.SyncTimeline, since string) {
	events, joins := timeline.Events, false
	for n := len(events) - 1; n >= 0; n-- {
		if joins = i.joins(events[n]); joins {
			if !i.config.OldEvents {
				events = events[n+1:]
			}
			break
		}
	}
	if timeline.Limited && since != "" && !joins && len(i.handlers) > 0 {
		i.add(&item{room: at, batch: b, gap: &gap{since: since, until: timeline.PrevBatch}})
	}
	for _, evt := range events {
		if i.wants(evt, at, b) {
			i.add(i.itemOf(evt, at, b))
		}
	}
}

// joins tells whether the user comes into the room with the event.
func (i *Inbox) joins(evt *event.Event) bool {
	if evt.Type.Type != event.StateMember.Type || evt.StateKey == nil || *evt.StateKey != i.config.Self.String() || membership(&evt.Content) != "join" {
		return false
	}
	return evt.Unsigned.PrevContent == nil || membership(evt.Unsigned.PrevContent) != "join"
}

func membership(content *event.Content) string {
	text, _ := content.Raw["membership"].(string)
	return text
}

// wants tells whether handlers are to be told of an event, and makes it ready for them. The caller has the lock.
func (i *Inbox) wants(evt *event.Event, at id.RoomID, b *batch) bool {
	if evt.ID == "" || evt.Sender == i.config.Self && !i.config.OwnEvents || !isRead(evt, at) {
		return false
	}
	if _, known := i.known[evt.ID]; known {
		return false
	}
	if i.isLocked(evt) {
		return len(i.handlers) > 0 && evt.Unsigned.RedactedBecause == nil
	}
	return len(i.handlersOf(evt)) > 0
}

// isLocked tells whether an event is to be decrypted.
func (i *Inbox) isLocked(evt *event.Event) bool {
	return i.config.Decrypt != nil && evt.Type.Type == event.EventEncrypted.Type && evt.StateKey == nil
}

// isRead reads an event's content as [mautrix.DefaultSyncer] does, where that has not. It tells whether the syncer would give the event to handlers. An event
// that the syncer has read is not changed, for cryptohelper can be reading it.
func isRead(evt *event.Event, at id.RoomID) bool {
	if evt.Mautrix.EventSource != 0 {
		return true
	}
	evt.RoomID = at
	if evt.Type.Class = event.MessageEventType; evt.StateKey != nil {
		evt.Type.Class = event.StateEventType
	}
	if err := evt.Content.ParseRaw(evt.Type); err != nil && !errors.Is(err, event.ErrUnsupportedContentType) && !errors.Is(err, event.ErrContentAlreadyParsed) {
		return false
	}
	evt.Mautrix.EventSource = event.SourceJoin | event.SourceTimeline
	return true
}

// itemOf is an event that waits. One that is to be decrypted waits for that first. The caller has the lock.
func (i *Inbox) itemOf(evt *event.Event, at id.RoomID, b *batch) *item {
	it := &item{room: at, batch: b, id: evt.ID, evt: evt}
	if !i.isLocked(evt) {
		return it
	}
	if decrypted, known := i.early[evt.ID]; known {
		if decrypted != nil {
			it.evt = decrypted
		}
		return it
	}
	it.locked = true
	it.timer = time.AfterFunc(i.limits.Order, func() { i.overtake(it) })
	i.awaiting[evt.ID] = it
	return it
}

// Take is a handler of all events, which the client's syncer must have. It takes what was decrypted, in whichever goroutine.
func (i *Inbox) Take(_ context.Context, evt *event.Event) {
	if evt.Mautrix.EventSource&event.SourceDecrypted != 0 {
		i.unlock(evt.ID, evt)
	}
}

// Undecryptable is for cryptohelper's DecryptErrorCallback. Without it the event is told after [Limits].Decrypt.
func (i *Inbox) Undecryptable(evt *event.Event, _ error) { i.unlock(evt.ID, nil) }

// unlock is for an event that was decrypted, or where decrypted is nil never will be.
func (i *Inbox) unlock(of id.EventID, decrypted *event.Event) {
	i.mu.Lock()
	defer i.mu.Unlock()
	it := i.awaiting[of]
	if it == nil {
		if i.filling != nil {
			i.early[of] = decrypted
		}
		return
	}
	delete(i.awaiting, of)
	it.timer.Stop()
	it.locked = false
	if decrypted != nil {
		it.evt = decrypted
	}
	at := i.roomOf(it.room)
	if it.overtaken {
		at.waiting = append(at.waiting, it)
	}
	i.schedule(at)
}

// overtake lets the room's events go on without one that is not decrypted. It is told when it is, or as it is when that has taken too long.
func (i *Inbox) overtake(it *item) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if !it.locked || i.stopping {
		return
	}
	it.overtaken = true
	it.timer = time.AfterFunc(max(0, i.limits.Decrypt-i.limits.Order), func() { i.unlock(it.id, nil) })
	at := i.roomOf(it.room)
	at.remove(it)
	i.schedule(at)
}
