package past

import (
	"context"
	"maps"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// Heads are the current events of all dicts.
func Heads(ctx context.Context, r memory.Room) (map[string]*matrix.Event, error) {
	if r.Layout.Together("") {
		stateKey := r.Layout.StateKey("")
		evt, err := r.Get(ctx, stateKey)
		if err != nil || evt == nil {
			return nil, err
		}
		return map[string]*matrix.Event{stateKey: evt}, nil
	}
	current, err := r.List(ctx)
	maps.DeleteFunc(current, func(stateKey string, _ *matrix.Event) bool { return !r.Layout.Holds(stateKey) })
	return current, err
}
