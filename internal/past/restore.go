package past

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Restore makes the keys of a listing what they were in the snapshot. It gives how many keys it has changed; the error is that of the first value that could
// not be brought back.
func Restore(ctx context.Context, h memory.Handle, snapshot *Snapshot, list memory.Listing) (changed int, err error) {
	records, err := h.All(ctx)
	if err != nil {
		return 0, err
	}
	current := map[string]string{} // by name
	for _, found := range records {
		if found.Err == nil {
			current[found.Name] = string(found.Stored)
		}
	}
	now := h.VisibleNames(current)
	was, err := restorable(ctx, h.Room, snapshot, now, holds(ctx, h.Room, list))
	if err == nil {
		err = was.spare(ctx, h.Room, now)
	}
	if err != nil {
		return 0, err
	}
	changes := slices.Sorted(maps.Keys(was.apply(was.names(), now)))
	byEvent, of := memory.ByEvent(h.Layout, changes), memory.ByEvent(h.Layout, was.names())
	batch := seal.NewBatch(h.AskedSealer, was.inClear(changes))
	for _, stateKey := range slices.Sorted(maps.Keys(byEvent)) {
		edit, n := was.replace(byEvent[stateKey][0]), 1
		if !h.Layout.Alone() {
			edit = was.edit(ctx, h.Room, of[stateKey], now, &n)
		}
		if !h.Layout.Together("") {
			edit.Sealer = batch.Sealer
		}
		if err := h.Commit(ctx, memory.Change{Names: byEvent[stateKey], Edit: func([]string) commit.Edit { return edit }}); err != nil {
			return changed, err
		}
		changed += n
	}
	return changed, was.left
}

// restoration is what a snapshot's values are to be stored as.
type restoration struct {
	was    map[string]string          // what was stored, by name
	stored map[string]json.RawMessage // what is to be stored, by name
	clear  map[string]string          // by name: the keys of values that stood in the clear, for the commit to encrypt
	lost   map[string]bool            // names whose values cannot come back
	agreed map[string]bool            // names under which a record of a lease or of Once is, which stays; see [wire.IsAgreed]
	broken map[string]memory.Record   // by state key: what cannot come back, under whatever name
	layout memory.Layout
	left   error // why

	holds func(name, stored string) bool // whether the name is of the keys that are restored
}

// holds tells which names stand for keys of a listing. A name whose key cannot be read does not. Each sealed key is read once.
func holds(ctx context.Context, r memory.Room, list memory.Listing) func(name, stored string) bool {
	if list == (memory.Listing{}) {
		return func(string, string) bool { return true }
	}
	reader := r.Reader().Together().KeysOnly()
	known := map[string]bool{}
	return func(name, stored string) bool {
		if key, plain := wire.KeyOf(name); plain {
			return list.Holds(key)
		}
		held, ok := known[name]
		if !ok {
			value, err := reader.Value(ctx, name, json.RawMessage(stored), "")
			held = (err == nil || value.Key != "") && list.Holds(value.Key)
			known[name] = held
		}
		return held
	}
}

// restorable finds out which values of the snapshot are still there, and which may be encrypted where they must be. What is
// current need not be asked for.
func restorable(ctx context.Context, r memory.Room, snapshot *Snapshot, current map[string]string, holds func(name, stored string) bool) (*restoration, error) {
	res := &restoration{was: map[string]string{}, stored: map[string]json.RawMessage{}, clear: map[string]string{},
		lost: map[string]bool{}, agreed: map[string]bool{}, broken: snapshot.Broken, layout: r.Layout, holds: holds}
	for _, stateKey := range slices.Sorted(maps.Keys(snapshot.Broken)) {
		res.left = cmp.Or(res.left, snapshot.Broken[stateKey].Err)
	}
	sealing, err := r.Sealer(ctx, false)
	if err != nil {
		return nil, err
	}
	gone := map[string]error{}                                        // by reference
	for _, name := range slices.Sorted(maps.Keys(snapshot.Records)) { // so that the error is the same every time
		found := snapshot.Records[name]
		stored := string(found.Stored)
		if !holds(name, stored) {
			continue
		}
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
			if errors.Is(gone[stored], fault.ErrRedacted) {
				res.lost[name], res.left = true, cmp.Or(res.left, gone[stored])
			}
		case sealing != nil:
			kept, err := r.Keep(ctx, name, key, found.Stored)
			if err == nil {
				err = sealing.Check(commit.ValueOf(name, key, wire.Canonical(kept)))
			}
			switch {
			case errors.Is(err, fault.ErrTooLarge):
				res.lost[name], res.left = true, cmp.Or(res.left, err)
			case err != nil:
				return nil, err
			}
			res.stored[name] = kept
		}
	}
	return res, nil
}

// spare finds the records of leases and of Once in what is there now and would change.
func (r *restoration) spare(ctx context.Context, room memory.Room, now map[string]string) error {
	reader := room.Reader().Together().KeysOnly() // no record is in the media repository
	for name := range r.apply(r.names(), now) {
		is, there := now[name]
		if !there {
			continue
		}
		value, err := reader.Value(ctx, name, json.RawMessage(is), "")
		if err != nil && ctx.Err() != nil {
			return err
		}
		r.agreed[name] = err == nil && wire.IsAgreed(value.JSON)
	}
	return nil
}

// inClear are those of the values under the names that stood in the clear.
func (r *restoration) inClear(names []string) (values []commit.Value) {
	for _, name := range names {
		if key, ok := r.clear[name]; ok {
			values = append(values, commit.ValueOf(name, key, wire.Canonical(r.stored[name])))
		}
	}
	return values
}

// replace replaces the event that has one name.
func (r *restoration) replace(name string) commit.Edit {
	return commit.Edit{Values: r.clear, Anew: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
		return map[string]json.RawMessage{name: r.stored[name]}, nil
	}}
}

// edit changes what differs by then in one event, of which the snapshot has these names, and tells how many names it changes. Before is what was there when
// records were looked for: they are looked for in what has been written since, too.
func (r *restoration) edit(ctx context.Context, room memory.Room, names []string, before map[string]string, changed *int) commit.Edit {
	return commit.Edit{Conditional: true, Values: r.clear, Anew: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
		now := room.VisibleNames(base.Names())
		changes := r.apply(names, now)
		maps.DeleteFunc(changes, func(name string, _ json.RawMessage) bool {
			if is, there := now[name]; !there || is == before[name] {
				return false
			}
			old, err := room.OldIn(ctx, base, name)
			return err == nil && wire.IsAgreed(old.Value)
		})
		*changed = len(changes)
		return changes, nil
	}}
}

// names are those that the snapshot has.
func (r *restoration) names() []string { return slices.Collect(maps.Keys(r.was)) }

// apply gives what changes where that is what is there now. Names are those of the snapshot that can be there.
func (r *restoration) apply(names []string, now map[string]string) map[string]json.RawMessage {
	changes := map[string]json.RawMessage{}
	stays := func(name string) bool {
		_, broken := r.broken[r.layout.StateKey(name)]
		return broken || r.lost[name] || r.agreed[name]
	}
	for _, name := range names {
		if is, there := now[name]; !stays(name) && (!there || is != r.was[name]) {
			changes[name] = r.stored[name]
		}
	}
	for name, is := range now {
		if _, there := r.was[name]; !there && !stays(name) && r.holds(name, is) {
			changes[name] = nil
		}
	}
	return changes
}
