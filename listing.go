package roomkv

import (
	"context"
	"slices"
	"time"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
)

// written is shared by all stores, for several may be of one room.
var written commit.Written

// powerRace is how long before or after a change of the power levels, at most, an event was sent at the same time. Synapse's
// sync can show such an event that the state has no more, or never had.
const powerRace = 10 * time.Second

// list returns the current events of the store's type by state key. It is one initial sync that leaves out
// everything else, so that its cost does not grow with the room's members or other state, and one more
// request for each own write that the sync does not show, see [commit.Written], and for each event that the state may
// not have.
func (r roomState) list(ctx context.Context) (map[string]*matrix.Event, error) {
	// Before the sync, for what is written after it need not be in its response.
	pending := written.In(r.ID, r.eventType.Type)
	var all matrix.Picker
	powers, err := r.scan(ctx, func() matrix.Visit {
		all = matrix.Picker{}
		return all.Add
	})
	if err != nil {
		return nil, err
	}
	events, _ := all.Take()
	doubtful := map[string]bool{}
	for stateKey, own := range pending {
		if evt := events[stateKey]; evt == nil || evt.ID != own {
			doubtful[stateKey] = true
		}
	}
	for stateKey, evt := range events {
		if slices.ContainsFunc(powers, func(changed int64) bool {
			return max(evt.Time-changed, changed-evt.Time) <= powerRace.Milliseconds()
		}) {
			doubtful[stateKey] = true
		}
	}
	for stateKey := range doubtful {
		evt, err := r.get(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if evt == nil {
			delete(events, stateKey)
		} else {
			events[stateKey] = evt
		}
		if own, ok := pending[stateKey]; ok && (evt == nil || evt.ID != own) {
			written.Forget(r.address(stateKey), own) // somebody else has written since
		}
	}
	return events, nil
}

// all returns the current events of the store's type by state key, by scanAll.
func (r roomState) all(ctx context.Context) (map[string]*matrix.Event, error) {
	var all matrix.Picker
	err := r.scanAll(ctx, func() matrix.Visit {
		all = matrix.Picker{}
		return all.Add
	})
	events, _ := all.Take()
	return events, err
}

// existing are those of the names that are there. Several are read in one listing; what that does not show is asked for
// by itself, for another client can have written it only just now.
func (r roomState) existing(ctx context.Context, names []string) ([]string, error) {
	var events map[string]*matrix.Event
	if len(names) > 1 {
		var err error
		if events, err = r.list(ctx); err != nil {
			return nil, err
		}
	}
	var there []string
	for _, name := range names {
		stateKey := r.core.layout.stateKey(name)
		evt := events[stateKey]
		if evt == nil || recordOf(r.viewOf(evt, stateKey), name) == nil {
			var err error
			if evt, err = r.get(ctx, stateKey); err != nil {
				return nil, err
			}
		}
		if evt != nil && recordOf(r.viewOf(evt, stateKey), name) != nil || r.knows(stateKey, name) {
			there = append(there, name)
		}
	}
	return there, nil
}

// knows tells whether this process knows of something under the name, which a rival can hide in the state.
func (r roomState) knows(stateKey, name string) (known bool) {
	if d := r.replica(stateKey); d != nil {
		d.Look(func(h *merge.History) {
			known = slices.ContainsFunc(h.Heads(), func(head *merge.Event) bool { return head.Dict[name] != "" })
		})
	}
	return known
}
