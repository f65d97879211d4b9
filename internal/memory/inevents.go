package memory

import (
	"context"
	"encoding/json"
	"iter"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// How many state events are held in memory where a memory is read part by part, and how long their contents may be in all, in bytes.
const (
	partEvents = 1000
	partSize   = 2 << 20
)

// inEvents is the memory with a state event for each name.
type inEvents struct{ inState }

// All implements [Memory].
func (m inEvents) All(ctx context.Context) ([]Record, error) {
	events, err := m.List(ctx)
	if err != nil {
		return nil, err
	}
	if err := m.CheckFieldsOf(events[m.Layout.StateKey(wire.SealName)]); err != nil {
		return nil, err
	}
	records := make([]Record, 0, len(events))
	for stateKey, evt := range events {
		if m.Layout.Holds(stateKey) {
			records = append(records, RecordsOf(m.ViewOf(evt))...)
		}
	}
	return records, nil
}

// Named implements [Memory].
func (m inEvents) Named(ctx context.Context, names []string) (map[string]Record, error) {
	found := make(map[string]Record, len(names))
	wanted := make(map[string]string, len(names)) // by state key
	for _, name := range names {
		wanted[m.Layout.StateKey(name)] = name
	}
	err := m.ScanAll(ctx, m.Type, func() matrix.Visit {
		clear(found)
		return func(evt *matrix.Event, _ bool) error {
			if name, ok := wanted[*evt.StateKey]; ok {
				if record := RecordOf(m.ViewOf(evt), name); record != nil {
					found[name] = *record
				}
			}
			return nil
		}
	})
	return found, err
}

// Parts implements [Memory].
func (m inEvents) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for after, more := "", true; more; {
			var part Part
			var err error
			part, after, err = m.after(ctx, after, foreign)
			more = part.Left > 0
			if !yield(part, err) || err != nil {
				return
			}
		}
	}
}

// after reads the part after a state key, and gives the last state key of the part.
func (m inEvents) after(ctx context.Context, stateKey string, foreign func(stateKey string) bool) (part Part, last string, err error) {
	var some matrix.Picker
	var fields *matrix.Event
	all := 0
	err = m.ScanAll(ctx, m.Type, func() matrix.Visit {
		some = matrix.Picker{Most: partEvents, Size: partSize, Wants: func(at string) bool {
			return m.Layout.Holds(at) && at > stateKey && !foreign(at)
		}}
		fields, all = nil, 0
		return func(evt *matrix.Event, late bool) error {
			switch {
			case *evt.StateKey == m.Layout.StateKey(wire.SealName):
				fields = evt
			case some.Wants(*evt.StateKey) && !isEmpty(evt):
				all++
				return some.Add(evt, late)
			}
			return nil
		}
	})
	if err == nil {
		err = m.CheckFieldsOf(fields)
	}
	if err != nil {
		return Part{}, "", err
	}
	events, more := some.Take()
	for _, at := range slices.Sorted(maps.Keys(events)) {
		part.Records = append(part.Records, RecordsOf(m.ViewOf(events[at]))...)
	}
	if more {
		part.Left = all - len(events)
	}
	return part, some.Last, nil
}

// isEmpty tells whether the event holds nothing, as one whose key was deleted.
func isEmpty(evt *matrix.Event) bool {
	dict, err := wire.ParsePerKey(*evt.StateKey, evt.Content)
	return err == nil && len(dict.Names) == 0
}

// Remove implements [Memory]. Each name that is there takes an event, so those that are not there are left out.
func (m inEvents) Remove(ctx context.Context, names []string, done func(name string)) error {
	names, err := m.Existing(ctx, names)
	if err != nil || len(names) == 0 {
		return err
	}
	return m.Commit(ctx, Removal(names, done))
}

// Removal is the change that removes the names. Done is as in [Change].
func Removal(names []string, done func(name string)) Change {
	return Change{Names: names, Done: done, Edit: func(names []string) commit.Edit {
		changes := make(map[string]json.RawMessage, len(names))
		for _, name := range names {
			changes[name] = nil
		}
		return commit.Edit{Overwrites: true, Sweeps: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) { return changes, nil }}
	}}
}

// Existing are those of the names that are there. Several are read in one listing; what that does not show is asked for
// by itself, for another client can have written it only just now.
func (r Room) Existing(ctx context.Context, names []string) ([]string, error) {
	var events map[string]*matrix.Event
	if len(names) > 1 {
		var err error
		if events, err = r.List(ctx); err != nil {
			return nil, err
		}
	}
	var there []string
	for _, name := range names {
		stateKey := r.Layout.StateKey(name)
		evt := events[stateKey]
		if evt == nil || RecordOf(r.ViewOf(evt), name) == nil {
			var err error
			if evt, err = r.Get(ctx, stateKey); err != nil {
				return nil, err
			}
		}
		if evt != nil && RecordOf(r.ViewOf(evt), name) != nil || r.knows(stateKey, name) {
			there = append(there, name)
		}
	}
	return there, nil
}

// knows tells whether this process knows of something under the name, which a rival can hide in the state.
func (r Room) knows(stateKey, name string) (known bool) {
	if d := r.Replica(stateKey); d != nil {
		d.Look(func(h *merge.History) {
			known = slices.ContainsFunc(h.Heads(), func(head *merge.Event) bool { return head.Dict[name] != "" })
		})
	}
	return known
}
