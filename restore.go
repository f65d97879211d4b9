package roomkv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Restore makes the memory what it was in a snapshot of it: keys that the snapshot lacks are removed, all others get the value
// that they had. It returns how many keys it has changed.
//
// In the single-state-key layout that is one state event, in one commit with which no other write is lost: what others write
// before it is replaced, what they write after it stays. In the per-key layout it is an event for each key that differs,
// one after the other; on an error those before it are done, and it can be called again.
//
// Values that are encrypted are not encrypted again: the state refers to the old events, also where the client cannot decrypt
// them. Those that stood in the clear are encrypted where the room is by now, as [Store.Put] would. A value whose event was
// redacted cannot come back, nor one that is larger than may be encrypted: its key stays as it is, and the error, beside the
// number of keys that were changed, is [ErrRedacted] or [ErrTooLarge], that of the first of them.
//
// It takes the requests of [Store.Put] in the single-state-key layout, in the per-key layout those of [Store.Keys] and one for each
// key that differs; and one for each encrypted event that the state is to refer to again.
//
// A snapshot has nothing of account data, and account data has no history: what Restore would change there could never come back.
// So it changes nothing while the memory is written there, and fails; see [WithAccountDataFallback].
//
// Errors: [ErrInvalidOption] for a snapshot of another room or memory, for which there is [Copy]; [ErrForbidden] where the client
// may not write the state, with WithAccountDataFallback too; [ErrRedacted]; [ErrTooLarge], in the single-state-key layout also
// where the references to all values do not fit; [ErrNoCrypto]; [ErrCorrupt]; [ErrWrongSecret].
func (s *Store) Restore(ctx context.Context, snapshot *Snapshot) (changed int, err error) {
	err = s.write(ctx, nil, func(state roomState) (err error) {
		if err := snapshot.of(state); err != nil {
			return err
		}
		changed, err = state.restore(ctx, snapshot)
		return err
	})
	return changed, err
}

func (r roomState) restore(ctx context.Context, snapshot *Snapshot) (changed int, err error) {
	if o, err := r.away(ctx, true); err != nil {
		return 0, err
	} else if o != nil {
		return 0, r.notInState(ctx, "restore a snapshot, which has nothing of account data,")
	}
	r.stateOnly = true // also where the homeserver tells only now that the power is gone
	records, err := r.All(ctx)
	if err != nil {
		return 0, err
	}
	current := map[string]string{} // by name
	for _, found := range records {
		if found.Err == nil {
			current[found.Name] = string(found.Stored)
		}
	}
	was, err := r.restorable(ctx, snapshot, r.visible(current))
	if err != nil {
		return 0, err
	}
	if !r.core.Layout.Atomic() {
		names := slices.Sorted(maps.Keys(was.apply(r.visible(current))))
		batch := seal.NewBatch(r.AskedSealer, was.inClear(names))
		for _, name := range names {
			err := r.Commit(ctx, memory.Change{Names: []string{name}, Edit: func([]string) commit.Edit {
				return commit.Edit{Values: was.clear, Anew: true, Sealer: batch.Sealer, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
					return map[string]json.RawMessage{name: was.stored[name]}, nil
				}}
			}})
			if err != nil {
				return changed, err
			}
			changed++
		}
		return changed, was.left
	}
	err = r.Commit(ctx, memory.Change{Edit: func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Values: was.clear, Anew: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changes := was.apply(r.visible(base.Names()))
			changed = len(changes)
			return changes, nil
		}}
	}})
	if err != nil {
		return 0, err
	}
	return changed, was.left
}

// restoration is what a snapshot's values are to be stored as.
type restoration struct {
	was    map[string]string          // what was stored, by name
	stored map[string]json.RawMessage // what is to be stored, by name
	clear  map[string]string          // by name: the keys of values that stood in the clear, for the commit to encrypt
	lost   map[string]bool            // names whose values cannot come back
	broken map[string]memory.Record   // by state key: what cannot come back, under whatever name
	layout memory.Layout
	left   error // why
}

// restorable finds out which values of the snapshot are still there, and which may be encrypted where they must be. What is
// current need not be asked for.
func (r roomState) restorable(ctx context.Context, snapshot *Snapshot, current map[string]string) (*restoration, error) {
	res := &restoration{was: map[string]string{}, stored: map[string]json.RawMessage{}, clear: map[string]string{},
		lost: map[string]bool{}, broken: snapshot.broken, layout: r.core.Layout}
	for _, stateKey := range slices.Sorted(maps.Keys(snapshot.broken)) {
		res.left = cmp.Or(res.left, snapshot.broken[stateKey].Err)
	}
	sealing, err := r.Sealer(ctx, false)
	if err != nil {
		return nil, err
	}
	gone := map[string]error{}                                        // by reference
	for _, name := range slices.Sorted(maps.Keys(snapshot.records)) { // so that the error is the same every time
		found := snapshot.records[name]
		stored := string(found.Stored)
		res.was[name], res.stored[name] = stored, found.Stored
		read, err := wire.Decode(found.Stored)
		key, _ := wire.KeyOf(name)
		if err == nil && read.Event == "" && read.Fields == nil {
			res.clear[name] = key // also where that is current, for it can be another by the time of the commit
		}
		switch {
		case current[name] == stored:
		case err != nil, read.Fields != nil: // a bad value is restored as bad as it was, and one of opsdroid's as it stored it
		case read.Event != "":
			if _, asked := gone[stored]; !asked {
				_, err := r.Reader().Event(ctx, read.Event)
				if err != nil && ctx.Err() != nil {
					return nil, err
				}
				gone[stored] = err
			}
			if errors.Is(gone[stored], ErrRedacted) {
				res.lost[name], res.left = true, cmp.Or(res.left, gone[stored])
			}
		case sealing != nil:
			kept, err := r.Keep(ctx, name, key, found.Stored)
			if err == nil {
				err = sealing.Check(commit.Value{Name: name, Key: key, Stored: wire.Canonical(kept)})
			}
			switch {
			case errors.Is(err, ErrTooLarge):
				res.lost[name], res.left = true, cmp.Or(res.left, err)
			case err != nil:
				return nil, err
			}
			res.stored[name] = kept
		}
	}
	return res, nil
}

// inClear are those of the values under the names that stood in the clear.
func (r *restoration) inClear(names []string) (values []commit.Value) {
	for _, name := range names {
		if key, ok := r.clear[name]; ok {
			values = append(values, commit.Value{Name: name, Key: key, Stored: wire.Canonical(r.stored[name])})
		}
	}
	return values
}

// apply gives what changes where that is what is there now.
func (r *restoration) apply(now map[string]string) map[string]json.RawMessage {
	changes := map[string]json.RawMessage{}
	stays := func(name string) bool {
		_, broken := r.broken[r.layout.StateKey(name)]
		return broken || r.lost[name]
	}
	for name, was := range r.was {
		if is, there := now[name]; !stays(name) && (!there || is != was) {
			changes[name] = r.stored[name]
		}
	}
	for name := range now {
		if _, there := r.was[name]; !there && !stays(name) {
			changes[name] = nil
		}
	}
	return changes
}
