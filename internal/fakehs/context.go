package fakehs

import (
	"encoding/json"
	"net/http"
)

// context gives the events around one, in the order in which they were stored. Its tokens tell that order, as those of real servers do.
func (s *Server) context(r *request) (any, error) {
	at, known := s.rooms[r.room()]
	if !known || at.current.membership(r.device.user.id) == "" {
		return nil, forbid("User is not allowed to query context")
	}
	evt, err := s.eventOf(r)
	if err != nil {
		return nil, err
	}
	var wanted eventFilter
	if text := r.query.Get("filter"); text != "" {
		if err := json.Unmarshal([]byte(text), &wanted); err != nil {
			return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "the filter cannot be read: %v", err)
		}
	}
	limit := max(0, r.number("limit", defaultPage))
	left, right := limit, limit // on Dendrite the limit is of each side
	if s.mode == Forking {
		left = limit / 2
		right = limit - left
	}
	before, after := []*pdu{}, []*pdu{}
	for _, other := range at.log {
		if !s.isListed(other) || !other.isSeenBy(r.device.user.id) || !wanted.wantsType(other.Type) {
			continue
		}
		switch {
		case other.pos < evt.pos:
			before = append(before, other)
		case other.pos > evt.pos && len(after) < right:
			after = append(after, other)
		}
	}
	before = before[max(0, len(before)-left):]
	shown := object{"event": evt.show(s, r.device, inList), "state": s.stateAround(r, at, wanted)}
	s.bounds(shown, evt, before, after)
	var olderFirst, newer []object
	for i := range before {
		olderFirst = append(olderFirst, before[len(before)-1-i].show(s, r.device, inList))
	}
	for _, other := range after {
		newer = append(newer, other.show(s, r.device, inList))
	}
	if len(olderFirst) > 0 || s.mode == Forking {
		shown["events_before"] = append([]object{}, olderFirst...)
	}
	if len(newer) > 0 || s.mode == Forking {
		shown["events_after"] = append([]object{}, newer...)
	}
	return shown, nil
}

// bounds adds the tokens of where the events around one begin and end. On Dendrite these are those of the first and the last one, and empty
// where there is none. On Synapse they are next to what is shown.
func (s *Server) bounds(shown object, evt *pdu, before, after []*pdu) {
	if s.mode == Linear {
		shown["start"], shown["end"] = "", ""
		if len(before) > 0 {
			shown["start"] = s.token(position{before[0].depth, before[0].pos})
		}
		if len(after) > 0 {
			last := after[len(after)-1]
			shown["end"] = s.token(position{last.depth, last.pos})
		}
		return
	}
	first, last := position{evt.depth - 1, evt.pos}, evt
	if len(before) > 0 {
		first = position{before[0].depth, before[0].pos - 1}
	}
	if len(after) > 0 {
		last = after[len(after)-1]
	}
	shown["start"], shown["end"] = s.token(first), s.token(position{last.depth, last.pos})
}

// stateAround is the room's state as far as the filter lets it through.
func (s *Server) stateAround(r *request, at *room, wanted eventFilter) []object {
	shown := []object{}
	if !wanted.wantsRoom(at.id) {
		return shown
	}
	for _, evt := range at.current.sorted() {
		if wanted.wants(evt) && !(wanted.LazyMembers && evt.Type == "m.room.member") {
			shown = append(shown, evt.show(s, r.device, inList))
		}
	}
	return shown
}
