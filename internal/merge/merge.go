package merge

import (
	"maps"
	"math"
	"slices"

	"maunium.net/go/mautrix/id"
)

// Merged is what a history makes of the dict.
type Merged struct {
	Dict    map[string]string // not to be changed
	Parents []id.EventID      // the heads
	Yields  Yields            // see [Event]
}

// Merge merges all heads by name. Where several changed a name in events that have not seen one another, the changes
// form a tree. At each fork counts the branch with the latest change that was not conditional. Where all were, it is
// the branch that the homeserver began to store first, because its writer may have been told that it was alone; the
// others compute again. See [History.Unplaced].
func (h *History) Merge() Merged { return h.MergeFirst(math.MaxInt) }

// MergeFirst is Merge of the first heads only, at most so many.
func (h *History) MergeFirst(most int) Merged {
	h.link()
	if n := h.sole(); n != nil {
		return Merged{Dict: n.Dict, Parents: []id.EventID{n.ID}}
	}
	heads := h.heads[:min(most, len(h.heads))]
	return h.mergeOf(heads, h.latestWithout(heads, func(n *node) bool { return n.dropped }), h.named(heads, most), h.latest)
}

// mergeOf merges the latest events, as all of those make them count. Whoever sends that names these as its parents.
func (h *History) mergeOf(heads, latest, named, all []*node) Merged {
	merged := h.merge(latest, h.voids(all))
	h.leaveOut(&merged, heads, latest)
	merged.Parents = idsOf(named)
	return merged
}

// leaveOut records which conditional changes a merge of these heads leaves out, because only the latest are merged. Its parents do not tell.
func (h *History) leaveOut(merged *Merged, heads, latest []*node) {
	in := newBitset(len(h.order))
	for _, n := range latest {
		in.add(n.index)
		in.addAll(n.past)
	}
	for _, n := range h.order {
		if in.has(n.index) || !n.Conditional || !leads(heads, n) {
			continue
		}
		if n.Atomic {
			merged.yieldWhole(n.ID)
			continue
		}
		for name := range h.names(n) {
			if o := h.at(n, name); o != nil && o.from == n {
				merged.yield(n.ID, name)
			}
		}
		slices.Sort(merged.Yields[n.ID])
	}
}

// yield notes that what the event did to the name does not count.
func (m *Merged) yield(event id.EventID, name string) {
	if m.Yields == nil {
		m.Yields = Yields{}
	}
	if !m.Yields.has(event, name) {
		m.Yields[event] = append(m.Yields[event], name)
	}
}

// yieldWhole notes that nothing of what the event did counts.
func (m *Merged) yieldWhole(event id.EventID) {
	if m.Yields == nil {
		m.Yields = Yields{}
	}
	m.Yields[event] = []string{}
}

// named are the heads that a merge names: with one that was redacted, of which only a guess tells what its writer had merged, that guess, as
// far as there is room.
func (h *History) named(heads []*node, most int) []*node {
	named := slices.Clone(heads)
	for _, head := range heads {
		if !head.Redacted || head.own() {
			continue
		}
		for _, n := range head.parents {
			if len(named) < most && !slices.Contains(named, n) {
				named = append(named, n)
			}
		}
	}
	return named
}

// MergeWithout is Merge of what is there without these events, which are all its parents' all the same. It is not ok where others have
// gone on from them.
func (h *History) MergeWithout(events []id.EventID) (merged Merged, ok bool) {
	h.link()
	latest := h.latestWithout(h.heads, func(n *node) bool { return n.dropped || slices.Contains(events, n.ID) })
	for _, n := range latest {
		if slices.ContainsFunc(events, func(event id.EventID) bool { return h.Descends(n.ID, event) }) {
			return Merged{}, false
		}
	}
	return h.mergeOf(h.heads, latest, h.heads, latest), true
}

// idsOf are the IDs of the events, in compare's order.
func idsOf(nodes []*node) (ids []id.EventID) {
	for _, n := range slices.SortedFunc(slices.Values(nodes), compare) {
		ids = append(ids, n.ID)
	}
	return ids
}

func (h *History) merge(heads []*node, v *voids) (merged Merged) {
	heads = slices.SortedFunc(slices.Values(heads), compare)
	switch {
	case len(heads) == 0:
		return merged
	case len(heads) == 1 && !heads[0].noChange:
		merged.Dict = heads[0].Dict
		return merged
	}
	dict, rules := h.propose(heads, v)
	for _, n := range v.unrecorded(heads) {
		merged.yieldWhole(n.ID)
	}
	merged.Dict = map[string]string{}
	for name, o := range dict {
		if o.present {
			merged.Dict[name] = o.value
		}
	}
	for _, name := range slices.Sorted(maps.Keys(rules)) {
		for _, event := range rules[name].lost {
			merged.yield(event, name)
		}
	}
	return merged
}

// propose merges the heads, by a rule for each name.
func (h *History) propose(heads []*node, v *voids) (map[string]*origin, map[string]*rule) {
	dict, rules := map[string]*origin{}, map[string]*rule{}
	for name := range h.names(heads...) {
		rules[name] = h.proposal(heads, name, v)
		if o := h.combine(heads, name, func() *rule { return rules[name] }); o != nil {
			dict[name] = o
		}
	}
	return dict, rules
}

// names are those that these events or any before them have.
func (h *History) names(events ...*node) map[string]bool {
	names := map[string]bool{}
	for _, n := range h.order {
		if leads(events, n) {
			for name := range n.Dict {
				names[name] = true
			}
		}
	}
	return names
}

// ParentGivenUp tells whether the parents of an event were given up: what it changed cannot be told from what was there.
func (h *History) ParentGivenUp(event id.EventID) bool {
	h.link()
	n := h.events[event]
	return n != nil && n.parentGivenUp
}

// Line is the head from which Merge takes the name.
func (h *History) Line(name string) id.EventID {
	h.link()
	if len(h.latest) == 0 {
		return ""
	}
	_, chosen, _ := h.present(name)
	return chosen.parent.ID
}

// present is what the name holds once the heads are merged, and the lines between which the rule chose. There are none where the name has never
// been there.
func (h *History) present(name string) (lines []line, chosen line, r *rule) {
	r = h.proposal(h.latest, name, h.voids(h.latest))
	if lines = h.undominated(h.latest, name, r); len(lines) == 0 {
		return nil, line{parent: h.latest[0]}, r
	}
	return lines, r.choose(lines), r
}

// WillCount tells whether what the event did to the name counts, or will once the heads are merged. That is so where it is in what is
// there, and where something else has taken its place that need not have seen it.
func (h *History) WillCount(event id.EventID, name string) bool {
	h.link()
	target := h.original(h.events[event])
	if target == nil || len(h.latest) == 0 {
		return false
	}
	if target.whole() {
		return h.countsWhole(target, h.latest)
	}
	lines, chosen, r := h.present(name)
	switch {
	case slices.Contains(r.lost, target.ID):
		return false
	case overwritten(name, lines, chosen, target):
		return !r.yielded(target)
	}
	return h.counts(target, name, chosen.parent, r.yielded(target))
}

// LosesToOlder tells whether a change that was not conditional does not count against another such one that was stored long before it: the
// homeserver's clock was set back in between. Its writer makes it again.
func (h *History) LosesToOlder(event id.EventID, name string) bool {
	h.link()
	if n := h.sole(); n != nil && n.ID == event {
		return false
	}
	n := h.original(h.events[event])
	if n == nil || len(h.latest) == 0 {
		return false
	}
	lines, line, _ := h.present(name)
	if len(lines) == 0 {
		return false
	}
	chosen := pathsOf(line)[0]
	last := chosen.latestPut(name, 0)
	return last != nil && last.Time-n.Time > sameTime && stored(last, n) && !n.past.has(last.index) && !slices.Contains(chosen.changes, n)
}

// overwritten tells whether the chosen line has taken the place of one that leads to the change.
func overwritten(name string, lines []line, chosen line, change *node) bool {
	by := pathsOf(chosen)[0]
	return slices.ContainsFunc(pathsOf(lines...), func(p path) bool { return by.overwrites(name, p, change) })
}

// Origin is the event that gave the name its present value at the event, or took it away, as far as the history tells.
// It is empty where the name has not been there.
func (h *History) Origin(event id.EventID, name string) id.EventID {
	h.link()
	n := h.events[event]
	if n == nil {
		return ""
	}
	if o := h.at(n, name); o != nil {
		return o.from.ID
	}
	return ""
}

// Counts tells whether what the event did to the name counts in the other, which descends from it: whether each event
// in between, where it had to choose, chose a line that leads back to it or took its place, and did not have its writer compute again.
func (h *History) Counts(event id.EventID, name string, in id.EventID) bool {
	h.link()
	target := h.original(h.events[event])
	if target != nil && target.whole() && h.events[in] != nil {
		return h.countsWhole(target, []*node{h.events[in]})
	}
	n := h.events[in]
	return target != nil && h.counts(target, name, n, n != nil && slices.ContainsFunc(h.order, func(m *node) bool { return n.past.has(m.index) && m.Yields.has(target.ID, name) }))
}

// counts is [History.Counts], where it is known whether a merge has found that the change does not count. That holds unless the change is in what is there:
// then another merge has found that it does.
func (h *History) counts(target *node, name string, in *node, yielded bool) bool {
	replaced := false // whether something has taken its place that need not have seen it
	for n := in; n != nil; {
		if n == target {
			return !replaced || !yielded
		}
		if o := h.at(n, name); o != nil && o.from == n && !n.IsConditional(name) {
			replaced = true
		}
		if n.Yields.has(target.ID, name) {
			return false
		}
		if len(n.parents) == 0 {
			return false
		}
		rule := h.decision(n, name)
		if n.Blind { // its writer has not chosen
			rule = h.proposal(n.parents, name, h.voids(n.parents))
		}
		lines := h.undominated(n.parents, name, rule)
		if len(lines) == 0 {
			n = n.parents[0]
			continue
		}
		chosen := rule.choose(lines)
		if slices.Contains(rule.lost, target.ID) {
			return false
		}
		if overwritten(name, lines, chosen, target) {
			return !yielded
		}
		n = chosen.parent
	}
	return false
}

// proposal is the rule for a merge that is to be made.
func (h *History) proposal(heads []*node, name string, v *voids) *rule {
	r := &rule{name: name, void: v.nodes, recorders: v.recorders, propose: true, unplaced: map[*node]bool{}}
	for _, m := range h.order {
		if len(m.Yields) > 0 && leads(heads, m) {
			r.choices = append(r.choices, m)
		}
	}
	return r
}
