package roomkv

import (
	"context"
	"iter"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// WithRoom returns a store for the memory of another room, with the same client and options; opsdroid's
// memory_in_room is its counterpart. The room is a room ID, an alias, or a name configured with [WithRooms]; it is
// an id.RoomID so that an event's RoomID and a constant both pass without conversion.
// The store it is called on stays as it is.
//
// A room ID costs nothing; an alias is resolved here, at most once for all stores that came from one [New].
// The error is [ErrUnknownRoom] where there is no such name or alias, [ErrNoRoom] for an empty one, or that of the request.
func (s *Store) WithRoom(ctx context.Context, room id.RoomID) (scoped *Store, err error) {
	scoped = &Store{core: s.core, room: string(room), prefix: s.prefix}
	ctx, op := scoped.begin(ctx, "WithRoom")
	defer op.end(&err)
	if _, err := scoped.core.roomID(ctx, scoped.room); err != nil {
		return nil, err
	}
	return scoped, nil
}

// Sub returns a store of the keys that begin with prefix, which its methods take and give without it: with Sub("score/"), Put("alice") writes
// "score/alice". The store itself stays as it is. A Sub of a Sub has both prefixes, and [Store.WithRoom] and [Store.InEventRoom] keep them.
//
// No method touches other keys, so that [CopyRedactSource], which redacts state events, is [ErrInvalidOption]. Texts of errors name keys with
// the prefix. A Sub takes the requests of the whole memory. [WithSealedKeys] seals the prefix with the key, so that lists read all values. A prefix
// that is not valid UTF-8 is [ErrInvalidKey] when the store is used.
func (s *Store) Sub(prefix string) *Store {
	sub := &Store{core: s.core, room: s.room, prefix: s.prefix.with(prefix)}
	sub.opened.Store(s.opened.Load())
	return sub
}

// Rooms returns the rooms, by ID and in order, that the client's user has joined and that have a memory of the store's event type and layout in
// their state, also where its last key was deleted. It reads them when the iteration begins. A memory in account data is not among them.
//
// It takes no request while the store follows a sync that began without a token, and else one, a sync that brings these memories too and neither
// members nor other state. On Dendrite it can lack what was written some milliseconds ago.
//
// An error comes once, with an empty ID, and ends the iteration. It is one of those that [Store] names for all methods.
func (s *Store) Rooms(ctx context.Context) iter.Seq2[id.RoomID, error] {
	return func(yield func(id.RoomID, error) bool) {
		ctx, op := s.core.begin(ctx, "Rooms", "", nil)
		defer op.end(nil)
		yield = noting(op, yield)
		rooms, err := s.core.feed.memory.Rooms(ctx)
		if err != nil {
			yield("", err)
			return
		}
		for _, room := range rooms {
			if !yield(room, nil) {
				return
			}
		}
	}
}

// InEventRoom makes an event handler of one that also gets the store of the event's room; opsdroid's
// memory_in_event_room is its counterpart. The handler finds the same store with [FromContext] in its
// context and in every context made from that. Handlers may run in any number of rooms at once and may
// panic: each has a store of its own.
//
// For an event outside of any room, a to-device message for example, the store is there but whatever it should
// read or write fails with [ErrNoRoom]. Without a handle the event handler does nothing.
func (s *Store) InEventRoom(handle func(ctx context.Context, evt *event.Event, room *Store)) mautrix.EventHandler {
	if handle == nil {
		return func(context.Context, *event.Event) {}
	}
	return func(ctx context.Context, evt *event.Event) {
		scoped := &Store{core: s.core, room: string(evt.RoomID), prefix: s.prefix}
		handle(context.WithValue(ctx, scopeKey{}, scoped), evt, scoped)
	}
}

// FromContext returns the store that [Store.InEventRoom] scoped to the event's room, for code that a handler
// calls. It is not ok outside of such a handler.
func FromContext(ctx context.Context) (room *Store, ok bool) {
	room, ok = ctx.Value(scopeKey{}).(*Store)
	return room, ok
}

type scopeKey struct{}
