package merge

import (
	"slices"

	"maunium.net/go/mautrix/id"
)

// origin is how a name got its value, or was taken away.
type origin struct {
	value   string
	present bool
	from    *node
	before  *origin // what it was changed from
}

// line is what one parent says of a name.
type line struct {
	*origin
	parent *node
}

// follows tells whether the value was made from what the event made of the name.
func (o *origin) follows(event *node) bool {
	for ; o != nil; o = o.before {
		if o.from == event {
			return true
		}
	}
	return false
}

// at is how the name got to what it is at an event, nil where it has not been there.
func (h *History) at(n *node, name string) *origin {
	known := h.origins[name]
	if o, ok := known[n]; ok {
		return o
	}
	if known == nil {
		if h.origins == nil {
			h.origins = map[string]map[*node]*origin{}
		}
		known = map[*node]*origin{}
		h.origins[name] = known
	}
	for _, m := range h.order[:n.index+1] { // parents first, so that nothing recurses
		if _, ok := known[m]; !ok && n.descends(m) {
			known[m] = h.after(m, name)
		}
	}
	return known[n]
}

// after is at for an event whose parents' origins of the name are known.
func (h *History) after(n *node, name string) *origin {
	rule := func() *rule { return h.decision(n, name) }
	if len(n.void) == 0 && len(n.parents) == 1 {
		rule = nil
	}
	before := h.combine(n.parents, name, rule)
	replaces := n.Blind && n.twin == nil // whatever was there, and be it the same
	value, there := n.Dict[name]
	was := before != nil && before.present
	switch {
	case n.noChange, !there && (before == nil || !replaces && !was), there && !replaces && was && before.value == value:
		return before
	}
	return &origin{value: value, present: there, from: n, before: before}
}

// combine is how the name got to what several events make of it, by a rule, which can be nil for a single one.
func (h *History) combine(parents []*node, name string, rule func() *rule) *origin {
	switch len(parents) {
	case 0:
		return nil
	case 1:
		if rule == nil {
			return h.at(parents[0], name)
		}
	}
	r := rule()
	lines := h.undominated(parents, name, r)
	if len(lines) == 0 {
		return nil
	}
	return r.choose(lines).origin
}

// undominated are the parents' changes of the name that no other parent has seen and changed since, without those that count by no rule.
func (h *History) undominated(parents []*node, name string, r *rule) []line {
	var all []line
	for _, parent := range parents {
		if o := r.counting(h.at(parent, name), parent); o != nil {
			all = append(all, line{o, parent})
		}
	}
	lines := only(all, func(l line) bool {
		return !slices.ContainsFunc(all, func(other line) bool {
			return other.from != l.from && other.parent.descends(l.from) && (!l.from.IsConditional(name) || other.follows(l.from))
		})
	})
	if len(lines) == 0 {
		return all
	}
	return lines
}

// decision is the rule of a merge that was made: what it recorded, and else what is the same everywhere.
func (h *History) decision(n *node, name string) *rule {
	r := &rule{name: name, yields: map[id.EventID]bool{}, void: n.void}
	for event, names := range n.Yields {
		if !slices.Contains(names, name) {
			continue
		}
		if yields := h.original(h.events[event]); yields != nil {
			r.yields[yields.ID] = true
		}
	}
	return r
}
