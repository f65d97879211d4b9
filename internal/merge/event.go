// Package merge finds out what a dict holds after several writers wrote it at once.
//
// A dict is what one state event holds. Its events are a history as in a version-control system: each is a snapshot
// of the whole dict and names the snapshots its writer had merged. A [History] knows some of them, tells which are
// heads, and merges these key by key.
//
// Everything here is pure: no network and no clock.
package merge

import (
	"slices"

	"maunium.net/go/mautrix/id"
)

// Event is one snapshot of a dict, with what is known of those before it.
type Event struct {
	ID     id.EventID
	Sender id.UserID
	Time   int64             // origin_server_ts, in Unix milliseconds
	Dict   map[string]string // equal values are equal strings; not to be changed
	Err    error             // why Dict could not be read

	// Redacted: nobody can tell any more what the event held, nor what its writer had merged.
	Redacted bool

	// Parents are the heads that the writer had merged. They count where Marked is true, else the writer was one that
	// names none, such as opsdroid. Where it had to choose between conditional changes, those of Yields did not count.
	Parents []id.EventID
	Yields  Yields
	Marked  bool

	// Blind: the writer had read nothing, and replaced what was there. Then Mark is its own too.
	Blind bool

	// Conditional: the writer computed what it changed from what was there before.
	Conditional bool

	// Atomic: all that the writer changed counts, or nothing of it. Such an event is Conditional, and depends also on the names of Reads, which it
	// did not change; with ReadsAll on all names.
	Atomic   bool
	Reads    []string
	ReadsAll bool

	// Swept are names that the writer took away because their time was over. Such a change is conditional, whatever the event is: it counts only where
	// nobody has stored something under the name.
	Swept map[string]bool

	// Mark is the text that named parents, also where somebody copied it from another event.
	Mark string

	// Replaces is the event that was current before, by the homeserver's word.
	Replaces id.EventID

	// Partial: the event comes from the state, not from a list of events, so that what was before it is not known yet. Before: from that before a
	// list of events, on the branch of the first of them, so that what was stored after it need not be on the list.
	Partial bool
	Before  bool
}

// Yields are changes: of these events, what they did to these names, in order. Where no names are given it is all that the event did.
type Yields map[id.EventID][]string

// own tells whether the event's writer chose Mark, so that another event with it is the same request, delivered twice, or the same
// merge by two writers.
func (e *Event) own() bool { return e.Marked || e.Blind }

// sweeps tells whether the event took the name away because its time was over.
func (e *Event) sweeps(name string) bool {
	if !e.Swept[name] {
		return false
	}
	_, there := e.Dict[name]
	return !there
}

// IsConditional tells whether what the event did to the name depends on what was there before.
func (e *Event) IsConditional(name string) bool { return e.Conditional || e.sweeps(name) }

func (y Yields) has(event id.EventID, name string) bool {
	return y.whole(event) || slices.Contains(y[event], name)
}

// whole tells whether nothing that the event did counts.
func (y Yields) whole(event id.EventID) bool {
	names, yields := y[event]
	return yields && len(names) == 0
}
