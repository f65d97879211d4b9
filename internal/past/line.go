package past

import (
	"cmp"
	"context"
	"slices"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
)

// rivals is how many events that are listed after one are looked at beside it: writers that have not seen one another are not
// further apart.
const rivals = 20

// line finds the revisions of one name among the events of its dict.
type line struct {
	memory.DictRoom
	name   string
	events []*pastEvent // those that are not judged yet, the newest first
	newer  *string      // what the last event that was judged and not redacted has, nil before that
}

// absent stands for what an event has that lacks the name; no JSON is empty.
const absent = ""

// mostRivals bounds how many events wait for their parents to be found.
const mostRivals = 500

// pastEvent is an event and what it says.
type pastEvent struct {
	*matrix.Event
	read merge.Event
}

// readPast reads an event, once for all lines that it is in.
func readPast(r memory.Room, evt *matrix.Event) *pastEvent {
	return &pastEvent{evt, r.Parsed(evt)}
}

// judge gives the revisions among the events of which it can be told by now, the newest first, and forgets these.
func (l *line) judge(ended bool) []*Revision {
	var h merge.History
	has := make([]string, len(l.events)) // what each has under the name
	older := absent
	unread := 0 // from there on nothing says what was before those that were redacted
	for i, evt := range slices.Backward(l.events) {
		read := evt.read
		if !evt.Redacted() && read.Err == nil {
			older = absent
			if stored, ok := read.Dict[l.name]; ok {
				older = stored
			}
			unread = max(unread, i+1)
		}
		has[i] = older
	}
	for i, evt := range l.events {
		read := evt.read
		read.Err = nil
		if read.Dict = map[string]string{}; has[i] != absent {
			read.Dict[l.name] = has[i]
		}
		h.AddOlder(read)
	}
	n := len(l.events)
	if !ended {
		n = min(max(0, n-rivals), unread)
		if i := slices.IndexFunc(l.events[:n], func(evt *pastEvent) bool { return !h.Known(evt.ID) }); i >= 0 && len(l.events) < mostRivals {
			n = i
		}
		n = l.whole(&h, n)
	}
	var found []*Revision
	for i, evt := range l.events[:n] {
		if rev := l.at(&h, i, has); rev != nil {
			found = append(found, rev)
		}
		if !evt.Redacted() {
			l.newer = &has[i]
		}
	}
	for i := 1; i < len(found); i++ {
		for j := i; j > 0 && counts(&h, l.name, found[j].evt, found[j-1].evt); j-- {
			found[j-1], found[j] = found[j], found[j-1]
		}
	}
	l.events = slices.Clone(l.events[n:])
	return found
}

// whole is how many of the first n events can be judged without parting rivals: all of them descend from what comes next.
func (l *line) whole(h *merge.History, n int) int {
	for most := n; n > max(0, most-rivals); n-- {
		if !slices.ContainsFunc(l.events[max(0, n-rivals):n], func(evt *pastEvent) bool { return !h.Descends(evt.ID, l.events[n].ID) }) {
			return n
		}
	}
	return n
}

// at is nil where the event is no revision of the name.
func (l *line) at(h *merge.History, i int, has []string) *Revision {
	evt := l.events[i]
	rev := &Revision{Record: memory.Record{Name: l.name, Event: evt.ID, Sender: evt.Sender, Time: memory.Time(evt.Time)}, evt: evt}
	read := evt.read
	switch {
	case evt.Redacted():
		if !l.Layout.Alone() && l.newer != nil && *l.newer == has[i] {
			return nil
		}
		rev.Err = fault.Of(fault.ErrRedacted, nil, "event %s in %s", evt.ID, l.ID)
	case read.Err != nil:
		rev.Err = read.Err
	case h.Origin(evt.ID, l.name) != evt.ID:
		return nil
	default:
		rev.Deleted = has[i] == absent
		rev.Stored = []byte(has[i])
	}
	return rev
}

// counts tells whether a counts rather than b, which the homeserver lists as the later one, where neither has seen the other.
func counts(h *merge.History, name string, a, b *pastEvent) bool {
	if h.Descends(a.ID, b.ID) || h.Descends(b.ID, a.ID) {
		return false
	}
	first, second := a.read, b.read
	if first.IsConditional(name) || second.IsConditional(name) {
		return !first.IsConditional(name) || second.IsConditional(name)
	}
	return cmp.Or(cmp.Compare(first.Time, second.Time), cmp.Compare(first.ID, second.ID)) > 0
}

// Revision is an event that changed what is stored under a name.
type Revision struct {
	memory.Record
	Deleted bool // the name was removed
	evt     *pastEvent
}

// Entry reads the revision's value, where there is one.
func (r *Revision) Entry(ctx context.Context, reader memory.Reader) (memory.Entry, error) {
	if r.Deleted {
		return memory.Entry{Record: r.Record}, nil
	}
	return reader.Entry(ctx, &r.Record)
}
