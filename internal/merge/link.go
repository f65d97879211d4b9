package merge

import (
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"
)

// link finds each event's parents, the order, the heads and the ancestors.
func (h *History) link() {
	if h.linked {
		return
	}
	h.linked = true
	h.origins, h.void, h.atomic = nil, nil, false
	if len(h.events) == 0 {
		h.order, h.heads, h.latest = nil, nil, nil
		return
	}
	nodes := slices.SortedFunc(maps.Values(h.events), compare)
	byMark := map[string][]*node{}
	for _, n := range nodes {
		if n.Mark != "" {
			byMark[n.Mark] = append(byMark[n.Mark], n)
		}
	}
	listed := slices.SortedFunc(slices.Values(nodes), func(a, b *node) int { return a.seq - b.seq })
	for i := range listed { // what is known to be stored in another order
		for k := i; k > 0 && stored(listed[k], listed[k-1]); k-- {
			listed[k], listed[k-1] = listed[k-1], listed[k]
		}
	}
	listed[0].before = nil
	for i, n := range listed[1:] {
		n.before = listed[i]
	}
	for _, n := range nodes {
		n.twin = twin(n, byMark[n.Mark])
	}
	for _, n := range nodes {
		h.atomic = h.atomic || n.Atomic
		n.parents, n.missing, n.parentGivenUp, n.walk = nil, nil, false, 0
		for _, parent := range h.parentsOf(n, byMark) {
			switch p := h.events[parent]; {
			case p == n || slices.Contains(n.parents, p) && p != nil:
			case p != nil:
				n.parents = append(n.parents, p)
			case n.prunedParent:
			case h.givenUp[parent]:
				n.parentGivenUp = true
			default:
				n.missing = append(n.missing, parent)
			}
		}
	}
	h.linkRedacted(listed)
	h.order = h.order[:0]
	for _, n := range nodes {
		h.visit(n)
	}
	merged := newBitset(len(h.order))
	for i, n := range h.order {
		n.index = i
		n.past = newBitset(len(h.order))
		for _, parent := range n.parents {
			n.past.add(parent.index)
			n.past.addAll(parent.past)
		}
		merged.addAll(n.past)
	}
	h.heads = only(h.order, func(n *node) bool { return !merged.has(n.index) })
	slices.SortFunc(h.heads, func(a, b *node) int { return a.seq - b.seq })
	h.latest = h.latestWithout(h.heads, func(n *node) bool { return n.dropped })
	h.redact()
	h.record()
}

// record notes which events have recorded that nothing of another one counts.
func (h *History) record() {
	for _, n := range h.order {
		n.void, n.recorders = nil, nil
	}
	for _, n := range h.order {
		for event := range n.Yields {
			if !n.Yields.whole(event) {
				continue
			}
			if void := h.original(h.events[event]); void != nil && !n.void[void] {
				if n.void == nil {
					n.void = map[*node]bool{}
				}
				n.void[void] = true
				void.recorders = append(void.recorders, n)
			}
		}
	}
}

// redact is about what was redacted. Where that is all there is, nothing is there. Of what others were made from, it is known
// what they changed as long as it is known what it held. For the rest it counts as if it had changed nothing: what it held
// is in what was made from it, or nobody has merged it and it is not to come back.
func (h *History) redact() {
	for _, n := range h.order {
		n.noChange = n.Redacted
		if n.beforeRedaction != nil {
			n.Dict, n.noChange = n.beforeRedaction, false
		}
	}
	for _, n := range h.heads {
		if n.beforeRedaction != nil {
			n.Dict, n.noChange = nil, true
		}
	}
	if len(h.heads) == 1 {
		h.heads[0].noChange = false
	}
}

// visit puts the event into the order after its parents. A parent that is its own descendant, which only a homeserver
// that lies can make, is no parent.
func (h *History) visit(n *node) {
	const visiting, done = 1, 2
	if n.walk != 0 {
		return
	}
	n.walk = visiting
	n.parents = slices.DeleteFunc(n.parents, func(parent *node) bool { return parent.walk == visiting })
	for _, parent := range n.parents {
		h.visit(parent)
	}
	n.walk = done
	h.order = append(h.order, n)
}

// parentsOf tells which events the event's writer had seen, by the first of these that is true. ByMark are the events with each mark, in
// compare's order.
//
//   - What it replaced has the same mark: its writer copies marks, and had read that.
//   - Its content is that of the mark's own event again, but its sender has copied the mark before: it goes back from the latest of these copies. It
//     looks like a second delivery of the mark's own event.
//   - It is a second delivery: it was made from the first one, for the later one can have become current, whatever its time.
//   - It names its parents.
//   - It was redacted before anybody here had read it; see [History.linkRedacted].
//   - It copies a mark: its writer had read the latest event with that mark which was stored before. What it replaced can be a later one, which
//     that writer never saw.
//   - It names nothing: its writer had read what it replaced. Dendrite tells that only for the empty state key, and else leaves it out or names the
//     event of the empty one. But it stores one event after the other, so that the event listed before is the one that was replaced.
func (h *History) parentsOf(n *node, byMark map[string][]*node) []id.EventID {
	replaced, twins := h.replaced(n), byMark[n.Mark]
	if replaced != nil && n.Mark != "" && replaced.Mark == n.Mark && !n.own() {
		return []id.EventID{replaced.ID}
	}
	if n.twin != nil {
		copies := slices.DeleteFunc(slices.Clone(twins), func(twin *node) bool { return twin.own() || twin.Sender != n.Sender })
		if last := lastBefore(n, copies); last != nil {
			return []id.EventID{last.ID}
		}
		return []id.EventID{n.twin.ID}
	}
	if n.Marked {
		return n.Parents
	}
	if n.Redacted && !n.own() {
		return nil
	}
	unknown := id.EventID("unknown, before " + n.ID)
	if !n.own() && n.Mark != "" {
		if last := lastBefore(n, twins); last != nil {
			return []id.EventID{last.ID}
		}
		if !h.givenUp[unknown] {
			return []id.EventID{unknown}
		}
	}
	switch {
	case n.Partial && !h.givenUp[unknown]:
		return []id.EventID{unknown}
	case replaced != nil:
		all := []id.EventID{replaced.ID}
		// Where that is a second delivery, which changes nothing, a writer that had read nothing has also replaced what was current before it.
		for hid := replaced; n.Blind && hid.twin != nil; all = append(all, hid.ID) {
			if hid = h.replaced(hid); hid == nil {
				break
			}
		}
		return all
	case n.Replaces != "":
		return []id.EventID{n.Replaces}
	}
	return nil
}

// lastBefore is the one of these events that was stored last before n, nil where none was.
func lastBefore(n *node, events []*node) (last *node) {
	for _, event := range events {
		if event != n && stored(event, n) && (last == nil || stored(last, event)) {
			last = event
		}
	}
	return last
}

// linkRedacted is for events that were redacted before anybody here had read them: nobody can tell which events their writers had merged, and none is
// to come back that was sent, about, and stored before. So each is made from the latest of these. Listed is the order of storage.
func (h *History) linkRedacted(listed []*node) {
	if !slices.ContainsFunc(listed, func(n *node) bool { return n.Redacted && !n.own() }) {
		return
	}
	var ends []*node // of what was stored so far, which nothing that was stored so far was made from
	for _, n := range listed {
		if n.Redacted && !n.own() {
			replaced := h.events[n.Replaces]
			ends = slices.DeleteFunc(ends, func(end *node) bool {
				had := end.Time <= n.Time+sameTime || end == replaced
				if had {
					n.parents = append(n.parents, end)
				}
				return had
			})
		} else if len(n.parents) > 0 {
			ends = slices.DeleteFunc(ends, func(end *node) bool { return slices.Contains(n.parents, end) })
		}
		ends = append(ends, n)
	}
}

// replaced is the event that was current before, where it is known.
func (h *History) replaced(n *node) *node {
	replaced := h.events[n.Replaces]
	if replaced == nil && !n.Partial && (n.Replaces == "" || h.givenUp[n.Replaces]) && n.before != nil && stored(n.before, n) {
		return n.before
	}
	return replaced
}

// twin is what the same request made first, where the event's mark is its writer's own: the request was delivered twice, or two writers made
// the same merge. It is nil where that is the event itself.
func twin(n *node, marked []*node) *node {
	first := n
	for _, other := range marked {
		if n.own() && other.own() && stored(other, first) {
			first = other
		}
	}
	if first == n {
		return nil
	}
	return first
}

// original is the event that the same request made first, where it was sent twice. Between the two can be copies of
// its mark.
func (h *History) original(n *node) *node {
	first := n
	for n != nil && n.Mark != "" && len(n.parents) == 1 && n.parents[0].Mark == n.Mark {
		if n = n.parents[0]; n.own() {
			first = n
		}
	}
	return first
}
