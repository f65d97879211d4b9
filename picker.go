package roomkv

import (
	"errors"
	"maps"
	"slices"
)

// maxListed is how much of a listing is held in memory at once, in bytes of events, to each of which eventCost is added.
const (
	maxListed = 32 << 20
	eventCost = 512
)

// errListed is for a listing that has more.
var errListed = errors.New("too many events, or too large ones")

// picker collects state events by state key from a listing. The zero value wants all, up to maxListed.
type picker struct {
	wants func(stateKey string) bool // nil for any

	// most and size bound how many events are taken, and how long they are in all, in bytes: the first ones in the
	// order of their state keys, and at least one. 0 is no bound.
	most, size int

	events map[string]picked
	bytes  int
	bound  string // the last state key that there is room for, where more is true
	more   bool
}

type picked struct {
	event *stateEvent
	late  bool
}

// add is for [roomState.scan].
func (p *picker) add(evt *stateEvent, late bool) error {
	if !p.takes(*evt.StateKey) {
		return nil
	}
	known, ok := p.events[*evt.StateKey]
	switch {
	case ok && known.late && !late:
		return nil
	case ok:
		p.bytes -= known.event.size()
	case p.events == nil:
		p.events = map[string]picked{}
	}
	p.events[*evt.StateKey] = picked{evt, late}
	p.bytes += evt.size()
	if p.most > 0 && (len(p.events) > 2*p.most || p.bytes > 2*p.size) {
		p.cut()
	}
	if p.bytes+eventCost*len(p.events) > maxListed {
		return errListed
	}
	return nil
}

// takes tells whether an event with the state key is wanted and has room.
func (p *picker) takes(stateKey string) bool {
	return (p.wants == nil || p.wants(stateKey)) && (!p.more || stateKey <= p.bound)
}

// cut leaves what there is room for.
func (p *picker) cut() {
	bytes, full := 0, false
	for i, stateKey := range slices.Sorted(maps.Keys(p.events)) {
		size := p.events[stateKey].event.size()
		if full = full || i > 0 && (i >= p.most || bytes+size > p.size); full {
			p.more = true
			delete(p.events, stateKey)
			continue
		}
		p.bound = stateKey
		bytes += size
	}
	p.bytes = bytes
}

// take gives the events, and whether there are more.
func (p *picker) take() (events map[string]*stateEvent, more bool) {
	if p.most > 0 {
		p.cut()
	}
	events = make(map[string]*stateEvent, len(p.events))
	for stateKey, known := range p.events {
		events[stateKey] = known.event
	}
	return events, p.more
}
