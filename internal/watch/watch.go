// Package watch tells the changes of a memory, each once and in the order in which the homeserver lists them.
package watch

import (
	"context"
	"encoding/json"
	"errors"
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
	Key       string
	Old, New  json.RawMessage // nil where the key was not there before, or is not there now
	Event     id.EventID      // the state event that brought the change, or what stands for it in account data
	Sender    id.UserID
	Time      time.Time
	InAccount bool // whether it was changed in account data
	Expired   bool // whether New is nil because the value's time is over

	// EndOfInitial: what was there when the watch began has been told. Event is where the watch goes on from, and nothing else is set.
	EndOfInitial bool
}

// Watch is a watch of one memory. The exported fields are set before it runs.
type Watch struct {
	memory.Room
	Wanted  func(key string) bool
	From    id.EventID       // the revision after which it begins, empty for now
	Initial bool             // whether it tells first what is there; not where it begins after a revision
	Account *fallback.Memory // nil where the memory cannot be in account data

	// Upgraded fails where the room was upgraded. The homeserver is asked where it was not for so long and no sync tells.
	Upgraded func(ctx context.Context, within time.Duration) error

	dicts  map[string]*watched // by state key
	start  milestone           // what was there before is not told
	last   milestone           // the last event that was told, or was there before
	caught bool                // whether the sync has brought all that was there before
	over   fallback.Version    // what was told of account data
	expiring
}

// watched is what a watch has told of one dict.
type watched struct {
	history merge.History
	names   map[string]string
	view    *replica.View // what the state has
}

// Run tells changes until the loop is left, which is no error.
//
// Errors: ErrNotFollowing, ErrTooOld, what Upgraded fails with, and those of requests.
func (w *Watch) Run(ctx context.Context, queues *Queues, yield func(Change, error) bool) error {
	w.dicts = map[string]*watched{}
	queue := queues.open(w.ID)
	defer queues.close(queue)
	if !w.Follower.Started() { // after the queue is open, which Close ends
		return fault.Of(fault.ErrNotFollowing, nil, "call Follow, or FollowEvents, before Watch")
	}
	if err := w.EnsureFields(ctx, false); err != nil {
		return err
	}
	if w.Account != nil {
		over, stop, err := w.Account.Watch(ctx, func(now fallback.Version) { queue.push(w.ID, news{account: &now}) })
		if err != nil {
			return err
		}
		w.over = over
		defer stop()
	}

	left, err := false, error(nil)
	if w.From == "" {
		err = w.begin(ctx)
	} else {
		left, err = w.resume(ctx, yield)
	}
	for stateKey, d := range w.accountDicts(w.over) {
		w.update(stateKey, d)
	}
	if err == nil && w.Initial {
		left, err = w.tellInitial(ctx, yield)
	}
	if left {
		return nil
	}
	if err == nil { // the sync may have told of an upgrade already
		if replaced := w.Upgraded(ctx, 0); replaced != nil {
			_, err = w.catchUpBefore(ctx, replaced, reach{}, yield)
			return err
		}
	}
	for err == nil {
		all, since, ended := queue.take(ctx, w.untilExpiry(ctx))
		if ended != nil {
			return ended
		}
		if w.tellExpired(ctx, yield) {
			return nil
		}
		for _, some := range all {
			left := false
			switch {
			case some.closed:
				return fault.Of(fault.ErrNotFollowing, nil, "the store was closed")
			case some == news{}:
				left, err = w.catchUpBefore(ctx, w.Upgraded(ctx, w.Policy.AnswerFor), reach{since: since}, yield)
			case some.account != nil:
				left, err = w.tellAccount(ctx, *some.account, yield)
			case some.notice != nil:
				left, err = w.notice(ctx, *some.notice, yield)
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

// add takes an event in and gives what it changed.
func (w *Watch) add(evt *matrix.Event) (names []string, before, after map[string]string) {
	d := w.dicts[*evt.StateKey]
	if d == nil {
		d = new(watched)
		w.dicts[*evt.StateKey] = d
	}
	if d.history.Had(evt.ID) && !d.history.Has(evt.ID) { // others have been made from it long since
		return nil, nil, nil
	}
	if !d.history.Add(w.Room.Parsed(evt)) {
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
func (w *Watch) update(stateKey string, d *watched) (names []string, before, after map[string]string) {
	before, after = d.names, d.view.Names
	if w.Account != nil {
		after = w.Account.Onto(w.over, stateKey, d.view)
	}
	d.names = after
	for name, stored := range after {
		if old, ok := before[name]; !ok || old != stored {
			names = append(names, name)
			w.expiring.note(name, stored)
		}
	}
	for name := range before {
		if _, ok := after[name]; !ok {
			names = append(names, name)
			w.expiring.note(name, "")
		}
	}
	return names, before, after
}

// bring is tell for an event that the sync has brought, which can have been there before.
func (w *Watch) bring(ctx context.Context, evt *matrix.Event, yield func(Change, error) bool) (left bool, err error) {
	if !w.Layout.Holds(*evt.StateKey) { // it is that of the memory's own fields
		return false, w.CheckFieldsOf(evt)
	}
	if !w.caught {
		if old, err := w.isOld(ctx, evt); old || err != nil {
			return false, err
		}
	}
	w.last = milestoneOf(evt)
	return w.tell(ctx, evt, yield)
}

// tell takes an event in and yields what it changed.
func (w *Watch) tell(ctx context.Context, evt *matrix.Event, yield func(Change, error) bool) (left bool, err error) {
	if w.Account != nil {
		if now := w.Account.Version(); now.Moved { // the event can be what has moved
			w.over = now
		}
	}
	names, before, after := w.add(evt)
	if err := w.CheckFields(after); err != nil {
		return false, err
	}
	return w.yield(ctx, names, before, after, func(string) Change {
		return Change{Event: evt.ID, Sender: evt.Sender, Time: memory.Time(evt.Time)}
	}, yield), nil
}

// tellAccount takes in what account data has now and yields what that changes.
func (w *Watch) tellAccount(ctx context.Context, now fallback.Version, yield func(Change, error) bool) (left bool, err error) {
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
	if err := w.CheckFields(after); err != nil {
		return false, err
	}
	return w.yield(ctx, names, before, after, func(name string) Change {
		change := Change{Sender: w.Client.UserID, Time: time.Now().Truncate(time.Millisecond), InAccount: true}
		if revision, sent, ok := now.RevisionOf(name); ok {
			change.Event, change.Time = revision, time.UnixMilli(sent)
		}
		return change
	}, yield), nil
}

// accountDicts are the dicts of which account data has some name, by state key.
func (w *Watch) accountDicts(contents ...fallback.Version) map[string]*watched {
	dicts := map[string]*watched{}
	for _, content := range contents {
		for name := range content.Over {
			stateKey := w.Layout.StateKey(name)
			if w.dicts[stateKey] == nil {
				w.dicts[stateKey] = &watched{view: &replica.View{}}
			}
			dicts[stateKey] = w.dicts[stateKey]
		}
	}
	return dicts
}

// yield tells changes of names, each of which begins as base says.
func (w *Watch) yield(ctx context.Context, names []string, before, after map[string]string, base func(name string) Change,
	yield func(Change, error) bool) (left bool) {
	var changes []told
	for _, name := range names {
		key, plain := wire.KeyOf(name)
		if plain && (w.Secret != nil || !w.Wanted(key)) || !plain && !wire.IsSealed(name) {
			continue
		}
		t, changed := w.change(ctx, base, name, before, after)
		if !changed {
			continue
		}
		if t.Key == "" && t.err != nil && !plain || w.Wanted(t.Key) {
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

// change is what has changed about one name, with what base has, where anything has. What the old value was matters less than what the new one is, and one
// that was redacted is only left out.
func (w *Watch) change(ctx context.Context, base func(name string) Change, name string, before, after map[string]string) (t told, changed bool) {
	was, is, expired := w.sides(ctx, name, before, after)
	if !was && !is {
		return t, false
	}
	t.Change = base(name)
	from := t.Event
	t.Key, _ = wire.KeyOf(name)
	t.Expired = expired
	if old := before[name]; was {
		read, err := w.Reader().Value(ctx, name, json.RawMessage(old), from)
		if t.Key, t.Old = read.Key, read.JSON; !errors.Is(err, fault.ErrRedacted) || t.Key == "" {
			t.err = err
		}
	}
	if now := after[name]; is {
		read, err := w.Reader().Value(ctx, name, json.RawMessage(now), from)
		t.New, t.err = read.JSON, err
		if read.Key != "" {
			t.Key = read.Key
		}
	}
	return t, true
}
