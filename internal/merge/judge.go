package merge

import "slices"

// voids finds the atomic events that do not count. A merge has recorded so. Or another event has changed a name on which the atomic event depends, was
// stored before the atomic event, and was not seen by its writer. An acknowledged event goes on to count: its writer has looked back since it was stored.
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
		h.judge(n, v)
	}
	return v
}

// judge finds out whether the event counts, once that is known of those before it. Those that are not atomic do here.
func (h *History) judge(n *node, v *voids) {
	if !n.Atomic || n.twin != nil || v.judged[n] {
		return
	}
	v.judged[n] = true
	recorders := only(n.recorders, func(m *node) bool { return leads(v.heads, m) })
	if len(recorders) == 0 && !(n.whole() && h.isOutdated(n, v)) {
		return
	}
	v.nodes[n], v.recorders[n] = true, recorders
}

// unrecorded are those of which a merge of these heads must record that they do not count.
func (v *voids) unrecorded(heads []*node) []*node {
	return only(v.within, func(n *node) bool {
		return v.has(n) && slices.ContainsFunc(heads, func(head *node) bool { return head.descends(n) && !slices.ContainsFunc(v.recorders[n], head.descends) })
	})
}

// whole tells whether the event counts as a whole. Of one whose parents are not known it is not known what it has changed.
func (n *node) whole() bool { return n.Atomic && !n.parentsUnknown() }

func (n *node) parentsUnknown() bool { return n.parentGivenUp || n.prunedParent || len(n.missing) > 0 }

// countsWhole tells whether the atomic event counts in what these heads make of the dict: it is there, or something else has taken its place since.
func (h *History) countsWhole(n *node, heads []*node) bool {
	return leads(heads, n) && !h.voids(heads).has(n)
}

// isOutdated tells whether something that the atomic event depends on is not what its writer has read.
func (h *History) isOutdated(n *node, v *voids) (outdated bool) {
	for _, m := range v.within {
		if n.past.has(m.index) {
			h.judge(m, v)
		}
	}
	depends := map[string]*origin{} // what its writer has read, by name
	for name := range h.dependsOn(n) {
		read := h.at(n, name)
		if read != nil && read.from == n {
			read = read.before
		}
		depends[name] = read
		r := &rule{name: name, void: v.nodes, recorders: v.recorders}
		outdated = outdated || r.counting(read, n) != read
	}
	for _, m := range v.within {
		switch {
		case m == n || m.twin != nil || n.descends(m) || m.descends(n) || !h.conflicts(m, n, depends):
			continue
		case slices.ContainsFunc(v.within, func(judge *node) bool {
			return judge.Marked && judge.past.has(n.index) && judge.past.has(m.index)
		}):
			continue // who merged them has found that the event counts
		}
		for _, one := range []*node{n, m} { // of all, for the answer must not depend on which comes first
			if !one.placeAsked {
				v.unplaced[one] = true
			}
		}
		if stored(m, n) {
			h.judge(m, v)
			outdated = outdated || !v.has(m)
		}
	}
	return outdated
}

// conflicts tells whether the event has changed something on which the atomic one depends. Of an event whose parents are not known the values tell.
func (h *History) conflicts(m, n *node, depends map[string]*origin) bool {
	if m.parentsUnknown() {
		differs := func(name string, read *origin) bool {
			value, there := m.Dict[name]
			was := read != nil && read.present
			return was != there || was && read.value != value
		}
		for name, read := range depends {
			if differs(name, read) {
				return true
			}
		}
		if n.ReadsAll {
			for name := range m.Dict {
				if _, known := depends[name]; !known && differs(name, h.at(n, name)) {
					return true
				}
			}
		}
		return false
	}
	if n.ReadsAll {
		return len(h.changed(m)) > 0
	}
	for name := range depends {
		if o := h.at(m, name); o != nil && o.from == m {
			return true
		}
	}
	return false
}

// dependsOn are the names that the atomic event has changed or read. With ReadsAll the names that it has read are left out: whatever makes an earlier
// event void conflicts with an event that has read all.
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
	from := slices.Clone(n.parents)
	for void := range n.void { // which the parents can hold, and what the event makes of them does not
		from = append(from, void.parents...)
	}
	for _, parent := range from {
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
