package merge

import (
	"slices"

	"maunium.net/go/mautrix/id"
)

// rule says which of several changes counts that have not seen one another.
type rule struct {
	yields map[id.EventID]bool // those that count after all others, by what merges before have recorded

	// Of a merge that is yet to be made: what this one adds to them, and whether it is to add more.
	chosen  map[*node]bool
	propose bool
}

// decision is the rule of a merge that was made: what it and those before it recorded, and else what is the same
// everywhere.
func (h *History) decision(n *node) *rule {
	if len(n.parents) < 2 {
		return nil
	}
	return &rule{yields: h.yielded([]*node{n})}
}

// proposal is the rule for a merge that is to be made.
func (h *History) proposal(heads []*node, own []id.EventID) *rule {
	yields := h.yielded(heads)
	for _, event := range own {
		yields[event] = true
	}
	r := &rule{yields: yields, chosen: map[*node]bool{}, propose: true}
	return r
}

// yielded are the events that any of the nodes or of those before them has recorded as such.
func (h *History) yielded(nodes []*node) map[id.EventID]bool {
	yields := map[id.EventID]bool{}
	for _, m := range h.order {
		if len(m.Yields) > 0 && slices.ContainsFunc(nodes, func(n *node) bool { return n == m || n.past.has(m.index) }) {
			for _, event := range m.Yields {
				yields[event] = true
			}
		}
	}
	return yields
}

// path is a line with all changes that led to it.
type path struct {
	line
	changes []*node
}

// choose picks one of the lines.
func (r *rule) choose(lines []line) line {
	if len(lines) == 1 {
		return lines[0]
	}
	if slices.ContainsFunc(lines, func(l line) bool { return !l.from.adrift }) {
		// What nobody knows the parents of may just have been there.
		lines = slices.DeleteFunc(slices.Clone(lines), func(l line) bool { return l.from.adrift })
	}
	var paths []path
	for _, l := range lines {
		p := path{line: l}
		for o := &l.origin; o != nil; o = o.before {
			p.changes = append(p.changes, o.from)
		}
		slices.Reverse(p.changes)
		paths = append(paths, p)
	}
	for i := 0; len(paths) > 1; i++ {
		longer := slices.DeleteFunc(slices.Clone(paths), func(p path) bool { return len(p.changes) <= i })
		if len(longer) == 0 {
			break // they are one change
		}
		paths = r.atFork(longer, i)
	}
	return paths[0].line
}

// atFork gives the paths that go on with the same change as the one that counts.
func (r *rule) atFork(paths []path, i int) []path {
	best := paths[0]
	for _, p := range paths[1:] {
		a, b := best.latestPut(i), p.latestPut(i)
		switch {
		case a == nil && b == nil:
			if r.before(p.changes[i], best.changes[i]) {
				best = p
			}
		case a == nil || b != nil && compare(b, a) > 0:
			best = p
		}
	}
	counts := func(p path) bool { return p.changes[i] == best.changes[i] }
	if r.propose && best.latestPut(i) == nil {
		for _, p := range paths {
			if !counts(p) {
				r.chosen[p.changes[i]] = true
			}
		}
	}
	return slices.DeleteFunc(paths, func(p path) bool { return !counts(p) })
}

// latestPut is the latest change from there on that was not conditional.
func (p path) latestPut(from int) (latest *node) {
	for _, n := range p.changes[from:] {
		if !n.Conditional && (latest == nil || compare(n, latest) > 0) {
			latest = n
		}
	}
	return latest
}

// before is the order of conditional changes.
func (r *rule) before(a, b *node) bool {
	yieldsA, yieldsB := r.yields[a.ID] || r.chosen[a], r.yields[b.ID] || r.chosen[b]
	switch {
	case yieldsA != yieldsB:
		return yieldsB
	case yieldsA || !r.propose:
		return compare(a, b) < 0
	default:
		return a.seq < b.seq
	}
}
