package merge

import "slices"

// voids finds the atomic events that do not count: a merge has found so, or something else has changed a name on which the event depends, was stored
// before it, and was not seen by its writer. So whoever was told that its event stands keeps that: it has looked back since the event was stored.
func (h *History) voids(heads []*node) *voids {
	if !h.atomic {
		return &voids{}
	}
	if h.void == nil || !slices.Equal(h.void.heads, heads) {
		h.void = h.findVoids(heads)
	}
	return h.void
}

func (h *History) findVoids(heads []*node) *voids {
	v := &voids{heads: slices.Clone(heads), nodes: map[*node]bool{}, recorders: map[*node][]*node{}, judged: map[*node]bool{}, unplaced: map[*node]bool{}}
	v.within = only(h.order, func(n *node) bool { return leads(heads, n) })
	for _, n := range v.within {
		if n.Atomic && n.twin == nil {
			h.judge(n, v)
		}
	}
	return v
}

// judge finds out whether the atomic event counts, once that is known of those before it.
func (h *History) judge(n *node, v *voids) {
	if v.judged[n] {
		return
	}
	v.judged[n] = true
	recorders := only(v.within, func(m *node) bool { return h.recordsVoid(m, n) })
	if len(recorders) == 0 && !h.isOutdated(n, v) {
		return
	}
	v.nodes[n], v.recorders[n] = true, recorders
	if slices.ContainsFunc(v.heads, func(head *node) bool { return head.descends(n) && !slices.ContainsFunc(recorders, head.descends) }) {
		v.unrecorded = append(v.unrecorded, n)
	}
}

// whole tells whether the event counts as a whole. Of one whose parents were given up it is not known what it has changed.
func (n *node) whole() bool { return n.Atomic && !n.parentGivenUp }

// countsWhole tells whether the atomic event counts in what these heads make of the dict: it is there, or something else has taken its place since.
func (h *History) countsWhole(n *node, heads []*node) bool {
	return leads(heads, n) && !h.voids(heads).has(n)
}

// recordsVoid tells whether the merge has recorded that the atomic event does not count.
func (h *History) recordsVoid(merge, n *node) bool {
	for event := range merge.Yields {
		if merge.Yields.whole(event) && h.original(h.events[event]) == n {
			return true
		}
	}
	return false
}

// isOutdated tells whether something that the atomic event depends on is not what its writer has read.
func (h *History) isOutdated(n *node, v *voids) bool {
	for _, m := range v.within {
		if m.Atomic && m.twin == nil && n.past.has(m.index) {
			h.judge(m, v)
		}
	}
	r := &rule{void: v.nodes, recorders: v.recorders}
	depends := h.dependsOn(n)
	for name := range depends {
		read := h.at(n, name)
		if read != nil && read.from == n {
			read = read.before
		}
		if r.counting(read, n) != read {
			return true
		}
	}
	for _, m := range v.within {
		switch {
		case m == n || m.twin != nil || n.descends(m) || m.descends(n) || !h.changes(m, depends, n.ReadsAll):
			continue
		case slices.ContainsFunc(v.within, func(judge *node) bool { return judge.past.has(n.index) && judge.past.has(m.index) }):
			continue // who merged them has found that the event counts
		}
		for _, one := range []*node{n, m} {
			if !one.placeAsked {
				v.unplaced[one] = true
			}
		}
		if !stored(m, n) {
			continue
		}
		if m.Atomic {
			h.judge(m, v)
		}
		if !v.has(m) {
			return true
		}
	}
	return false
}

// dependsOn are the names that the atomic event has changed or read, but for those of ReadsAll: there whatever keeps another event from counting
// keeps this one too.
func (h *History) dependsOn(n *node) map[string]bool {
	names := h.changed(n)
	for _, name := range n.Reads {
		names[name] = true
	}
	return names
}

// changed are the names that the event has changed.
func (h *History) changed(n *node) map[string]bool {
	names := map[string]bool{}
	add := func(name string) {
		if o := h.at(n, name); o != nil && o.from == n {
			names[name] = true
		}
	}
	if len(n.parents) == 0 {
		for name := range n.Dict {
			add(name)
		}
	}
	for _, parent := range n.parents {
		for name, value := range n.Dict {
			if before, there := parent.Dict[name]; !there || before != value {
				add(name)
			}
		}
		for name := range parent.Dict {
			if _, there := n.Dict[name]; !there {
				add(name)
			}
		}
	}
	return names
}

// changes tells whether the event has changed one of the names, or with all any name.
func (h *History) changes(n *node, names map[string]bool, all bool) bool {
	if all {
		names = h.changed(n)
	}
	for name := range names {
		if o := h.at(n, name); o != nil && o.from == n {
			return true
		}
	}
	return false
}
