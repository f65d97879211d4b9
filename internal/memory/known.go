package memory

import "github.com/roomkv/roomkv/internal/wire"

// Known is the entry of a key that was read before, while the store follows and nothing of the dict has changed since; else nil. It is for a
// store that has its memory in the state alone, and finds only values that stood there in the clear. What it gives must not be changed.
func (r *Room) Known(key string) *Entry {
	if !r.Follower.Live(r.ID) {
		return nil
	}
	if d := r.Replica(r.Layout.StateKey(wire.Name(key))); d != nil { // sealed keys are not among them
		if view := d.View(); view != nil {
			known, _ := view.Noted(key).(*Entry)
			return known
		}
	}
	return nil
}
