package matrix

import (
	"errors"
	"maps"
	"slices"
)

// errListed is for a listing that has more.
var errListed = errors.New("too many events, or too large ones")

// Picker collects state events by state key from a listing. The zero value wants all, up to maxListed.
type Picker struct {
	Wants func(stateKey string) bool // nil for any

	// Most and Size bound how many events are taken, and how long they are in all, in bytes: the first ones in the
	// order of their state keys, and at least one. 0 is no bound.
	Most, Size int

	events map[string]picked
	bytes  int
	Last   string // the last state key that there is room for, where more is true
	more   bool
}

type picked struct {
	event *Event
	late  bool
}

// Add is a [Visit].
func (p *Picker) Add(evt *Event, late bool) error {
	if p.Wants != nil && !p.Wants(*evt.StateKey) || p.more && *evt.StateKey > p.Last { // there is no room for it
		return nil
	}
	known, ok := p.events[*evt.StateKey]
	switch {
	case ok && known.late && !late:
		return nil
	case ok:
		p.bytes -= known.event.Size()
	case p.events == nil:
		p.events = map[string]picked{}
	}
	p.events[*evt.StateKey] = picked{evt, late}
	p.bytes += evt.Size()
	if p.Most > 0 && (len(p.events) > 2*p.Most || p.bytes > 2*p.Size) {
		p.cut()
	}
	if p.bytes+eventCost*len(p.events) > maxListed {
		return errListed
	}
	return nil
}

// cut leaves what there is room for.
func (p *Picker) cut() {
	bytes, full := 0, false
	for i, stateKey := range slices.Sorted(maps.Keys(p.events)) {
		size := p.events[stateKey].event.Size()
		if full = full || i > 0 && (i >= p.Most || bytes+size > p.Size); full {
			p.more = true
			delete(p.events, stateKey)
			continue
		}
		p.Last = stateKey
		bytes += size
	}
	p.bytes = bytes
}

// Take gives the events, and whether there are more.
func (p *Picker) Take() (events map[string]*Event, more bool) {
	if p.Most > 0 {
		p.cut()
	}
	events = make(map[string]*Event, len(p.events))
	for stateKey, known := range p.events {
		events[stateKey] = known.event
	}
	return events, p.more
}
