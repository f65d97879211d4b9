package memory

import (
	"context"
	"maps"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

// Dict is Replica, or a new one where nobody has asked.
func (r Room) Dict(stateKey string) *commit.Replica {
	return r.Dicts.Get(r.Address(stateKey), func() *commit.Replica {
		mode := commit.Mode{Single: r.SingleWriter, OneName: r.Layout.Alone(), Drop: r.RedactOld, Background: &r.Background, Room: r.ID, Meter: &r.Meter}
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
	switch age := r.Follower.MaxAge(); {
	case d != nil && age > 0:
		return d.ReadWithin(ctx, age)
	case d != nil:
		return d.ReadView(ctx, live, agree)
	}
	current, err := DictRoom{r, stateKey}.Current(ctx)
	if err == nil && current == nil && !r.Layout.Alone() {
		return r.Dict(stateKey).LeftOut(ctx)
	}
	return replica.ViewOf(current), err
}

// ViewWith is View for who has just got the current event.
func (r Room) ViewWith(ctx context.Context, evt *matrix.Event) (*replica.View, error) {
	current := r.Parsed(evt)
	return r.viewWith(ctx, *evt.StateKey, &current)
}

func (r Room) viewWith(ctx context.Context, stateKey string, current *merge.Event) (*replica.View, error) {
	if d := r.Replica(stateKey); d != nil && d.Knows() && !r.Layout.Alone() { // else another writer's event is of the same key
		return d.ViewWith(ctx, current, maps.Equal[map[string]string])
	}
	return replica.ViewOf(current), nil
}

// told tells whether the dict under the state key is known, and the sync tells of changes, or what the homeserver has said still counts.
func (r Room) told(stateKey string) bool {
	if age := r.Follower.MaxAge(); age > 0 {
		return r.Dict(stateKey).Fresh(age) != nil
	}
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
