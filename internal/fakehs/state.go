package fakehs

// slot is where a state event is in a room's state.
type slot struct{ eventType, stateKey string }

// state is the state of a room at some event. It does not change, and shares most of what it has with the one that it was made from.
type state struct {
	all   map[slot]*pdu // all of it, where there is no before
	over  *state        // what it differs from in one slot
	at    slot
	event *pdu
	depth int // how many states it stands on
	size  int // about how many slots there are
}

var noState = &state{all: map[slot]*pdu{}}

// get gives nil where there is none.
func (s *state) get(eventType, stateKey string) *pdu {
	at := slot{eventType, stateKey}
	for ; s.over != nil; s = s.over {
		if s.at == at {
			return s.event
		}
	}
	return s.all[at]
}

// with is the state with one event more.
func (s *state) with(evt *pdu) *state {
	at := slot{evt.Type, *evt.StateKey}
	if s.depth > max(64, s.size/16) {
		all := s.flat()
		all[at] = evt
		return &state{all: all, size: len(all)}
	}
	return &state{over: s, at: at, event: evt, depth: s.depth + 1, size: s.size + 1}
}

// flat is all of it, in a map of the caller's own.
func (s *state) flat() map[slot]*pdu {
	var over []*state
	for ; s.over != nil; s = s.over {
		over = append(over, s)
	}
	all := make(map[slot]*pdu, len(s.all)+len(over))
	for at, evt := range s.all {
		all[at] = evt
	}
	for i := len(over) - 1; i >= 0; i-- {
		all[over[i].at] = over[i].event
	}
	return all
}
