package inbox

import (
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// item is an event that waits to be handled, or a gap.
type item struct {
	room  id.RoomID
	batch *batch
	id    id.EventID
	evt   *event.Event
	gap   *gap // nil for an event

	locked    bool // whether it waits for its key
	overtaken bool // whether the room's other events do not wait for it
	timer     stopper
}

type stopper interface{ Stop() bool }

// room is what waits in a room.
type room struct {
	id      id.RoomID
	waiting []*item
	busy    bool // whether something is being handled
	queued  bool // whether the room waits for its turn
}

func (r *room) remove(it *item) {
	r.waiting = slices.DeleteFunc(r.waiting, func(other *item) bool { return other == it })
}

// roomOf is the room of that ID. The caller has the lock.
func (i *Inbox) roomOf(at id.RoomID) *room {
	r := i.rooms[at]
	if r == nil {
		r = &room{id: at}
		i.rooms[at] = r
	}
	return r
}

// add makes an item wait. The caller has the lock.
func (i *Inbox) add(it *item) {
	if it.gap == nil {
		i.known[it.id] = it.batch
	}
	it.batch.open++
	i.kept++
	r := i.roomOf(it.room)
	r.waiting = append(r.waiting, it)
	i.schedule(r)
}

// schedule gives the room a turn, where there is something to do. The caller has the lock.
func (i *Inbox) schedule(r *room) {
	switch {
	case r.busy || r.queued || i.stopping:
		return
	case len(r.waiting) == 0:
		delete(i.rooms, r.id)
		return
	case r.waiting[0].locked:
		return
	}
	r.queued = true
	i.ready = append(i.ready, r)
	if i.working < i.limits.Rooms {
		i.working++
		go i.work()
	}
}

// work handles what waits until nothing does. Rooms take turns.
func (i *Inbox) work() {
	i.mu.Lock()
	defer i.mu.Unlock()
	for len(i.ready) > 0 && !i.stopping {
		r := i.ready[0]
		i.ready = i.ready[1:]
		it := r.waiting[0]
		r.waiting = r.waiting[1:]
		r.queued, r.busy = false, true
		i.mu.Unlock()
		done := i.handle(it)
		i.mu.Lock()
		r.busy = false
		if done {
			it.batch.open--
			if it.gap != nil {
				i.kept--
			} else {
				it.batch.handled = append(it.batch.handled, it.id)
			}
			i.settle()
		}
		i.schedule(r)
	}
	if i.working--; i.working == 0 && i.idle != nil {
		close(i.idle)
	}
}

// handle tells whether all was handled.
func (i *Inbox) handle(it *item) bool {
	if it.gap != nil {
		return i.bridge(it)
	}
	return i.tell(it.evt)
}

// tell gives an event to its handlers, one after the other. It tells whether they have returned before their context ended.
func (i *Inbox) tell(evt *event.Event) bool {
	i.mu.Lock()
	handlers := i.handlersOf(evt)
	i.mu.Unlock()
	for _, handle := range handlers {
		i.call(handle, evt)
	}
	return i.ctx.Err() == nil
}

// call calls a handler. Where it panics, the log has where, and not with which value, for that can be of a message. An event whose handler has
// panicked was handled, for it would do so again.
func (i *Inbox) call(handle mautrix.EventHandler, evt *event.Event) {
	log := i.config.Log.With().Stringer("room_id", evt.RoomID).Stringer("event_id", evt.ID).Logger()
	defer func() {
		panicked := recover()
		if panicked == nil {
			return
		}
		kind := fmt.Sprintf("%T", panicked)
		if err, is := panicked.(runtime.Error); is { // its text has numbers and types alone
			kind = err.Error()
		}
		log.Error().Str("panic", kind).Str("stack", string(debug.Stack())).Msg("A handler has panicked")
	}()
	handle(log.WithContext(i.ctx), evt)
}
