package fakehs

import (
	"cmp"
	"encoding/json"
	"fmt"
	"math"
	"net/http"
	"regexp"
	"slices"
	"strconv"
)

const (
	defaultPage = 10
	mostInPage  = 100 // what a request may ask for on Dendrite, and 1000 on Synapse
)

// position is between two events in the order of lists, right after one with these.
type position struct{ depth, pos int64 }

var (
	end   = position{math.MaxInt64, math.MaxInt64}
	start = position{}
)

func (p position) compare(evt *pdu) int {
	return cmp.Or(cmp.Compare(p.depth, evt.depth), cmp.Compare(p.pos, evt.pos))
}

// isAfter tells whether the event comes before the position. A position of a sync says where events were stored, and not their depth.
func (p position) isAfter(evt *pdu) bool {
	if p.depth == math.MaxInt64 {
		return evt.pos <= p.pos
	}
	return p.compare(evt) >= 0
}

// token is how a server writes a position.
func (s *Server) token(p position) string {
	if s.mode == Forking {
		return fmt.Sprintf("t%d-%d_0_0_0_0_0_0_0_0_0", p.depth, p.pos)
	}
	return fmt.Sprintf("t%d_%d", p.depth, p.pos)
}

var (
	depthToken = regexp.MustCompile(`^t(\d+)[-_](\d+)(?:_.*)?$`)
	syncToken  = regexp.MustCompile(`^s(\d+)(?:_.*)?$`)
)

// positionOf reads a token of a list or a sync.
func positionOf(token string) (position, error) {
	if found := depthToken.FindStringSubmatch(token); found != nil {
		depth, err1 := strconv.ParseInt(found[1], 10, 64)
		pos, err2 := strconv.ParseInt(found[2], 10, 64)
		if err1 == nil && err2 == nil {
			return position{depth, pos}, nil
		}
	}
	if found := syncToken.FindStringSubmatch(token); found != nil {
		if pos, err := strconv.ParseInt(found[1], 10, 64); err == nil {
			return position{math.MaxInt64, pos}, nil
		}
	}
	return position{}, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "the token %q is malformed", token)
}

// listing is what the user sees of the room's events, by depth and then in the order in which they were stored.
func (s *Server) listing(at *room, r *request) []*pdu {
	var listed []*pdu
	for _, evt := range at.log {
		if s.isListed(evt) && evt.isSeenBy(r.device.user.id) {
			listed = append(listed, evt)
		}
	}
	slices.SortStableFunc(listed, func(a, b *pdu) int { return cmp.Compare(a.depth, b.depth) })
	return listed
}

func (s *Server) messages(r *request) (any, error) {
	at, known := s.rooms[r.room()]
	if !known || at.current.membership(r.device.user.id) == "" {
		if known && s.mode == Linear {
			return object{"start": s.token(end), "chunk": []object{}}, nil
		}
		return nil, forbid("User %s not in room %s, and room previews are disabled", r.device.user.id, r.room())
	}
	var wanted eventFilter
	if text := r.query.Get("filter"); text != "" {
		if err := json.Unmarshal([]byte(text), &wanted); err != nil {
			return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "the filter cannot be read: %v", err)
		}
	}
	backward := r.query.Get("dir") != "f"
	from := end
	switch token := r.query.Get("from"); {
	case token != "":
		var err error
		if from, err = positionOf(token); err != nil {
			return nil, err
		}
	case !backward && s.mode == Linear:
		return nil, refuse(http.StatusBadRequest, "M_INVALID_PARAM", "Invalid from parameter: malformed sync token")
	case !backward:
		from = start
	case s.mode == Forking && len(at.log) > 0:
		from = position{at.deepest(), at.log[len(at.log)-1].pos}
	}
	listed := s.listing(at, r)
	if s.mode == Linear {
		from = nearest(listed, from, backward)
	}
	if token := r.query.Get("to"); token != "" {
		to, err := positionOf(token)
		if err != nil {
			return nil, err
		}
		if s.mode == Linear && !backward {
			to = nearest(listed, to, true)
			to.pos = math.MaxInt64 // of one depth it has all
		}
		listed = slices.DeleteFunc(listed, func(evt *pdu) bool { return to.isAfter(evt) == backward })
	}
	if backward {
		slices.Reverse(listed)
	}
	if s.mode == Linear {
		return s.linearPage(r, listed, from, backward, wanted), nil
	}
	return s.forkingPage(r, listed, from, backward, wanted), nil
}

// nearest is the position in a list that Dendrite takes for one of a sync: that of the last event before it, or of the first event from it on where the
// list goes forward. A list that goes forward leaves out events of the depth from which it begins, so that it has not the first event after a position of a
// sync unless the event at that position is in this room (StreamToTopologicalPosition and SelectEventIDsInRange in Dendrite's syncapi).
func nearest(listed []*pdu, p position, backward bool) position {
	if p.depth != math.MaxInt64 || p.pos == math.MaxInt64 {
		return p
	}
	if backward {
		depth := int64(0)
		for _, evt := range listed {
			if evt.pos <= p.pos {
				depth = max(depth, evt.depth)
			}
		}
		return position{depth, p.pos}
	}
	for _, evt := range listed {
		if evt.pos >= p.pos {
			return position{evt.depth, p.pos}
		}
	}
	return end
}

// deepest is the greatest depth of the room's events. The one that was stored last can have a smaller one.
func (r *room) deepest() (depth int64) {
	for _, evt := range r.log {
		depth = max(depth, evt.depth)
	}
	return depth
}

// limitOf is how many events a page has at most.
func (s *Server) limitOf(r *request, wanted eventFilter) int {
	limit := min(max(1, r.number("limit", defaultPage)), mostInPage)
	if s.mode == Forking {
		limit = min(max(1, r.number("limit", defaultPage)), 10*mostInPage)
	} else if wanted.Limit != nil {
		limit = *wanted.Limit
	}
	return limit
}

// forkingPage is as Synapse has it: the limit is of the events that the filter lets through, and the end is told unless there is nothing.
func (s *Server) forkingPage(r *request, listed []*pdu, from position, backward bool, wanted eventFilter) object {
	limit := s.limitOf(r, wanted)
	chunk, at := []object{}, from
	for _, evt := range listed {
		if len(chunk) == limit {
			break
		}
		if from.isAfter(evt) != backward || !wanted.wants(evt) {
			continue
		}
		chunk = append(chunk, evt.show(s, r.device, inList))
		at = position{evt.depth, evt.pos}
		if backward {
			at.pos--
		}
	}
	page := object{"start": s.token(from), "chunk": chunk}
	if len(chunk) > 0 {
		page["end"] = s.token(at)
	}
	return page
}

// linearPage is as Dendrite has it: the limit is of all events, and the end is not told where the filter lets none of these through. Events
// of one depth are not in their order, and a page that ends among them leaves the others out of the next one.
func (s *Server) linearPage(r *request, listed []*pdu, from position, backward bool, wanted eventFilter) object {
	limit := s.limitOf(r, wanted)
	var page []*pdu
	for _, evt := range listed {
		if len(page) == limit {
			break
		}
		if backward && !from.isAfter(evt) || !backward && evt.depth <= from.depth {
			continue
		}
		page = append(page, evt)
	}
	shown := object{"start": s.token(from), "chunk": []object{}}
	if len(page) == 0 && backward && len(listed) > 0 {
		if first := listed[len(listed)-1]; first == first.room.create && wanted.wants(first) { // Dendrite has it once more
			shown["chunk"] = []object{first.show(s, r.device, inList)}
		}
	}
	if len(page) == 0 {
		return shown
	}
	last := page[len(page)-1]
	at := before(last) // also forward, so that the next page has the event again
	slices.SortStableFunc(page, func(a, b *pdu) int {
		order := cmp.Compare(a.depth, b.depth)
		if backward {
			order = -order
		}
		return cmp.Or(order, s.shuffle(a, b, backward))
	})
	chunk := []object{}
	for _, evt := range page {
		if wanted.wants(evt) {
			chunk = append(chunk, evt.show(s, r.device, inList))
		}
	}
	if shown["chunk"] = chunk; len(chunk) > 0 {
		shown["end"] = s.token(at)
	}
	return shown
}

// before is the position that Dendrite has for what comes before an event (TopologyToken.Decrement in its syncapi/types).
func before(evt *pdu) position {
	if evt.depth <= 1 {
		return position{1, evt.pos - 1}
	}
	return position{evt.depth - 1, evt.pos + 1000}
}

// shuffle is the order of two events of one depth within a page of Dendrite: the wrong way round.
func (s *Server) shuffle(a, b *pdu, backward bool) int {
	if backward {
		return cmp.Compare(a.pos, b.pos)
	}
	return cmp.Compare(b.pos, a.pos)
}
