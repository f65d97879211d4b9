package roomkv

import (
	"maps"
	"slices"
)

// picker collects state events by state key from a listing. The zero value wants all.
type picker struct {
	wants func(stateKey string) bool // nil for any

	// most and size bound how many events are taken, and how long their contents are in all, in bytes: the first ones in the
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
func (p *picker) add(evt *stateEvent, late bool) {
	if !p.takes(*evt.StateKey) {
		return
	}
	known, ok := p.events[*evt.StateKey]
	switch {
	case ok && known.late && !late:
		return
	case ok:
		p.bytes -= len(known.event.Content)
	case p.events == nil:
		p.events = map[string]picked{}
	}
	p.events[*evt.StateKey] = picked{evt, late}
	p.bytes += len(evt.Content)
	if p.most > 0 && (len(p.events) > 2*p.most || p.bytes > 2*p.size) {
		p.cut()
	}
}

// takes tells whether an event with the state key is wanted and has room.
func (p *picker) takes(stateKey string) bool {
	return (p.wants == nil || p.wants(stateKey)) && (!p.more || stateKey <= p.bound)
}

// cut leaves what there is room for.
func (p *picker) cut() {
	bytes, full := 0, false
	for i, stateKey := range slices.Sorted(maps.Keys(p.events)) {
		size := len(p.events[stateKey].event.Content)
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
