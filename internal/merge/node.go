package merge

import (
	"cmp"
	"slices"
	"strings"

	"maunium.net/go/mautrix/id"
)

// node is an event and its place in the history.
type node struct {
	Event
	seq             int               // the order in which events were added
	place           *int64            // where the homeserver stored it among others, nil where that is not known
	placeAsked      bool              // whether Place was called
	verified        bool              // whether no rival of it is unknown
	dropped         bool              // see Drop
	prunedParent    bool              // whether parents were forgotten, when a later event had merged all there was
	beforeRedaction map[string]string // what Dict was, of an event that was redacted since

	// What link makes of these.
	index         int // in order
	walk          int // of the walk that finds order
	parents       []*node
	missing       []id.EventID // parents that are not in the history
	parentGivenUp bool
	before        *node  // the event that was stored before, as far as that is known
	twin          *node  // what the same request made first, where that is another event
	past          bitset // the ancestors, by index
	noChange      bool   // whether it is as if the event had changed nothing

	void      map[*node]bool // the events of which it has recorded that nothing of them counts
	recorders []*node        // the events that have recorded that of this one
}

// descends tells whether the event has merged the other one, or is it.
func (n *node) descends(from *node) bool { return n == from || n.past.has(from.index) }

// leads tells whether one of these events has merged the other one, or is it.
func leads(events []*node, to *node) bool {
	return slices.ContainsFunc(events, func(event *node) bool { return event.descends(to) })
}

// stored tells whether a was stored before b, as far as that is known.
func stored(a, b *node) bool {
	switch {
	case a.place != nil && b.place != nil:
		return *a.place < *b.place
	case a.Replaces == b.ID:
		return false
	case b.Replaces == a.ID:
		return true
	}
	return a.seq < b.seq
}

// compare is the order in which events count that nothing else orders. It is the same everywhere.
func compare(a, b *node) int {
	return cmp.Or(cmp.Compare(a.Time, b.Time), strings.Compare(a.ID.String(), b.ID.String()))
}
