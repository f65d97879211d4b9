// Package graph draws the history of a memory: its events, what each was made from, who wrote it, and where writers forked and merged.
// It is pure. What it draws can come from anybody in the room: it spells out what does not show, escapes it, and cuts it where it is long.
package graph

import (
	"cmp"
	"slices"
	"time"
)

// Event is a state event of a memory.
type Event struct {
	ID       string    `json:"event"`
	StateKey string    `json:"state_key"` // events of one state key are drawn together
	Sender   string    `json:"sender"`
	Time     time.Time `json:"time"`

	// Parents are the events that it was made from. Where it does not name them, they are Guessed: by what the homeserver says.
	Parents []string `json:"parents"`
	Guessed bool     `json:"guessed,omitempty"`

	// Cut: some of its parents are not among the events, so that nobody can tell what it changed.
	Cut bool `json:"cut,omitempty"`

	Changes    []Change `json:"changes"`
	Redacted   bool     `json:"redacted,omitempty"`
	Unreadable bool     `json:"unreadable,omitempty"`
}

// Change is what an event did to a key.
type Change struct {
	Key     string `json:"key"` // of a sealed key its hash
	Sealed  bool   `json:"sealed,omitempty"`
	Removed bool   `json:"removed,omitempty"`
	Lost    bool   `json:"lost,omitempty"` // a merge has found that it does not count
	Value   string `json:"value,omitempty"`
}

// drawn is an event with its place in the picture.
type drawn struct {
	Event
	row, lane int
	children  int
	edges     []edge // to its parents
	older     bool   // whether some of its parents are not drawn
}

// edge leads from an event to one that it was made from, in a lane that no other edge has meanwhile.
type edge struct {
	to   *drawn
	lane int
}

// isMerge tells whether several events were merged, isFork whether several were made from this one.
func (d *drawn) isMerge() bool { return len(d.Parents) > 1 }
func (d *drawn) isFork() bool  { return d.children > 1 }

// isEmpty tells whether nobody can read what the event held.
func (d *drawn) isEmpty() bool { return d.Redacted || d.Unreadable }

// part is the history of one state key.
type part struct {
	stateKey string
	events   []*drawn // children before their parents
	lanes    int
}

// layOut gives each event a row and a lane. The events are given with the newest first, as far as anybody knows.
func layOut(events []Event) []*part {
	var parts []*part
	for _, evt := range events {
		i := slices.IndexFunc(parts, func(p *part) bool { return p.stateKey == evt.StateKey })
		if i < 0 {
			i = len(parts)
			parts = append(parts, &part{stateKey: evt.StateKey})
		}
		parts[i].events = append(parts[i].events, &drawn{Event: evt})
	}
	for _, p := range parts {
		p.order()
		p.assignLanes()
	}
	return parts
}

// order puts children before their parents, and the newer event first where nothing else decides. Of a circle of parents, which only a homeserver
// that lies can make, the edges that lead up are left out.
func (p *part) order() {
	byID := map[string]*drawn{}
	for _, d := range p.events {
		if byID[d.ID] == nil {
			byID[d.ID] = d
		}
	}
	waiting := map[*drawn]int{} // how many children of an event have no row yet
	for _, d := range p.events {
		d.older = d.Cut
		for _, parent := range d.Parents {
			to := byID[parent]
			d.older = d.older || to == nil
			if to != nil && to != d && !slices.ContainsFunc(d.edges, func(e edge) bool { return e.to == to }) {
				d.edges = append(d.edges, edge{to: to})
				waiting[to]++
			}
		}
	}
	rest, ordered := p.events, make([]*drawn, 0, len(p.events))
	for len(rest) > 0 {
		i := max(0, slices.IndexFunc(rest, func(d *drawn) bool { return waiting[d] == 0 }))
		next := rest[i]
		next.row = len(ordered)
		ordered = append(ordered, next)
		rest = slices.Delete(rest, i, i+1)
		for _, e := range next.edges {
			waiting[e.to]--
		}
	}
	p.events = ordered
	for _, d := range ordered {
		d.edges = slices.DeleteFunc(d.edges, func(e edge) bool { return e.to.row < d.row })
		slices.SortFunc(d.edges, func(a, b edge) int { return cmp.Compare(a.to.row, b.to.row) })
		for _, e := range d.edges {
			e.to.children++
		}
	}
}

// assignLanes gives each edge a lane of its own as far as its parent's row. An event is in the leftmost lane that leads to it.
func (p *part) assignLanes() {
	var open []*drawn // by lane, where the edge in it leads
	taken := 0        // so many lanes on the left are not free
	free := func() int {
		for ; taken < len(open); taken++ {
			if open[taken] == nil {
				return taken
			}
		}
		open = append(open, nil)
		return len(open) - 1
	}
	for _, d := range p.events {
		if d.lane = slices.Index(open, d); d.lane < 0 {
			d.lane = free()
		}
		for i, to := range open {
			if to == d {
				open[i] = nil
				taken = min(taken, i)
			}
		}
		for i := range d.edges {
			lane := d.lane
			if i > 0 {
				lane = free()
			}
			d.edges[i].lane, open[lane] = lane, d.edges[i].to
		}
		p.lanes = max(p.lanes, len(open))
	}
}
