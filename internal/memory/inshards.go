package memory

import (
	"context"
	"iter"
	"maps"
	"slices"
	"sync"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// inShards is the memory in several state events with several names each.
type inShards struct {
	inState
	layout Shards
}

// All implements [Memory].
func (m inShards) All(ctx context.Context) (records []Record, err error) {
	events := map[string]*matrix.Event{}
	told := m.allTold()
	if !told {
		if events, err = m.List(ctx); err == nil {
			err = m.CheckFieldsOf(events[wire.ShardsName])
		}
	} else if view := m.Dict(wire.ShardsName).View(); view != nil {
		err = m.CheckFields(view.Names)
	}
	if err != nil {
		return nil, err
	}
	for stateKey := range m.layout.keys() {
		evt := events[stateKey]
		var view *replica.View
		switch {
		case told, evt == nil && m.hasKnown(stateKey):
			view, err = m.View(ctx, stateKey, maps.Equal[map[string]string])
		case evt != nil:
			view, err = m.ViewWith(ctx, evt)
		default:
			continue
		}
		if err != nil {
			return nil, err
		}
		records = append(records, RecordsOf(view)...)
	}
	return records, nil
}

// allTold tells whether all there is is known, and the sync tells of changes.
func (m inShards) allTold() bool {
	if !m.Follower.Live(m.ID) {
		return false
	}
	for stateKey := range m.layout.keys() {
		if !m.told(stateKey) {
			return false
		}
	}
	return true
}

// Named implements [Memory].
func (m inShards) Named(ctx context.Context, names []string) (map[string]Record, error) {
	wanted := ByEvent(m.Layout, names)
	found := make(map[string]Record, len(names))
	add := func(view *replica.View, names []string) {
		for _, name := range names {
			if record := RecordOf(view, name); record != nil {
				found[name] = *record
			}
		}
	}
	listed := map[string]bool{}          // by state key
	beside := map[string]*matrix.Event{} // by state key: those beside which this process knows of others
	err := m.ScanAll(ctx, m.Type, func() matrix.Visit {
		clear(found)
		clear(listed)
		clear(beside)
		return func(evt *matrix.Event, _ bool) error {
			listed[*evt.StateKey] = true
			switch stateKey := *evt.StateKey; {
			case wanted[stateKey] == nil:
			case m.knowsOthers(evt):
				beside[stateKey] = evt
			default:
				add(m.ViewOf(evt), wanted[stateKey])
			}
			return nil
		}
	})
	if err != nil {
		return nil, err
	}
	for stateKey := range wanted {
		if !listed[stateKey] && m.hasKnown(stateKey) {
			view, err := m.Afresh(ctx, stateKey)
			if err != nil {
				return nil, err
			}
			add(view, wanted[stateKey])
		}
	}
	for stateKey, evt := range beside {
		view, err := m.ViewWith(ctx, evt)
		if err != nil {
			return nil, err
		}
		add(view, wanted[stateKey])
	}
	return found, nil
}

// hasKnown tells whether this process knows of an event under the state key. Where a listing has none the homeserver can have left it out of the state.
func (m inShards) hasKnown(stateKey string) bool {
	d := m.Replica(stateKey)
	return d != nil && d.Knows()
}

// knowsOthers tells whether this process knows of events that the one does not stand for.
func (m inShards) knowsOthers(evt *matrix.Event) (others bool) {
	if d := m.Replica(*evt.StateKey); d != nil {
		d.Look(func(h *merge.History) {
			others = slices.ContainsFunc(h.Heads(), func(head *merge.Event) bool { return head.ID != evt.ID })
		})
	}
	return others
}

// Parts implements [Memory]. What writers who have died left unmerged is looked for in each event.
func (m inShards) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		var fields *matrix.Event
		current := map[string]head{} // by state key
		err := m.ScanAll(ctx, m.Type, func() matrix.Visit {
			fields = nil
			clear(current)
			return func(evt *matrix.Event, _ bool) error {
				switch stateKey := *evt.StateKey; {
				case stateKey == wire.ShardsName:
					fields = evt
				case m.Layout.Holds(stateKey) && !foreign(stateKey):
					current[stateKey] = head{evt.ID, evt.Time, len(RecordsOf(m.ViewOf(evt)))}
				}
				return nil
			}
		})
		for stateKey := range m.layout.keys() {
			if _, listed := current[stateKey]; !listed && m.hasKnown(stateKey) && !foreign(stateKey) {
				current[stateKey] = head{}
			}
		}
		if err == nil {
			err = m.CheckFieldsOf(fields)
		}
		var merged map[string]*merge.Event
		if err == nil && len(current) > 0 {
			merged, err = m.merged(ctx, current)
		}
		if err != nil {
			yield(Part{}, err)
			return
		}
		var part Part
		for _, at := range current {
			part.Left += at.names
		}
		size := 0
		for some := range slices.Chunk(slices.Sorted(maps.Keys(current)), Parallel) {
			views, err := m.allAfresh(ctx, some, merged)
			if err != nil {
				yield(Part{}, err)
				return
			}
			for i, view := range views {
				part.Left -= current[some[i]].names
				for _, record := range RecordsOf(view) {
					part.Records = append(part.Records, record)
					size += len(record.Stored)
				}
			}
			if size > partSize && part.Left > 0 {
				if !yield(part, nil) {
					return
				}
				part.Records, size = nil, 0
			}
		}
		part.Left = 0
		yield(part, nil)
	}
}

// allAfresh is Afresh for several dicts at a time, but for those whose current event is given. What nobody has asked for otherwise is not kept.
func (m inShards) allAfresh(ctx context.Context, stateKeys []string, current map[string]*merge.Event) ([]*replica.View, error) {
	views, errs := make([]*replica.View, len(stateKeys)), make([]error, len(stateKeys))
	var readers sync.WaitGroup
	for i, stateKey := range stateKeys {
		if at := current[stateKey]; at != nil {
			views[i], errs[i] = m.viewWith(ctx, stateKey, at)
			continue
		}
		known := m.Replica(stateKey) != nil || m.Follower.Started()
		readers.Go(func() {
			if views[i], errs[i] = m.Afresh(ctx, stateKey); !known {
				m.Dicts.Forget(m.Address(stateKey))
			}
		})
	}
	readers.Wait()
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	return views, nil
}

// Commit implements [Memory].
func (m inShards) Commit(ctx context.Context, change Change) error {
	if err := m.verify(ctx); err != nil {
		return err
	}
	return m.inState.Commit(ctx, change)
}

// verify looks once for what nobody has merged in the shards that the sync has brought. Else the first write to each would look back by itself, through
// the events of all of them. What is not found out here each of them finds out.
func (m inShards) verify(ctx context.Context) error {
	if !m.Follower.Live(m.ID) {
		return nil
	}
	if _, looked := m.looked.LoadOrStore(m.ID, true); looked {
		return nil
	}
	current := map[string]head{} // by state key
	for stateKey := range m.layout.keys() {
		if m.Replica(stateKey) == nil && !m.brought.has(m.ID, stateKey) {
			continue
		}
		unverified := replica.Read(m.Dict(stateKey).Dict, func(h *merge.History) []*merge.Event { return h.Unverified("", false) })
		if len(unverified) == 1 {
			current[stateKey] = head{event: unverified[0].ID, time: unverified[0].Time}
		}
	}
	if len(current) < 2 {
		return nil
	}
	merged, err := m.merged(ctx, current)
	if err != nil {
		m.looked.Delete(m.ID)
		return err
	}
	for stateKey, evt := range merged {
		m.Dict(stateKey).Do(func(h *merge.History) { h.Verify(evt.ID) })
	}
	return nil
}

// Remove implements [Memory].
func (m inShards) Remove(ctx context.Context, names []string, done func(name string)) error {
	return m.Commit(ctx, Removal(names, done))
}
