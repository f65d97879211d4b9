package merge

// voids are the atomic events that do not count, among some heads and what these were made from.
type voids struct {
	heads  []*node
	within []*node // the heads and what they were made from, parents first

	nodes     map[*node]bool
	recorders map[*node][]*node // by event, the merges that have recorded that it does not count
	judged    map[*node]bool    // of which is known whether they count
	unplaced  map[*node]bool    // events whose place decides, for which nobody has asked yet
}

func (v *voids) has(n *node) bool { return v.nodes[n] }
