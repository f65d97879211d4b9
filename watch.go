package roomkv

import (
	"context"
	"encoding/json"
	"iter"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/watch"
)

// Change is one change of one key.
type Change struct {
	Key      string
	Old, New json.RawMessage // nil where the key was not there before, or is not there now; Old also where it was redacted
	Revision Revision        // the state event that brought the change; several changes can have one
	Sender   id.UserID       // who sent it
	Time     time.Time       // when, by the sender's homeserver's clock, to the millisecond
	Place    Place           // where it was changed, and New is; see [WithAccountDataFallback]

	// Expired is true if New is nil because the value has expired; see [ExpireAfter]. Revision is then the state event that still holds the value, or the one
	// that has removed it. If no event brought the change, but only the time, Sender is empty and Time is when the value expired.
	Expired bool

	// EndOfInitial marks the end of what [WatchInitial] tells first. It is no change: of the other fields only Revision is set, from which [WatchFrom]
	// would go on. That is empty where the homeserver lists no event of the memory.
	EndOfInitial bool
}

// WatchOption says what [Store.Watch] tells. With several [WatchKey] and [WatchPrefix] it tells the keys that any of them names.
type WatchOption func(*watch.Watch)

// WatchKey tells changes only of one key.
func WatchKey(key string) WatchOption {
	return watchAlso(func(k string) bool { return k == key })
}

// WatchPrefix tells changes only of keys that begin with one of the prefixes. Without a prefix the watch fails with [ErrInvalidOption].
func WatchPrefix(prefixes ...string) WatchOption {
	if len(prefixes) == 0 {
		return nil
	}
	prefixes = slices.Clone(prefixes)
	return watchAlso(func(key string) bool {
		return slices.ContainsFunc(prefixes, func(prefix string) bool { return strings.HasPrefix(key, prefix) })
	})
}

// watchAlso adds keys to those that are told.
func watchAlso(wants func(key string) bool) WatchOption {
	return func(w *watch.Watch) {
		if before := w.Wanted; before != nil {
			w.Wanted = func(key string) bool { return before(key) || wants(key) }
		} else {
			w.Wanted = wants
		}
	}
}

// WatchInitial makes a watch first tell what is there, in the order of the keys: each key as a [Change] in which Old is nil, with the revision that holds
// the value. Then comes a Change whose EndOfInitial is true, and then what has changed since. No change is lost or told twice: one that is made while
// the loop gets the first values is told after EndOfInitial.
//
// A value that cannot be read comes as an error beside the change's other fields. The watch also takes the requests of [Store.All].
// Together with [WatchFrom] the watch fails with [ErrInvalidOption].
func WatchInitial() WatchOption {
	return func(w *watch.Watch) { w.Initial = true }
}

// WatchFrom makes a watch begin after a revision instead of now. A bot that was down gives the revision of the last [Change] that it has dealt with, or that
// of an [Entry]. An empty revision means now.
func WatchFrom(revision Revision) WatchOption {
	return func(w *watch.Watch) { w.From = id.EventID(revision) }
}

// Watch returns the changes of the memory of the store's room, each once and in the order in which the homeserver
// lists them, whoever makes them. It begins when the iteration does, with [WatchInitial] by what is there, and goes on until the loop is left or ctx ends;
// its error then comes last. All changes of one event come in the order of the keys.
//
// The old value of each change is the new one of the change before. Where events were sent at the same time, what
// counts is what the memory holds with all of them, so that a value that never counted may not be told. Writes of one
// process that shared an event are one change, from what was there before them to what was there after.
//
// [Store.Follow] or [Store.FollowEvents] must have been called. Where the sync skips events, or the watch begins at a
// revision, the changes in between are read from the homeserver. A change whose value cannot be read comes as an error beside
// the change's other fields, and the iteration goes on. Other errors end it: [ErrNotFollowing]; [ErrTooOld] where the revision, or the last change, is not
// among the last thousand or so events of the store's type; [ErrRoomUpgraded]; and those of requests.
//
// When the room is upgraded, the watch tells what has changed until then and ends with ErrRoomUpgraded, which names the new room.
// With [WithRoomUpgrades] the next one watches that: begin it without WatchFrom, for a revision is of one room, and with WatchInitial, for what counts
// can have changed in between. Where the store cannot follow, or without that option, each watch ends so, so that a loop that
// watches again should pause.
//
// A loop that is slow holds up nobody: what it has yet to see waits in memory, or is read from the homeserver when it
// gets much.
func (s *Store) Watch(ctx context.Context, opts ...WatchOption) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		ctx, op := s.begin(ctx, "Watch")
		defer op.end(nil)
		yield = noting(op, yield)
		var w watch.Watch
		err := apply(&w, opts)
		if err == nil && w.Initial && w.From != "" {
			err = fault.Of(ErrInvalidOption, nil, "a watch begins with what is there, or after a revision")
		}
		if err == nil {
			wanted := w.Wanted
			w.Wanted = func(key string) bool {
				key, of := strings.CutPrefix(key, string(s.prefix))
				return of && (wanted == nil || wanted(key))
			}
			err = s.watch(ctx, &w, yield)
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

// watch runs a watch of the store's room.
func (s *Store) watch(ctx context.Context, w *watch.Watch, yield func(Change, error) bool) error {
	home, err := direct{s}.home(ctx)
	if err != nil {
		return err
	}
	w.Room = home.Room
	if s.core.fallback {
		w.Account = s.core.accounts.Memory(home.Room)
	}
	w.Upgraded = home.Watchable
	return w.Run(ctx, &s.core.feed.watches, func(told watch.Change, err error) bool {
		change := Change{Key: s.prefix.off(told.Key), Old: told.Old, New: told.New, Revision: Revision(told.Event), Sender: told.Sender, Time: told.Time,
			EndOfInitial: told.EndOfInitial, Expired: told.Expired}
		if told.InAccount {
			change.Place = InAccountData
		}
		return yield(change, err)
	})
}
