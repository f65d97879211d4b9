package roomkv

import (
	"cmp"
	"context"
	"time"

	"maunium.net/go/mautrix/event"
)

// Follow makes the store, and all others that come from the same [New], keep copies of memories in this process, which the client's sync keeps current.
// A Get of a memory that was read before, or that the first response of an initial sync has brought, then takes no request. It sees all
// that this process has written, and what others have as soon as the sync brings it. A write waits for the sync to bring it back.
//
// Call it once for each [New], after cryptohelper's Init, before the client's Sync and before other handlers of whole responses are registered
// with the syncer, such as mautrix's DontProcessOldEvents, for these can keep responses from those after them.
//
// In a handler of the sync, use the handler's context or one made from it: the sync brings nothing while a handler runs,
// so a write looks back with a request of its own. With another context it first waits 0.3 seconds in vain.
//
// The store does not read from memory before the first response of the sync, after the user has left the room, after the sync has skipped
// events, after a handler that was registered earlier has kept a response back, after the sync's context has ended, or after the
// sync has said nothing for 40 seconds. Then everything is as without Follow. After [mautrix.Client.StopSync] a Get can return a value
// that others have replaced, for up to 40 seconds.
//
// A second call does nothing. Follow fails with [ErrInvalidOption] where the store was closed or follows events, where the client's Syncer is no
// [mautrix.ExtensibleSyncer], as mautrix's own are, and where its filter leaves the store's events out.
func (s *Store) Follow() error { return s.core.Follower.Start() }

// FollowEvents is [Store.Follow] for a client that does not sync, such as an intent of an application service. It calls on to register handlers of events: pass
// On of mautrix's appservice.EventProcessor, before that starts. Then [Store.Watch] works. After an event the store asks the homeserver what has changed, so
// that events may come late, twice and in any order. Each read asks the homeserver. With a maxAge above 0 a read is answered from memory for up to maxAge
// after the homeserver was asked, and less if an event tells of a change. If none comes, a read can miss what others have written in that time. It fails with
// [ErrInvalidOption] if on is nil, maxAge is negative, or the store follows a sync or was closed. A second call does nothing.
func (s *Store) FollowEvents(on func(eventType event.Type, handle func(ctx context.Context, evt *event.Event)), maxAge time.Duration) error {
	return s.core.Follower.StartEvents(on, maxAge)
}

// Flush sends what the stores that come from the same [New] have yet to send, and waits until that is done; see [WithFlushEvery]. Without that option
// there is nothing to send. Other goroutines may write meanwhile.
//
// Flush returns the first error since the last Flush that returned one: an error of [Store.Put], or one that the function of an [Update] returned. After an error that
// another try cannot mend, such as [ErrForbidden], [ErrNotJoined], [ErrTooLarge] or [ErrNoCrypto], the writes that it concerns are dropped, and so is an Update
// that may have been done. After any other error they go on waiting and are tried again. The client's log has every error. If ctx ends first Flush
// returns its error, and nothing is dropped.
func (s *Store) Flush(ctx context.Context) (err error) {
	ctx, op := s.core.begin(ctx, "Flush", "", nil)
	defer op.end(&err)
	if s.core.waiting == nil {
		return nil
	}
	return s.core.waiting.Flush(ctx)
}

// Close ends what the stores that come from the same [New] do in the background, and waits for that. With [WithFlushEvery] it first sends what waits, as
// [Store.Flush] does, and a program must call it before it ends. Then the stores no longer follow the client's sync, and each [Store.Watch] ends
// with [ErrNotFollowing]. A write whose caller has given up goes on for up to 10 seconds.
//
// The stores go on working, as without Follow and WithFlushEvery. [Store.Follow] then fails with [ErrInvalidOption]. Close can be called again.
//
// The error is ctx's, where that ends first, or that of Flush. What was not sent is lost.
func (s *Store) Close(ctx context.Context) (err error) {
	ctx, op := s.core.begin(ctx, "Close", "", nil)
	defer op.end(&err)
	var unsent error
	if s.core.waiting != nil {
		unsent = s.core.waiting.Close(ctx)
	}
	s.core.Follower.Stop()
	s.core.feed.watches.End()
	err = s.core.Background.Close(ctx)
	if s.core.waiting != nil {
		s.core.waiting.Abandon()
	}
	return cmp.Or(unsent, err)
}
