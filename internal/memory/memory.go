// Package memory is what a room remembers in its state: names with what is stored under them, in one state event, in several, or in one for each
// name.
// It reads and writes names, and reads and stores the values behind them, which can be in encrypted events or in the media repository.
//
// A [Room] is one room with a store's settings. Its [Room.InState] is the [Memory] in the room's state; other packages put decorators around
// that. A [Handle] is a room with the memory that a store uses there.
package memory

import (
	"context"
	"iter"

	"github.com/roomkv/roomkv/internal/commit"
)

// Memory is the names that a room remembers, and what is stored under each. Methods are safe for concurrent use.
type Memory interface {
	// Find is what is there under the name, or nil. Afresh is for when what was read last must have been overwritten: the homeserver is then
	// asked for more than what is current.
	Find(ctx context.Context, name string, afresh bool) (*Record, error)

	// Some gives the records of those of the names that are there. One event holds all of these.
	Some(ctx context.Context, names []string) ([]Record, error)

	// All gives a record for every name, and one with an error for each event whose name cannot be told.
	All(ctx context.Context) ([]Record, error)

	// Named gives at least the records of those of the names that the homeserver has now. The sync is not asked, for it can be behind.
	Named(ctx context.Context, names []string) (map[string]Record, error)

	// Parts gives all records part by part, as the homeserver has them now, but for those of state events that are foreign.
	Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[Part, error]

	// Commit makes a change. It is atomic where one event has all of its names.
	Commit(ctx context.Context, change Change) error

	// Remove removes names. One that is not there makes no event. Done is as in [Change].
	Remove(ctx context.Context, names []string, done func(name string)) error
}

// Change is a change of some names.
type Change struct {
	Names []string

	// Edit gives the edit of the names that one event has, once for each such event.
	Edit func(names []string) commit.Edit

	// Whole: the edit can read and change whatever there is beside Names in their one event. Changed are the names that it has changed when it was
	// made last; where it is nil, Names.
	Whole   bool
	Changed func() []string

	// Done is told of each name once it was written, from several goroutines. It may be nil.
	Done func(name string)
}

// ChangedNames are the names that the change has changed when it was made last, and Names where that is none.
func (c Change) ChangedNames() []string {
	if c.Changed != nil {
		if names := c.Changed(); len(names) > 0 {
			return names
		}
	}
	return c.Names
}

// Part is a part of a memory.
type Part struct {
	Records []Record
	Left    int // about how many records come after it
}

// Handle is a room with the memory that a store uses there.
type Handle struct {
	Room
	Memory
}
