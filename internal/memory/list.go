package memory

import (
	"context"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
)

// List returns the current events of the store's type by state key. It is one initial sync that leaves out
// everything else, so that its cost does not grow with the room's members or other state, and one more
// request for each own write that the sync does not show, see [commit.Written], and for each event that the state may
// not have: Synapse's sync can show an event that was sent beside a change of the power levels and that the state has no more, or never had.
func (r Room) List(ctx context.Context) (map[string]*matrix.Event, error) {
	// Before the sync, for what is written after it need not be in its response.
	pending := commit.ThisProcess.Written.In(r.ID, r.Type.Type)
	var all matrix.Picker
	powers, err := r.Scan(ctx, r.Type, func() matrix.Visit {
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
			return max(evt.Time-changed, changed-evt.Time) <= r.Policy.PowerRace.Milliseconds()
		}) {
			doubtful[stateKey] = true
		}
	}
	for stateKey := range doubtful {
		evt, err := r.Get(ctx, stateKey)
		if err != nil {
			return nil, err
		}
		if evt == nil {
			delete(events, stateKey)
		} else {
			events[stateKey] = evt
		}
		if own, ok := pending[stateKey]; ok && (evt == nil || evt.ID != own) {
			commit.ThisProcess.Written.Forget(r.Address(stateKey), own) // somebody else has written since
		}
	}
	return events, nil
}

// ListWhole returns the current events of the store's type by state key, by the whole state; see [matrix.Room.ScanAll].
func (r Room) ListWhole(ctx context.Context) (map[string]*matrix.Event, error) {
	var all matrix.Picker
	err := r.ScanAll(ctx, r.Type, func() matrix.Visit {
		all = matrix.Picker{}
		return all.Add
	})
	events, _ := all.Take()
	return events, err
}
