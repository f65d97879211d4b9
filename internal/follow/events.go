package follow

import (
	"context"
	"time"

	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fault"
)

// StartEvents is Start for a client without a syncer: on registers a handler of single events, once for each type that matters. The rooms are never
// [Follower.Live]. Such events, those that a homeserver pushes to an application service for example, show neither a gap nor that nothing has
// happened, they can come late, twice and in any order, and with each comes only itself. So nothing is believed of an event but that it may be there.
//
// MaxAge is for how long what the homeserver has said counts for reads, unless an event tells otherwise.
//
// It fails with [fault.ErrInvalidOption] without on, where maxAge is negative, after Start, or after Stop.
func (f *Follower) StartEvents(on func(event.Type, func(context.Context, *event.Event)), maxAge time.Duration) error {
	f.starting.Lock()
	defer f.starting.Unlock()
	switch {
	case f.stopped.Load():
		return errClosed()
	case on == nil:
		return fault.Of(fault.ErrInvalidOption, nil, "cannot follow events: nothing registers the handlers of them")
	case maxAge < 0:
		return fault.Of(fault.ErrInvalidOption, nil, "reads cannot be %v old", maxAge)
	case f.from.Load() == followsSync:
		return fault.Of(fault.ErrInvalidOption, nil, "cannot follow events: the store follows the client's sync")
	case f.from.Load() == followsEvents:
		return nil
	}
	f.maxAge = maxAge
	f.from.Store(followsEvents)
	for _, eventType := range []event.Type{f.EventType, event.EventRedaction, event.StateEncryption, event.StateTombstone} {
		on(eventType, f.onEvent)
	}
	return nil
}

func (f *Follower) onEvent(_ context.Context, evt *event.Event) {
	if evt != nil && f.Started() {
		f.Sink.Noticed(evt)
	}
}

// FollowsEvents tells whether StartEvents has succeeded and nobody has called Stop.
func (f *Follower) FollowsEvents() bool { return f.from.Load() == followsEvents && !f.stopped.Load() }

// MaxAge is for how long what the homeserver has said counts for reads, 0 where it does not.
func (f *Follower) MaxAge() time.Duration {
	if !f.FollowsEvents() {
		return 0
	}
	return f.maxAge
}
