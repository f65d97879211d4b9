package roomkv

import (
	"context"
	"errors"
	"slices"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
)

// Place is where a value is stored.
type Place int

const (
	InState       Place = iota // in the room's state, for all its members
	InAccountData              // in the client's account data for the room; see [WithAccountDataFallback]
)

// String says it in words.
func (p Place) String() string {
	if p == InAccountData {
		return "account data"
	}
	return "state"
}

// WithAccountDataFallback keeps what the client may not write into a room's state in the account data that its user has for the
// room, under the store's event type, followed by a dot and the state key where the dict has one. That takes no power, so that
// a bot has a memory in every room that it has joined; see [Store.InEventRoom]. [Entry] tells where each value is. Without the
// option such a write is [ErrForbidden].
//
// Account data lies over the state: what is there hides what the state has under the same key, also where the key was deleted.
// Where somebody changes that in the state afterwards, the state's counts, as the later change. When the client has got the
// power, the memory moves into the state, with the next write or when a sync that the store follows tells of it. When it has lost
// the power, reads go on and writes go to account data again. What was acknowledged is kept all the way, also what the homeserver
// drops because it was sent at the moment when the power was taken away; with [WithPerKeyState] that takes a store that follows,
// or another write of the same process within 10 seconds, before the power is back. So [WithSingleWriter] changes nothing beside this
// option. Where another user changes a key at the same time as the client, with [WithPerKeyState], and the client's power goes before
// it has merged the two, the other's change is in account data too, and out of that user's sight until the power is back. What that user
// writes to the key meanwhile replaces all that account data has of it. A memory that is too large for the state stays where it is,
// and the log says so.
//
// Account data is private: only the user's own clients and the homeserver can read it. In an encrypted room the values are in
// Megolm events all the same, which take no power to send, and account data has the references. It has no history, and
// nothing merges what two processes write there: the later one undoes the other. So only one process of the account may
// write in such rooms, which is not checked. In that process any number of goroutines and stores may, which share requests, and
// what is said of [Update], [Store.Create] and [Store.CompareAndPut] holds among them. In both layouts it is one dict of
// 64 KiB for each room, from which large values are moved out; see [WithMaxValue].
//
// The first use of a room takes two more requests, for the account data and the power levels. While the memory is in account
// data a read takes the requests that it takes otherwise, in the per-key layout also while following. A write takes one, and before
// it one that reads the state, in the per-key layout one for each key, up to 8. Whether there is power by now is asked
// at most every 10 seconds, for a write. What a process knows of its account data it asks for again only where a sync that the
// store follows brings something else. A write 10 seconds after the move empties the account data. With [WithPerKeyState] a
// [Store.Delete] of a key that the state lacks makes an event all the same where account data still has the key, or where this process
// wrote it within 10 seconds.
//
// [Store.History], [Store.At] and what [Store.Purge] redacts know the state alone. So [Store.Restore] is [ErrForbidden] while
// writes go to account data, where it would remove what no snapshot has. Once the memory has moved, it removes that too, and a
// snapshot from after the move brings it back. [Store.Watch] tells what this process changes in account data too, but cannot begin
// at the revision of such a change, and [Store.CompareAndPut] cannot compare with one once the memory has moved. [Copy] and
// [Store.Import] read and write both, and ask for account data anew whenever they compare; [CopyRedactSource] redacts nothing
// while account data has something. [WithRedaction] redacts what account data no longer refers to. [WithRoomUpgrades] does not
// follow a room with memory in account data, nor to a room where the client lacks the power to write the state that it should
// move: writes are [ErrRoomUpgraded], and reads go on in the old room.
func WithAccountDataFallback() Option {
	return func(s *settings) { s.fallback = true }
}

// errAgain ends an edit that must begin again, because the memory goes to another place or the state beneath account data has changed.
var errAgain = commit.ErrAgain

// away is nil where the room's memory is in the state and nowhere else, for a write where that goes there.
func (r roomState) away(ctx context.Context, writing bool) (*overlay, error) {
	if !r.core.fallback {
		return nil, nil
	}
	o := r.overlay()
	if away, err := o.away(ctx, writing); err != nil || !away {
		return nil, err
	}
	return o, nil
}

// find is what is there under the name, or nil; see [roomState.findInState].
func (r roomState) find(ctx context.Context, name string, afresh bool) (*record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.find(ctx, name)
	}
	return r.findInState(ctx, name, afresh)
}

// readAll gives a record for every name, and one with an error for each event whose name cannot be told.
func (r roomState) readAll(ctx context.Context) ([]record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.readAll(ctx)
	}
	return r.core.layout.readAll(ctx, r)
}

// toDelete are those of the names that must be deleted. In the per-key layout of the state each takes an event, and so those that
// are not there are left out, but for the doubtful ones: what was sent under them can be absent from the state for now, and come back
// from account data.
func (r roomState) toDelete(ctx context.Context, names []string) (all, doubtful []string, err error) {
	if o, err := r.away(ctx, true); err != nil || o != nil || !r.core.layout.oneKey() {
		return names, nil, err
	}
	all, err = r.existing(ctx, names)
	if err != nil || !r.core.fallback {
		return all, nil, err
	}
	for _, name := range names {
		if !slices.Contains(all, name) && r.overlay().mayReturn(name) {
			doubtful = append(doubtful, name)
		}
	}
	return append(all, doubtful...), doubtful, nil
}

// store makes the edit of some names where the memory is written; see [layout].
func (r roomState) store(ctx context.Context, names []string, edit func(names []string) commit.Edit) (err error) {
	var sent attempts
	defer func() { sent.end(err) }()
	for {
		o, err := r.away(ctx, true)
		if err != nil {
			return err
		}
		if counts, err := r.counts(ctx, names, sent.all()); counts || err != nil {
			return err
		}
		if o != nil {
			if r.stateOnly {
				return r.notInState(ctx, "write what has just begun to go to account data")
			}
			if err := o.commit(ctx, names, edit); !errors.Is(err, errAgain) {
				return err
			}
			continue
		}
		err = r.core.layout.commit(ctx, r, names, func(names []string) commit.Edit {
			edit := ofState(edit(names))
			if edit.Conditional && r.core.fallback {
				edit.OnSent = sent.add
				if r.core.layout.oneKey() {
					sent.until(r.overlay().account.begin(r.core.layout.stateKey(names[0]), names[0]))
				}
			}
			return edit
		})
		if errors.Is(err, errAgain) {
			continue
		}
		if !r.core.fallback || r.stateOnly || !errors.Is(err, ErrForbidden) || !errors.Is(err, errRefused) {
			return err
		}
		// Also where the power has come back meanwhile: what was sent as it went may have to be rescued.
		if err := r.overlay().fall(ctx); err != nil {
			return err
		}
	}
}

// attempts are what was sent for a write. Methods are safe for concurrent use.
type attempts struct {
	mu     sync.Mutex
	events []id.EventID
	done   []func(error)
}

func (a *attempts) add(event id.EventID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.events = append(a.events, event)
}

func (a *attempts) all() []id.EventID {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Clone(a.events)
}

// until has done called when the write has ended.
func (a *attempts) until(done func(error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.done = append(a.done, done)
}

func (a *attempts) end(err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, done := range a.done {
		done(err)
	}
}

// counts tells whether one of the events, which were sent with an edit of the names and then refused to be merged, counts all the same:
// an edit must not be made twice.
func (r roomState) counts(ctx context.Context, names []string, events []id.EventID) (bool, error) {
	if len(events) == 0 || r.core.layout.oneKey() && len(names) > 1 {
		return false, nil
	}
	if r.overlay().account.hasTaken(events) {
		return true, nil
	}
	if r.core.layout.oneKey() {
		return false, nil
	}
	d := r.dict(r.core.layout.stateKey(names[0]))
	if err := d.Read(ctx, true); err != nil {
		return false, err
	}
	counts := true
	d.Look(func(h *merge.History) {
		for _, name := range names {
			line := h.Line(name)
			counts = counts && slices.ContainsFunc(events, func(event id.EventID) bool { return h.Has(event) && h.Counts(event, name, line) })
		}
	})
	return counts, nil
}

// ofState makes an edit of the state not look for an event that is none.
func ofState(edit commit.Edit) commit.Edit {
	if isAccount(edit.Since) {
		edit.Since = ""
	}
	return edit
}
