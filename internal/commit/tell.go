package commit

import (
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// Tell notes in an event what its content says of the events before it. Parents is nil where the content says nothing, or copies what another said.
func Tell(event *merge.Event, parents *wire.Parents) {
	switch {
	case parents == nil:
	case parents.Events == nil:
		event.Blind = true
	default:
		event.Marked, event.Parents, event.Yields, event.Conditional = true, parents.Events, parents.Yields, parents.Conditional
		if len(parents.Swept) > 0 {
			event.Swept = make(map[string]bool, len(parents.Swept))
			for _, name := range parents.Swept {
				event.Swept[name] = true
			}
		}
		if atomic := parents.Atomic; atomic != nil {
			event.Conditional, event.Atomic, event.Reads, event.ReadsAll = true, true, atomic.Reads, atomic.All
			if sizeOfNames(atomic.Reads) >= maxReads { // roomkv writes no such event, and each name takes time to judge
				event.Reads, event.ReadsAll = nil, true
			}
		}
	}
}
