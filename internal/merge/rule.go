package merge

import (
	"slices"

	"maunium.net/go/mautrix/id"
)

// rule says which of several changes of a name counts that have not seen one another.
type rule struct {
	name   string
	yields map[id.EventID]bool // those that count after all others, by what the merge has recorded
	void   map[*node]bool      // those that do not count in any name
	// By such an event, those that have recorded it. What goes on from one of them is what its writer has made of it.
	recorders map[*node][]*node

	// Of a merge that is yet to be made: the merges before it that had to choose.
	propose bool
	choices []*node

	lost     []id.EventID   // those that did not count and whose writers could not have told
	unplaced map[*node]bool // those whose place decides, for which nobody has asked yet
}

// path is a line with all changes that led to it.
type path struct {
	line
	changes []*node
}

func pathsOf(lines ...line) (paths []path) {
	for _, l := range lines {
		p := path{line: l}
		for o := l.origin; o != nil; o = o.before {
			p.changes = append(p.changes, o.from)
		}
		slices.Reverse(p.changes)
		paths = append(paths, p)
	}
	return paths
}

// choose picks one of the lines.
func (r *rule) choose(lines []line) line {
	if len(lines) == 1 {
		return lines[0]
	}
	// What nobody knows the parents of may just have been there.
	if known := only(lines, func(l line) bool { return !l.from.parentGivenUp }); len(known) > 0 {
		lines = known
	}
	lines = withoutDoubles(lines, r.name)
	all := pathsOf(lines...)
	paths := all
	for i := shared(all); len(paths) > 1; i++ {
		longer := only(paths, func(p path) bool { return len(p.changes) > i })
		if len(longer) == 0 {
			break // they are one change
		}
		paths = r.atFork(longer, i)
	}
	if r.propose {
		r.lose(all, paths[0])
	}
	return paths[0].line
}

// shared is how many changes the paths begin with that are the same, which is most of them in a long history.
func shared(paths []path) (n int) {
	for ; ; n++ {
		for _, p := range paths {
			if n >= len(p.changes) || p.changes[n] != paths[0].changes[n] {
				return n
			}
		}
	}
}

// withoutDoubles leaves, where all lines end where the name's time was over, one of those that took the same away. Two that took away different
// values are rivals, of which the one counts that leads on from the latest change. Beside another line each counts by itself, for whoever sees some of
// them alone must find the same.
func withoutDoubles(lines []line, name string) (those []line) {
	if slices.ContainsFunc(lines, func(l line) bool { return !l.from.sweeps(name) }) {
		return lines
	}
	for _, l := range slices.SortedFunc(slices.Values(lines), func(a, b line) int { return compare(a.from, b.from) }) {
		if !slices.ContainsFunc(those, func(other line) bool { return other.before == l.before }) {
			those = append(those, l)
		}
	}
	return those
}

// atFork gives the paths that go on with the same change as the one that counts.
func (r *rule) atFork(paths []path, i int) []path {
	best := paths[0]
	for _, p := range paths[1:] {
		a, b := best.latestPut(r.name, i), p.latestPut(r.name, i)
		switch {
		case a == nil && b == nil:
			if r.before(p.changes[i], best.changes[i]) {
				best = p
			}
		case a == nil || b != nil && compare(b, a) > 0:
			best = p
		}
	}
	return only(paths, func(p path) bool { return p.changes[i] == best.changes[i] })
}

// only are those for which it is true.
func only[T any](all []T, f func(T) bool) (those []T) {
	for _, one := range all {
		if f(one) {
			those = append(those, one)
		}
	}
	return those
}

// lose notes which conditional changes do not count: those that have not seen a change which was stored before them, and what was computed
// from them. Their writers compute again. The others do count, also where a change that was stored after them takes their place: that is as
// if it had been made later. What is in the value that was chosen counts in any case.
func (r *rule) lose(paths []path, chosen path) {
	lost := map[*node]bool{}
	for _, p := range paths {
		for j, n := range p.changes {
			in := slices.Index(chosen.changes, n)
			if !n.IsConditional(r.name) || n.whole() || in >= 0 && !slices.ContainsFunc(chosen.changes[in:], func(m *node) bool { return !m.IsConditional(r.name) }) {
				continue
			}
			if j > 0 && lost[p.changes[j-1]] || r.yielded(n) || slices.ContainsFunc(paths, func(q path) bool { return r.misses(p, j, q) }) {
				lost[n] = true
			}
		}
	}
	for n := range lost {
		r.lost = append(r.lost, n.ID)
	}
	slices.Sort(r.lost)
}

// counting is how the name got to what it is at an event, without what is void, and without what was computed from that, which is lost.
func (r *rule) counting(o *origin, event *node) *origin {
	if len(r.void) == 0 {
		return o
	}
	var computed []*node
	for at := o; at != nil; at = at.before {
		switch {
		case r.void[at.from] && !slices.ContainsFunc(r.recorders[at.from], event.descends):
			o = at.before
			for _, n := range computed {
				if !slices.Contains(r.lost, n.ID) {
					r.lost = append(r.lost, n.ID)
				}
			}
			computed = nil
		case !at.from.IsConditional(r.name):
			return o
		default:
			computed = append(computed, at.from)
		}
	}
	return o
}

// yielded tells whether a merge before this one found that the change does not count. A line that has not seen that merge can go on from it.
func (r *rule) yielded(n *node) bool {
	return slices.ContainsFunc(r.choices, func(m *node) bool { return m.Yields.has(n.ID, r.name) })
}

// misses tells whether the path's change there has not seen one of the other path's that was stored before it.
func (r *rule) misses(p path, j int, q path) bool {
	n := p.changes[j]
	fork := 0
	for fork < len(p.changes) && fork < len(q.changes) && p.changes[fork] == q.changes[fork] {
		fork++
	}
	if fork > j || fork == len(q.changes) {
		return false
	}
	if rival := q.changes[fork]; fork == j && rival.IsConditional(r.name) && r.before(rival, n) {
		return true
	}
	return slices.ContainsFunc(q.changes[fork:], func(m *node) bool {
		return !m.IsConditional(r.name) && r.stored(m, n) &&
			!slices.ContainsFunc(p.changes[fork:j], func(own *node) bool { return !own.IsConditional(r.name) && r.stored(m, own) })
	})
}

// overwrites tells whether the path takes the place of another one, by a change that was not conditional, that leads to the change.
func (p path) overwrites(name string, other path, change *node) bool {
	return slices.Contains(other.changes, change) && !slices.Contains(p.changes, change) &&
		slices.ContainsFunc(p.changes, func(n *node) bool { return !n.IsConditional(name) && !slices.Contains(other.changes, n) })
}

// latestPut is the latest change from there on that was not conditional.
func (p path) latestPut(name string, from int) (latest *node) {
	for _, n := range p.changes[from:] {
		if !n.IsConditional(name) && (latest == nil || compare(n, latest) > 0) {
			latest = n
		}
	}
	return latest
}

// before is the order of conditional changes: that in which the homeserver stored them. Whoever has looked back since
// its change was stored, and saw no other, may have been told that its change stands. So it is with merges that have
// chosen between two: the one counts that was stored first.
func (r *rule) before(a, b *node) bool {
	yieldsA, yieldsB := r.yields[a.ID], r.yields[b.ID]
	switch {
	case yieldsA != yieldsB:
		return yieldsB
	case yieldsA || !r.propose:
		return compare(a, b) < 0
	}
	var chose []*node
	for _, m := range r.choices {
		if m.Yields.has(a.ID, r.name) != m.Yields.has(b.ID, r.name) && m.past.has(a.index) && m.past.has(b.index) {
			chose = append(chose, m)
		}
	}
	choseA := func(m *node) bool { return m.Yields.has(b.ID, r.name) }
	if len(chose) == 0 {
		return r.stored(a, b)
	}
	first := chose[0]
	if slices.ContainsFunc(chose, func(m *node) bool { return choseA(m) != choseA(first) }) {
		for _, m := range chose[1:] {
			if r.stored(m, first) {
				first = m
			}
		}
	}
	return choseA(first)
}

// stored tells whether a was stored before b, and notes what would have to be known for that.
func (r *rule) stored(a, b *node) bool {
	for _, n := range []*node{a, b} {
		if !n.placeAsked && a != b {
			r.unplaced[n] = true
		}
	}
	return stored(a, b)
}
