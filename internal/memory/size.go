package memory

import (
	"context"

	"github.com/roomkv/roomkv/internal/wire"
)

// Size is how much of a room's state a memory takes.
type Size struct {
	Keys   int
	Events int // state events with keys
	Bytes  int // about what the content of the largest of them has, or would have where account data has some of it
	Total  int // about what the contents of all of them have
	More   int // about how many keys of the average size fit beside these until one is full, -1 where each key has an event
}

// eventRest is about what an event takes beside the stored values: what roomkv adds, signatures, and references to other events.
const eventRest = 1500

// Size finds out how much the memory takes.
func (h Handle) Size(ctx context.Context) (Size, error) {
	records, err := h.All(ctx)
	if err != nil {
		return Size{}, err
	}
	events := map[string]int{} // by state key
	for _, found := range records {
		events[h.Layout.StateKey(found.Name)] += wire.EntrySize(found.Name, string(found.Stored))
	}
	size := Size{Keys: len(h.Visible(records)), Events: len(events), More: -1}
	for _, bytes := range events {
		bytes += len("{}")
		size.Bytes, size.Total = max(size.Bytes, bytes), size.Total+bytes
	}
	if !h.Layout.Alone() && size.Keys > 0 {
		size.More = h.Layout.Events() * max(0, wire.MaxEvent-eventRest-size.Bytes) / max(1, size.Total/size.Keys)
	}
	return size, nil
}
