package fakehs

import (
	"cmp"
	"slices"
)

// resolve makes one state of several (room version 2, state resolution). It is that algorithm but for two things: it leaves the auth
// difference out, and tells the order of the events that change power by what each was allowed by alone. So of one slot the latest event by
// origin_server_ts, then by ID, counts, where its sender still has the power to send it.
func resolve(states []*state) *state {
	if len(states) == 1 {
		return states[0]
	}
	agreed, candidates := split(states)
	if len(candidates) == 0 {
		return states[0]
	}
	var power, rest []*pdu
	for _, evt := range candidates {
		if evt.changesPower() {
			power = append(power, evt)
		} else {
			rest = append(rest, evt)
		}
	}
	resolved := &state{all: agreed, size: len(agreed)}
	for _, evt := range inOrder(power) {
		resolved = resolved.tryWith(evt)
	}
	line := mainline(resolved.get("m.room.power_levels", ""))
	slices.SortFunc(rest, func(a, b *pdu) int {
		return cmp.Or(cmp.Compare(line.of(b), line.of(a)), a.compare(b))
	})
	for _, evt := range rest {
		resolved = resolved.tryWith(evt)
	}
	return resolved
}

// split parts what the states agree on from the events that they have in the other slots.
func split(states []*state) (agreed map[slot]*pdu, candidates []*pdu) {
	agreed = states[0].flat()
	seen := map[*pdu]bool{}
	disputed := map[slot]bool{}
	others := make([]map[slot]*pdu, 0, len(states)-1)
	for _, other := range states[1:] {
		all := other.flat()
		others = append(others, all)
		for at, evt := range all {
			if agreed[at] != evt {
				disputed[at] = true
			}
		}
		for at := range agreed {
			if all[at] == nil {
				disputed[at] = true
			}
		}
	}
	for _, all := range append(others, agreed) {
		for at := range disputed {
			if evt := all[at]; evt != nil && !seen[evt] {
				seen[evt] = true
				candidates = append(candidates, evt)
			}
		}
	}
	for at := range disputed {
		delete(agreed, at)
	}
	return agreed, candidates
}

// tryWith is the state with the event where that is allowed there.
func (s *state) tryWith(evt *pdu) *state {
	at := s
	for _, auth := range evt.auth { // what allowed it is asked where the state says nothing
		if s.get(auth.Type, *auth.StateKey) == nil {
			at = at.with(auth)
		}
	}
	if authorize(at, evt) != nil {
		return s
	}
	return s.with(evt)
}

// changesPower tells whether the event can take the right to send others (power events).
func (e *pdu) changesPower() bool {
	switch e.Type {
	case "m.room.create", "m.room.power_levels", "m.room.join_rules":
		return true
	case "m.room.member":
		becomes := textOf(e.Content, "membership")
		return (becomes == "leave" || becomes == "ban") && string(e.Sender) != *e.StateKey
	}
	return false
}

// inOrder puts events after those that allowed them, and before others those whose senders had more power.
func inOrder(events []*pdu) []*pdu {
	slices.SortFunc(events, func(a, b *pdu) int {
		return cmp.Or(cmp.Compare(b.senderLevel(), a.senderLevel()), a.compare(b))
	})
	var ordered []*pdu
	taken := map[*pdu]bool{}
	var take func(evt *pdu)
	take = func(evt *pdu) {
		if taken[evt] {
			return
		}
		taken[evt] = true
		for _, first := range evt.auth {
			if slices.Contains(events, first) {
				take(first)
			}
		}
		ordered = append(ordered, evt)
	}
	for _, evt := range events {
		take(evt)
	}
	return ordered
}

// senderLevel is the power that the sender had when the event was built.
func (e *pdu) senderLevel() level {
	st := noState
	for _, evt := range e.auth {
		st = st.with(evt)
	}
	return levelsIn(st).of(e.Sender)
}

// compare orders by time, then by ID.
func (e *pdu) compare(other *pdu) int {
	return cmp.Or(cmp.Compare(e.Time, other.Time), cmp.Compare(e.ID, other.ID))
}

// line is the power levels of a room, each replaced by the one before it.
type line []*pdu

// mainline is the line that ends in the power levels.
func mainline(levels *pdu) line {
	var l line
	for ; levels != nil; levels = levels.power {
		l = append(l, levels)
	}
	return l
}

// of is the place in the line of the power levels that allowed the event, the greater the older.
func (l line) of(evt *pdu) int {
	for levels := evt.power; levels != nil; levels = levels.power {
		if at := slices.Index(l, levels); at >= 0 {
			return at
		}
	}
	return len(l)
}
