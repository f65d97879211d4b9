package roomkv

import (
	"context"
	"iter"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// roomState is the memory of one room as the store's options have it: in the room's state, or in account data, with the room's upgrades.
// It implements [memory.Memory].
type roomState struct {
	memory.Room
	core *core

	dead      error // why nothing may be written here, nil where it may
	stateOnly bool  // whether writes never go to account data
}

// in is the memory of another room.
func (r roomState) in(room id.RoomID) roomState {
	r.Room, r.dead = r.Of(room), nil
	return r
}

// handle is the room with its memory.
func (r roomState) handle() memory.Handle { return memory.Handle{Room: r.Room, Memory: r} }

// Find implements [memory.Memory].
func (r roomState) Find(ctx context.Context, name string, afresh bool) (*memory.Record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.find(ctx, name)
	}
	return r.InState().Find(ctx, name, afresh)
}

// All implements [memory.Memory].
func (r roomState) All(ctx context.Context) ([]memory.Record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.readAll(ctx)
	}
	return r.InState().All(ctx)
}

// Named implements [memory.Memory].
func (r roomState) Named(ctx context.Context, names []string) (map[string]memory.Record, error) {
	if o, err := r.away(ctx, false); err != nil {
		return nil, err
	} else if o != nil {
		return o.readNames(ctx, names)
	}
	return r.InState().Named(ctx, names)
}

// Parts implements [memory.Memory]. A memory that is in account data is one part: only all of it tells what is hidden.
func (r roomState) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[memory.Part, error] {
	return func(yield func(memory.Part, error) bool) {
		if o, err := r.away(ctx, false); err != nil || o != nil {
			var part memory.Part
			if err == nil {
				part.Records, err = o.now(ctx, foreign)
			}
			yield(part, err)
			return
		}
		r.InState().Parts(ctx, foreign)(yield)
	}
}

// seen notes that a page of the room's events shows tombstones.
func (u *upgrades) seen(room id.RoomID, page matrix.Page) {
	for _, tombstone := range page.Tombstones {
		u.doubt(room, tombstone)
	}
}
