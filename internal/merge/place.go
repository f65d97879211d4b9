package merge

import (
	"slices"

	"maunium.net/go/mautrix/id"
)

// Unplaced are events for which Merge would have to know where the homeserver has stored them, because that decides
// which of them counts. Own is the event that the caller sent last. Place gives the answers, and can bring up others.
//
// There are none but where several writers changed something at the same time.
func (h *History) Unplaced(own id.EventID) []id.EventID {
	h.link()
	if n := h.sole(); n != nil && (own == "" || own == n.ID) {
		return nil
	}
	marks := map[string]bool{}
	if n := h.events[own]; n != nil && h.mergedByTwin(n) {
		marks[n.Mark] = true
	}
	asked := map[*node]bool{}
	if len(h.heads) > 1 {
		v := h.voids(h.latest)
		_, rules := h.propose(h.latest, v)
		ask := func(unplaced map[*node]bool) {
			for n := range unplaced {
				asked[n] = true
				marks[n.Mark] = marks[n.Mark] || n.own() // what was sent twice is where it was first
			}
		}
		ask(v.unplaced)
		for _, rule := range rules {
			ask(rule.unplaced)
		}
	}
	var unplaced []id.EventID
	for _, n := range h.order {
		if !n.placeAsked && (n.own() && marks[n.Mark] || asked[n]) {
			unplaced = append(unplaced, n.ID)
		}
	}
	return unplaced
}

// Unordered are the heads whose writers had read nothing, and what is taken for the event before, where each can have been stored before the
// other: Dendrite does not tell what such a head replaced, and lists events of one depth, which were sent at the same time, in any order.
// Place gives the answers.
func (h *History) Unordered() (events []id.EventID) {
	h.link()
	for _, n := range h.heads {
		b := n.before
		if n.Marked || n.Partial || n.Replaces != "" || b == nil || max(n.Time-b.Time, b.Time-n.Time) >= sameTime {
			continue
		}
		for _, n := range []*node{n, b} {
			if !n.placeAsked {
				events = append(events, n.ID)
			}
		}
	}
	return events
}

// mergedByTwin tells whether nobody has merged the event, and only another one with its mark makes that no head: if that was
// stored before, it has to be merged, for it can have become current.
func (h *History) mergedByTwin(n *node) bool {
	twin := false
	for _, child := range h.order {
		if slices.Contains(child.parents, n) {
			if !child.own() || child.Mark != n.Mark {
				return false
			}
			twin = true
		}
	}
	return twin
}

// Place notes where the homeserver has stored the event, or that it does not tell, where known is not true. Of two events
// the one with the smaller place was stored first. Without it the order of lists counts, which is nearly always the
// same.
func (h *History) Place(event id.EventID, place int64, known bool) {
	n := h.events[event]
	if n == nil {
		return
	}
	n.placeAsked = true
	if known {
		n.place = &place
		h.linked = false // which of two that are one request was first
	}
}
