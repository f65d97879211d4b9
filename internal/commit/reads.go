package commit

import (
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/wire"
)

// maxReads is what the names that an atomic event has read may take of it, in bytes. One that has read more counts as one that has read all.
const maxReads = 1000

// reads are the names that an atomic edit depends on, beside those that it changes. One that is nil takes no notes.
type reads struct {
	names map[string]bool
	all   bool
}

func newReads() *reads { return &reads{names: map[string]bool{}} }

func (r *reads) note(name string) {
	if r != nil && !wire.IsOwn(name) {
		r.names[name] = true
	}
}

func (r *reads) noteAll() {
	if r != nil {
		r.all = true
	}
}

func (r *reads) add(other *reads) {
	maps.Copy(r.names, other.names)
	r.all = r.all || other.all
}

// size is about what the reads take of an event, in bytes.
func (r *reads) size() (size int) {
	if r == nil || r.all {
		return 0
	}
	return min(sizeOfNames(slices.Collect(maps.Keys(r.names))), maxReads)
}

func sizeOfNames(names []string) (size int) {
	for _, name := range names {
		size += wire.EntrySize(name, "")
	}
	return size
}

// without are the reads as an event tells them that changes those names.
func (r *reads) without(changes func(name string) bool) *wire.Atomic {
	names := slices.DeleteFunc(slices.Sorted(maps.Keys(r.names)), changes)
	if r.all || sizeOfNames(names) >= maxReads {
		return &wire.Atomic{All: true}
	}
	return &wire.Atomic{Reads: names}
}
