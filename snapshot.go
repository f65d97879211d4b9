package roomkv

import (
	"context"
	"errors"
	"iter"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/past"
)

// Moment is a point in a memory's past, for [Store.At].
type Moment struct {
	revision id.EventID
	time     time.Time
	timed    bool
}

// AtRevision is the moment at which the event of a revision was current, that of an [Entry] or a [Change]: with all that the homeserver lists up to that event,
// and what the event changed itself.
func AtRevision(revision Revision) Moment { return Moment{revision: id.EventID(revision)} }

// AtTime is a moment by the clocks of the homeservers that sent the events, to the millisecond. Where these are not set alike, it is as inexact as they
// are: with all that the homeserver lists of a state key's events, up to the last that is no later than the time.
func AtTime(t time.Time) Moment { return Moment{time: t, timed: true} }

// Snapshot is the whole memory of a room as it was at one moment. It has what was stored then; the values are read when they are
// asked for, and encrypted ones decrypted then, so that one whose event is redacted in between is lost. Methods are safe for
// concurrent use.
type Snapshot struct {
	past  *past.Snapshot
	store *Store // that it is of
}

// At returns the memory of the store's room as it was at the moment. Writes at the same time are merged as they were, or would have been. What was in account
// data then is not in it; see [WithAccountDataFallback]. What was there before the user might see the room's history cannot be read: in the per-key layout
// Dendrite leaves no sign of it, and a key of that time seems to have been made later.
//
// Errors: [ErrNotFound] for a revision that is not one of this store's memory; [ErrTooOld] where the homeserver does not list what there was at that
// moment, because it has purged it, or the room's settings hide it; [ErrRedacted] where the event that was current then was redacted; [ErrCorrupt];
// [ErrWrongSecret].
func (s *Store) At(ctx context.Context, moment Moment) (snapshot *Snapshot, err error) {
	ctx, op := s.begin(ctx, "At")
	defer op.end(&err)
	h, err := s.handle(ctx)
	if err != nil {
		return nil, err
	}
	if moment == (Moment{}) {
		return nil, fault.Of(ErrNotFound, nil, "no revision was given")
	}
	if err := h.EnsureFields(ctx, false); err != nil {
		return nil, err
	}
	found, err := past.At(ctx, h.Room, past.Moment{Revision: moment.revision, Time: moment.time})
	if err != nil {
		return nil, err
	}
	return &Snapshot{found, s}, nil
}

// Get decodes the value that key had into dest, as [Store.Get] does.
//
// Errors: those of [Store.Get], and [ErrRedacted].
func (s *Snapshot) Get(ctx context.Context, key string, dest any) (err error) {
	ctx, op := s.store.begin(ctx, "Snapshot.Get", key)
	defer op.end(&err)
	entry, err := s.entry(ctx, key)
	if err != nil {
		return err
	}
	return entry.Decode(dest)
}

// Entry returns the value that key had, with the revision that was current, its sender and time; see [Store.Entry]. A value that
// this process has not read before takes a request where it is encrypted.
//
// Errors: those of [Store.Entry], and [ErrRedacted].
func (s *Snapshot) Entry(ctx context.Context, key string) (entry Entry, err error) {
	ctx, op := s.store.begin(ctx, "Snapshot.Entry", key)
	defer op.end(&err)
	return s.entry(ctx, key)
}

func (s *Snapshot) entry(ctx context.Context, key string) (Entry, error) {
	full := s.store.prefix.of(key)
	found := s.past.Find(full)
	if found == nil {
		return Entry{}, memory.NotFound(full, s.past.ID)
	}
	entry, err := s.past.Reader().Entry(ctx, found)
	entry.Key = key
	return entryOf(entry), err
}

// Keys returns the keys that there were, sorted; see [Store.Keys].
func (s *Snapshot) Keys(ctx context.Context) (keys []string, err error) {
	ctx, op := s.store.begin(ctx, "Snapshot.Keys")
	defer op.end(&err)
	keys, err = s.past.Keys(ctx, s.store.prefix.listed(memory.Listing{}))
	return s.store.prefix.relative(keys), err
}

// All returns every entry that there was, in the order of the keys; see [Store.All], whose errors it has, and [ErrRedacted].
func (s *Snapshot) All(ctx context.Context) iter.Seq2[Entry, error] {
	return func(yield func(Entry, error) bool) {
		ctx, op := s.store.begin(ctx, "Snapshot.All")
		defer op.end(nil)
		yield = noting(op, yield)
		reader := s.past.Reader().Together()
		for _, found := range s.past.All(ctx, s.store.prefix.listed(memory.Listing{})) {
			entry, err := reader.Entry(ctx, &found)
			entry.Key = s.store.prefix.off(entry.Key)
			if !yield(entryOf(entry), err) {
				return
			}
		}
	}
}

// Restore makes the memory what it was in a snapshot of it: keys that the snapshot lacks are removed, all others get the value
// that they had. It returns how many keys it has changed.
//
// In the single-state-key layout that is one state event, in one commit with which no other write is lost: what others write
// before it is replaced, what they write after it stays. In the per-key layout it is an event for each key that differs, with [WithShards] one for each
// state event that does, one after the other; on an error those before it are done, and it can be called again.
//
// Values that are encrypted are not encrypted again: the state refers to the old events, also where the client cannot decrypt
// them. Those that stood in the clear are encrypted where the room is by now, as [Store.Put] would. A value whose event was
// redacted cannot come back, nor one that is larger than may be encrypted: its key stays as it is, and the error, beside the
// number of keys that were changed, is [ErrRedacted] or [ErrTooLarge], that of the first of them.
//
// A snapshot has nothing of account data, and account data has no history: what Restore would change there could never come back.
// So it changes nothing while the memory is written there, and fails; see [WithAccountDataFallback].
//
// Errors: [ErrInvalidOption] for a snapshot of another room or memory, for which there is [Copy]; [ErrForbidden] where the client
// may not write the state, with WithAccountDataFallback too; [ErrRedacted]; [ErrTooLarge], in the single-state-key layout also
// where the references to all values do not fit; [ErrNoCrypto]; [ErrCorrupt]; [ErrWrongSecret].
func (s *Store) Restore(ctx context.Context, snapshot *Snapshot) (changed int, err error) {
	ctx, op := s.begin(ctx, "Restore")
	defer op.end(&err)
	err = s.core.upgrades.Retry(func() error {
		home, err := s.home(ctx)
		switch {
		case err != nil:
			return err
		case snapshot == nil:
			return fault.Of(ErrInvalidOption, nil, "the snapshot is nil")
		case !snapshot.past.Of(home.Room):
			return fault.Of(ErrInvalidOption, errors.New("another memory"), "the snapshot is of another memory than this one in %s; Copy takes values from one to another", home.ID)
		case !strings.HasPrefix(string(s.prefix), string(snapshot.store.prefix)):
			return fault.Of(ErrInvalidOption, nil, "the snapshot has keys with another prefix than the store")
		}
		if s.core.fallback {
			m := s.core.accounts.Memory(home.Room)
			if away, err := m.Away(ctx); err != nil {
				return err
			} else if away {
				return m.NotInState(ctx, "restore a snapshot, which has nothing of account data,")
			}
		}
		to := memory.Handle{Room: home.Room, Memory: home.Guard(home.InState())} // also where the homeserver tells only now that the power is gone
		changed, err = past.Restore(ctx, to, snapshot.past, s.prefix.listed(memory.Listing{}))
		return err
	})
	return changed, err
}
