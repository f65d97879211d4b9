package memory

import (
	"context"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/replica"
)

// Dict is Replica, or a new one where nobody has asked.
func (r Room) Dict(stateKey string) *commit.Replica {
	return r.Dicts.Get(r.Address(stateKey), func() *commit.Replica {
		mode := commit.Mode{Single: r.SingleWriter, OneName: r.Layout.Alone(), Drop: r.RedactOld, Background: &r.Background}
		made := commit.NewReplica(DictRoom{r, stateKey}, mode)
		r.brought.begins(r, stateKey, made)
		return made
	})
}

// View reads the dict under the state key; see [commit.Replica.ReadView]. What nobody asks for again is not kept. What was read before the
// sync's first response has a replica, which does not begin with what that brings: that can be older.
func (r Room) View(ctx context.Context, stateKey string, agree func(view, current map[string]string) bool) (*replica.View, error) {
	live := r.Follower.Live(r.ID)
	d := r.Replica(stateKey)
	if r.Follower.Started() {
		d = r.Dict(stateKey)
	}
	if d != nil {
		return d.ReadView(ctx, live, agree)
	}
	current, err := DictRoom{r, stateKey}.Current(ctx)
	if err == nil && current == nil && !r.Layout.Alone() {
		return r.Dict(stateKey).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// told tells whether the dict under the state key is known, and the sync tells of changes.
func (r Room) told(stateKey string) bool {
	return r.Follower.Live(r.ID) && r.Dict(stateKey).View() != nil
}

// Afresh is the dict under the state key as the homeserver has it now.
func (r Room) Afresh(ctx context.Context, stateKey string) (*replica.View, error) {
	for {
		d := r.Dict(stateKey)
		if err := d.Read(ctx, true); err != nil {
			return nil, err
		}
		if view := d.View(); view != nil { // else the sync has skipped events meanwhile
			return view, view.Err
		}
	}
}

// viewFor is the dict that holds all of the names, for who reads these alone.
func (r Room) viewFor(ctx context.Context, names []string, afresh bool) (view *replica.View, err error) {
	stateKey := r.Layout.StateKey(names[0])
	if afresh {
		d := r.Dict(stateKey)
		if err = d.Read(ctx, true); err == nil {
			view = d.View()
		}
	}
	if view == nil && err == nil {
		view, err = r.View(ctx, stateKey, func(view, current map[string]string) bool {
			return !slices.ContainsFunc(names, func(name string) bool {
				a, inView := view[name]
				b, isCurrent := current[name]
				return inView != isCurrent || a != b
			})
		})
	}
	if err == nil && view.Err == nil {
		err = r.CheckNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return view, nil
}
