package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"iter"
	"maps"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// Change is one change of one key.
type Change struct {
	Key      string
	Old, New json.RawMessage // nil where the key was not there before, or is not there now; Old also where it was redacted
	Revision Revision        // the state event that brought the change; several changes can have one
	Sender   id.UserID       // who sent it
	Time     time.Time       // when, by the sender's homeserver's clock, to the millisecond
	Place    Place           // where it was changed, and New is; see [WithAccountDataFallback]
}

// WatchOption says what [Store.Watch] tells. Of several that say which keys, the last counts.
type WatchOption func(*watch)

// WatchKey tells changes of one key only.
func WatchKey(key string) WatchOption {
	return func(w *watch) { w.wanted = func(k string) bool { return k == key } }
}

// WatchPrefix tells changes of those keys only that begin with prefix.
func WatchPrefix(prefix string) WatchOption {
	return func(w *watch) { w.wanted = func(k string) bool { return strings.HasPrefix(k, prefix) } }
}

// WatchFrom begins after a revision instead of now, for a bot that was down: that of the last [Change] it has
// dealt with, or of an [Entry]. An empty
// revision is now.
func WatchFrom(revision Revision) WatchOption {
	return func(w *watch) { w.from = id.EventID(revision) }
}

// Watch returns the changes of the memory of the store's room, each once and in the order in which the homeserver
// lists them, whoever makes them. It begins when the iteration does, and goes on until the loop is left or ctx ends;
// its error then comes last. All changes of one event come in the order of the keys.
//
// The old value of each change is the new one of the change before. Where events were sent at the same time, what
// counts is what the memory holds with all of them, so that a value that never counted may not be told. Writes of one
// process that shared an event are one change, from what was there before them to what was there after.
//
// The store must follow the client's sync; see [Store.Follow]. Where that skips events, or the watch begins at a
// revision, the changes in between are read from the homeserver. A change whose value cannot be read comes as an
// error beside the change's other fields, and the iteration goes on. Other errors end it: [ErrNotFollowing];
// [ErrTooOld] where the revision or the last change that was told is not among the room's last thousand or so events
// of the store's type; [ErrRoomUpgraded]; and those of requests.
//
// When the room is upgraded, the watch tells what has changed until then and ends with ErrRoomUpgraded, which names the new room.
// With [WithRoomUpgrades] the next one watches that: begin it without WatchFrom, for a revision is of one room, and then read
// what counts, which can have changed in between. Where the store cannot follow, or without that option, each watch ends so, so that a loop that
// watches again should pause.
//
// A loop that is slow holds up nobody: what it has yet to see waits in memory, or is read from the homeserver when it
// gets much.
func (s *Store) Watch(ctx context.Context, opts ...WatchOption) iter.Seq2[Change, error] {
	return func(yield func(Change, error) bool) {
		w := watch{dicts: map[string]*watched{}, wanted: func(string) bool { return true }}
		err := apply(&w, opts)
		if err == nil {
			err = w.run(ctx, s, yield)
		}
		if err != nil {
			yield(Change{}, err)
		}
	}
}

// watch is a Watch that is going on.
type watch struct {
	wanted func(key string) bool
	from   id.EventID

	roomState
	dicts   map[string]*watched // by state key
	start   milestone           // what was there before is not told
	last    milestone           // the last event that was told, or was there before
	caught  bool                // whether the sync has brought all that was there before
	account *fallback.Memory    // nil where the memory cannot be in account data
	over    fallback.Version    // what was told of that
}

// watched is what a watch has told of one dict.
type watched struct {
	history merge.History
	names   map[string]string
	view    *replica.View // what the state has
}

// run returns nil where the loop was left.
func (w *watch) run(ctx context.Context, s *Store, yield func(Change, error) bool) error {
	var err error
	if w.roomState, err = s.state(ctx); err != nil {
		return err
	}
	if !s.core.Follower.Started() {
		return fault.Of(ErrNotFollowing, nil, "call Follow before Watch")
	}
	if err := w.CheckRoom(ctx, false); err != nil {
		return err
	}
	queue := s.core.feed.watch(w.ID)
	defer s.core.feed.unwatch(queue)
	if s.core.fallback {
		w.account = s.core.accounts.Memory(w.Room)
		over, stop, err := w.account.Watch(ctx, func(now fallback.Version) { queue.push(w.ID, news{account: &now}) })
		if err != nil {
			return err
		}
		w.over = over
		defer stop()
	}

	if w.from == "" {
		err = w.begin(ctx)
	} else if left, failed := w.resume(ctx, yield); left {
		return nil
	} else {
		err = failed
	}
	for stateKey, d := range w.accountDicts(w.over) {
		w.update(stateKey, d)
	}
	if err == nil {
		err = w.checkAlive(ctx, 0) // the sync may have told of it before the watch began
	}
	for err == nil {
		all, since, ended := queue.take(ctx)
		if ended != nil {
			return ended
		}
		for _, some := range all {
			left := false
			switch {
			case some.closed:
				return fault.Of(ErrNotFollowing, nil, "the store was closed")
			case some == news{}:
				left, err = w.catchUp(ctx, since, false, yield)
				if !left && err == nil && w.account != nil { // news of it can have been dropped
					left, err = w.tellAccount(ctx, w.account.Version(), yield)
				}
				if !left && err == nil {
					err = w.checkAlive(ctx, askAgain)
				}
			case some.account != nil:
				left, err = w.tellAccount(ctx, *some.account, yield)
			default:
				left, err = w.bring(ctx, some.event, yield)
			}
			if left || err != nil {
				return err
			}
		}
	}
	return err
}

// checkAlive fails where the room was upgraded, for what changes then changes elsewhere.
func (w *watch) checkAlive(ctx context.Context, within time.Duration) error {
	stone, err := w.tombstone(ctx, within)
	if err == nil && stone != nil {
		err = fault.Of(ErrRoomUpgraded, w.dead, "%s was replaced by %s, and nothing changes there any more; open that, or watch again with WithRoomUpgrades", w.ID, stone.replacement)
	}
	return err
}

// add takes an event in and gives what it changed.
func (w *watch) add(evt *matrix.Event) (names []string, before, after map[string]string) {
	d := w.dicts[*evt.StateKey]
	if d == nil {
		d = new(watched)
		w.dicts[*evt.StateKey] = d
	}
	if d.history.Had(evt.ID) && !d.history.Has(evt.ID) { // others have been made from it long since
		return nil, nil, nil
	}
	if !d.history.Add(w.roomState.Parsed(evt)) {
		return nil, nil, nil
	}
	if len(d.history.Missing()) > 0 {
		d.history.GiveUp()
	}
	heads := d.history.Heads()
	d.view = replica.ViewOf(heads[len(heads)-1])
	d.view.Names = d.history.Merge().Dict
	d.history.Prune(memory.PageEvents)
	return w.update(*evt.StateKey, d)
}

// update works out what the dict has now.
func (w *watch) update(stateKey string, d *watched) (names []string, before, after map[string]string) {
	before, after = d.names, d.view.Names
	if w.account != nil {
		after = w.account.Onto(w.over, stateKey, d.view)
	}
	d.names = after
	for name := range after {
		if old, ok := before[name]; !ok || old != after[name] {
			names = append(names, name)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
		}
	}
	return names, before, after
}

// bring is tell for an event that the sync has brought, which can have been there before.
func (w *watch) bring(ctx context.Context, evt *matrix.Event, yield func(Change, error) bool) (left bool, err error) {
	if !w.caught {
		if old, err := w.isOld(ctx, evt); old || err != nil {
			return false, err
		}
	}
	w.last = milestoneOf(evt)
	return w.tell(ctx, evt, yield)
}

// tell takes an event in and yields what it changed.
func (w *watch) tell(ctx context.Context, evt *matrix.Event, yield func(Change, error) bool) (left bool, err error) {
	if w.account != nil {
		if now := w.account.Version(); now.Moved { // the event can be what has moved
			w.over = now
		}
	}
	names, before, after := w.add(evt)
	if err := w.CheckNames(after); err != nil {
		return false, err
	}
	return w.yield(ctx, names, before, after, func(string) Change {
		return Change{Revision: Revision(evt.ID), Sender: evt.Sender, Time: time.UnixMilli(evt.Time)}
	}, yield), nil
}

// tellAccount takes in what account data has now and yields what that changes.
func (w *watch) tellAccount(ctx context.Context, now fallback.Version, yield func(Change, error) bool) (left bool, err error) {
	if !now.Later(w.over) {
		return false, nil
	}
	was := w.over
	w.over = now
	var names []string
	before, after := map[string]string{}, map[string]string{}
	for stateKey, d := range w.accountDicts(was, now) {
		changed, old, new := w.update(stateKey, d)
		names = append(names, changed...)
		maps.Copy(before, old)
		maps.Copy(after, new)
	}
	if err := w.CheckNames(after); err != nil {
		return false, err
	}
	return w.yield(ctx, names, before, after, func(name string) Change {
		change := Change{Sender: w.Client.UserID, Time: time.Now().Truncate(time.Millisecond), Place: InAccountData}
		if revision, sent, ok := now.RevisionOf(name); ok {
			change.Revision, change.Time = Revision(revision), time.UnixMilli(sent)
		}
		return change
	}, yield), nil
}

// accountDicts are the dicts of which account data has some name, by state key.
func (w *watch) accountDicts(contents ...fallback.Version) map[string]*watched {
	dicts := map[string]*watched{}
	for _, content := range contents {
		for name := range content.Over {
			stateKey := w.core.Layout.StateKey(name)
			if w.dicts[stateKey] == nil {
				w.dicts[stateKey] = &watched{view: &replica.View{}}
			}
			dicts[stateKey] = w.dicts[stateKey]
		}
	}
	return dicts
}

// yield tells changes of names, each of which begins as base says.
func (w *watch) yield(ctx context.Context, names []string, before, after map[string]string, base func(name string) Change,
	yield func(Change, error) bool) (left bool) {
	var changes []told
	for _, name := range names {
		key, plain := wire.KeyOf(name)
		if plain && (w.core.Secret != nil || !w.wanted(key)) || !plain && !wire.IsSealed(name) {
			continue
		}
		t := w.change(ctx, base(name), name, before, after)
		if t.Key == "" && t.err != nil && !plain || w.wanted(t.Key) {
			changes = append(changes, t)
		}
	}
	slices.SortStableFunc(changes, func(a, b told) int { return strings.Compare(a.Key, b.Key) })
	for _, t := range changes {
		if !yield(t.Change, t.err) {
			return true
		}
	}
	return false
}

// told is a change, with the error of a value that cannot be read.
type told struct {
	Change
	err error
}

// change is what has changed about one name, with what base has. What the old value was matters less than what the new one is, and one
// that was redacted is only left out.
func (w *watch) change(ctx context.Context, base Change, name string, before, after map[string]string) (t told) {
	t.Change = base
	from := id.EventID(base.Revision)
	t.Key, _ = wire.KeyOf(name)
	if old, ok := before[name]; ok {
		read, err := w.Reader().Value(ctx, name, json.RawMessage(old), from)
		if t.Key, t.Old = read.Key, read.JSON; !errors.Is(err, ErrRedacted) || t.Key == "" {
			t.err = err
		}
	}
	if now, ok := after[name]; ok {
		read, err := w.Reader().Value(ctx, name, json.RawMessage(now), from)
		t.New, t.err = read.JSON, err
		if read.Key != "" {
			t.Key = read.Key
		}
	}
	return t
}
