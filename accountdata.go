package roomkv

import (
	"context"
	"errors"
	"slices"
	"sync"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/memory"
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

// Remove implements [memory.Memory]. In the per-key layout a name that is not there takes no event, but for a doubtful one: what was sent
// under it can be absent from the state for now, and come back from account data.
func (r roomState) Remove(ctx context.Context, names []string, done func(name string)) error {
	o, err := r.away(ctx, true)
	if err != nil {
		return err
	}
	var doubtful []string
	if o == nil && !r.Layout.Atomic() {
		all, err := r.Existing(ctx, names)
		if err != nil {
			return err
		}
		for _, name := range names {
			if r.core.fallback && !slices.Contains(all, name) && r.overlay().mayReturn(name) {
				doubtful = append(doubtful, name)
			}
		}
		names = append(all, doubtful...)
	}
	if len(names) == 0 {
		return nil
	}
	removal := memory.Removal(names)
	removal.Done = done
	removal.Edit = func(names []string) commit.Edit {
		edit := memory.Removal(names).Edit(names)
		doubt := slices.ContainsFunc(names, func(name string) bool { return slices.Contains(doubtful, name) })
		edit.Conditional, edit.Barrier, edit.Afresh = doubt, doubt, doubt
		return edit
	}
	return r.Commit(ctx, removal)
}

// store makes the edit of some names where the memory is written; see [layout].
func (r roomState) store(ctx context.Context, change memory.Change) (err error) {
	names := change.Names
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
			if err := o.commit(ctx, names, change.Edit); !errors.Is(err, errAgain) {
				return err
			}
			continue
		}
		inState := change
		inState.Edit = func(names []string) commit.Edit {
			edit := ofState(change.Edit(names))
			if edit.Conditional && r.core.fallback {
				edit.OnSent = sent.add
				if !r.core.Layout.Atomic() {
					sent.until(r.overlay().account.begin(r.core.Layout.StateKey(names[0]), names[0]))
				}
			}
			return edit
		}
		err = r.InState().Commit(ctx, inState)
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
	if len(events) == 0 || !r.core.Layout.Atomic() && len(names) > 1 {
		return false, nil
	}
	if r.overlay().account.hasTaken(events) {
		return true, nil
	}
	if !r.core.Layout.Atomic() {
		return false, nil
	}
	d := r.Dict(r.core.Layout.StateKey(names[0]))
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

// beforeSend and afterSend see to what is written to the state.
func (c *core) beforeSend(ctx context.Context, r memory.Room) (done func(), err error) {
	return (roomState{Room: r, core: c}).overlay().account.send(isMoving(ctx))
}

func (c *core) afterSend(r memory.Room, stateKey string, sent id.EventID, content []byte) {
	if !r.Layout.Atomic() {
		(roomState{Room: r, core: c}).overlay().account.sent(stateKey, sent, content)
	}
}
