package memory

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/replica"
)

// Parallel is how many state events are sent, or read, at the same time where there are several.
const Parallel = 8

const (
	// adviceDict is what to do about a memory that is too large, once its large values are out of it.
	adviceDict = "delete keys, store less under them, or Copy the memory to a store WithShards, which has as many state events as you say, or WithPerKeyState, which has one for each key"

	// adviceOneKey is what to do about a value that is too large.
	adviceOneKey = "store less under one key"
)

// inState is what the memories in a room's state have in common: a name tells which event holds it.
type inState struct{ Room }

// Find implements [Memory].
func (m inState) Find(ctx context.Context, name string, afresh bool) (*Record, error) {
	view, err := m.viewFor(ctx, []string{name}, afresh)
	if err != nil {
		return nil, err
	}
	return RecordOf(view, name), nil
}

// Some implements [Memory].
func (m inState) Some(ctx context.Context, names []string) (found []Record, err error) {
	view, err := m.viewFor(ctx, names, false)
	if err == nil && !m.Layout.Alone() { // else it is an error of that one key
		err = view.Err
	}
	if err != nil {
		return nil, err
	}
	for _, name := range names {
		if record := RecordOf(view, name); record != nil {
			found = append(found, *record)
		}
	}
	return found, nil
}

// viewFor is the dict that holds all of the names, for who reads these alone.
func (m inState) viewFor(ctx context.Context, names []string, afresh bool) (view *replica.View, err error) {
	stateKey := m.Layout.StateKey(names[0])
	if afresh {
		d := m.Dict(stateKey)
		if err = d.Read(ctx, true); err == nil {
			view = d.View()
		}
	}
	if view == nil && err == nil {
		view, err = m.View(ctx, stateKey, func(view, current map[string]string) bool {
			return !slices.ContainsFunc(names, func(name string) bool {
				a, inView := view[name]
				b, isCurrent := current[name]
				return inView != isCurrent || a != b
			})
		})
	}
	if err == nil && view.Err == nil {
		err = m.CheckFields(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return view, nil
}

// Commit implements [Memory]. It is not atomic for names of several events: Matrix has no request that sends two state events. It makes several
// edits at a time and begins no other once one has failed.
func (m inState) Commit(ctx context.Context, change Change) error {
	names := slices.Compact(slices.Sorted(slices.Values(change.Names)))
	byEvent := ByEvent(m.Layout, names)
	events := slices.Sorted(maps.Keys(byEvent))
	if len(events) == 1 {
		return m.commitOne(ctx, events[0], byEvent[events[0]], change)
	}
	var next, done atomic.Int64
	failures := make(chan error, Parallel)
	var workers sync.WaitGroup
	for range min(Parallel, len(events)) {
		workers.Go(func() {
			for len(failures) == 0 {
				i := int(next.Add(1)) - 1
				if i >= len(events) {
					return
				}
				of := byEvent[events[i]]
				if err := m.commitOne(ctx, events[i], of, change); err != nil {
					failures <- err
					return
				}
				done.Add(int64(len(of)))
			}
		})
	}
	workers.Wait()
	select {
	case err := <-failures:
		return fmt.Errorf("%w (%d of %d keys were done)", err, done.Load(), len(names))
	default:
		return nil
	}
}

func (m inState) commitOne(ctx context.Context, stateKey string, names []string, change Change) error {
	edit, advice := change.Edit(names), adviceOneKey
	if m.Layout.Together("") {
		edit = m.WithFields(edit)
	} else if edit.HasValues() {
		edit = m.afterFields(ctx, edit)
	}
	if !m.Layout.Alone() {
		edit, advice = m.Fitting(ctx, edit), adviceDict
	}
	if err := fault.Advise(m.Dict(stateKey).Writer.Do(ctx, edit), advice); err != nil {
		return err
	}
	if change.Done != nil {
		for _, name := range names {
			change.Done(name)
		}
	}
	return nil
}
