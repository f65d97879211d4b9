package merge

import (
	"math"
	"slices"
	"time"

	"maunium.net/go/mautrix/id"
)

// History is a set of a dict's events. The zero value is empty and ready. It is not safe for concurrent use.
//
// It need not reach back to the first event: what an event changed is then told by the events that are there. Events
// may be added in any order, and twice.
type History struct {
	events  map[id.EventID]*node
	added   int                 // how many newer events were added
	older   int                 // how many older ones
	givenUp map[id.EventID]bool // parents that nobody has any more
	pruned  map[id.EventID]bool // the latest that were forgotten
	rooted  bool                // whether no event made from nothing can have been overlooked

	// What link makes of these.
	linked  bool                         // whether it fits them
	order   []*node                      // parents before children
	heads   []*node                      // in the order in which they were added
	latest  []*node                      // the heads, or what those were made from that were dropped
	origins map[string]map[*node]*origin // by name, what each event's parents and it make of it, as far as it was asked for
	atomic  bool                         // whether there is an atomic event
	void    *voids                       // of latest, nil where nobody has asked
}

const (
	// sameTime is how far apart events of one depth are sent at most, in milliseconds. All writers must decide by the same one.
	sameTime = 500

	// maxPruned and maxGivenUp are how many events that were forgotten are still told from new ones, and of how many it is known that nobody has them.
	maxPruned  = 2000
	maxGivenUp = 1000
)

// Add adds an event that is newer than all others in the order of the homeserver, as far as that is known, and tells
// whether the history has changed. An event that is there already is only completed: with what it replaces, and
// without its values where it has been redacted since.
func (h *History) Add(e Event) bool {
	h.added++
	return h.add(e, h.added)
}

// AddOlder is Add for events that are older than all others, the newest first.
func (h *History) AddOlder(events ...Event) {
	for _, e := range events {
		h.older++
		h.add(e, -h.older)
	}
}

// Now is how far the history has got; see [History.AddPage].
func (h *History) Now() int { return h.added }

// AddPage adds events as the homeserver lists them, the newest first: that is about the order in which it stored them. Asked is what Now was
// when the list was asked for: what has been added since, and is not listed, is newer than what is. What is listed between events that are there
// belongs between them, though it need not be known: it can have come late.
func (h *History) AddPage(page []Event, asked int) {
	newest := slices.IndexFunc(page, func(e Event) bool { return h.Had(e.ID) })
	if newest < 0 {
		newest = len(page)
	}
	var newer *node
	for _, n := range h.events {
		// The homeserver has given n as the current event, and the list is behind: by its time n is newer than the page. A clock that was set back
		// gives a later event an earlier time, so that an event which was made from n is newer whatever the times say.
		unlisted := n.Partial && len(page) > 0 && n.Time > page[0].Time && !h.madeFrom(page, n)
		if (n.seq > asked || unlisted) && (newer == nil || n.seq < newer.seq) && !slices.ContainsFunc(page, func(e Event) bool { return e.ID == n.ID }) {
			newer = n
		}
	}
	if newer == nil {
		for _, e := range slices.Backward(page[:newest]) {
			h.Add(e)
		}
		page = page[newest:]
	}
	for _, e := range page {
		switch n := h.events[e.ID]; { // what was forgotten comes back: a late rival can have been made from it
		case n != nil && n.Partial && newer != nil && n.seq > newer.seq: // only now its place is known
			h.complete(e, h.slotBefore(newer))
		case n != nil:
			h.complete(e, n.seq)
		case newer == nil:
			h.AddOlder(e)
		default:
			h.add(e, h.slotBefore(newer))
		}
		newer = h.events[e.ID]
	}
}

// madeFrom tells whether the writer of one of these events had seen n, as far as their parents are known.
func (h *History) madeFrom(events []Event, n *node) bool {
	return slices.ContainsFunc(events, func(e Event) bool {
		return slices.ContainsFunc(e.Parents, func(parent id.EventID) bool { return h.Descends(parent, n.ID) })
	})
}

// slotBefore makes room in the order right before an event.
func (h *History) slotBefore(newer *node) int {
	for _, n := range h.events {
		if n.seq < newer.seq {
			n.seq--
		}
	}
	h.older++
	return newer.seq - 1
}

func (h *History) add(e Event, seq int) bool {
	if h.events[e.ID] != nil {
		return h.complete(e, seq)
	}
	if h.events == nil {
		h.events = map[id.EventID]*node{}
	}
	h.events[e.ID] = &node{Event: e, seq: seq}
	h.rooted = h.rooted && !e.Partial
	h.linked = false
	return true
}

// complete adds to an event that is there what was not known of it, and tells whether there was anything.
func (h *History) complete(e Event, seq int) bool {
	old := h.events[e.ID]
	redacted := len(e.Dict) == 0 && len(old.Dict) > 0 && old.beforeRedaction == nil
	known := old.Partial && !e.Partial
	if known {
		old.Replaces, old.Partial = e.Replaces, false
		old.seq = seq
	}
	if redacted {
		old.beforeRedaction = old.Dict
	}
	if redacted || known {
		h.linked = false
	}
	return redacted || known
}

// Has tells whether the event is in the history.
func (h *History) Has(event id.EventID) bool { return h.events[event] != nil }

// Continues tells whether the event belongs to what is known: it is there, was made from what is, or is a late delivery of that.
func (h *History) Continues(e Event) bool {
	if h.Has(e.ID) {
		return true
	}
	if h.sent(e) {
		return true
	}
	return e.Marked && len(e.Parents) > 0 && !slices.ContainsFunc(e.Parents, func(parent id.EventID) bool { return !h.Has(parent) })
}

// sent tells whether the same request has made another event that is there.
func (h *History) sent(e Event) bool {
	for _, n := range h.events {
		if e.own() && n.Mark == e.Mark {
			return true
		}
	}
	return false
}

// IsHead tells whether the event is a head, or the same request has made one.
func (h *History) IsHead(event id.EventID) bool {
	h.link()
	n := h.events[event]
	return n != nil && slices.ContainsFunc(h.heads, func(head *node) bool {
		return head == n || n.own() && head.own() && head.Mark == n.Mark
	})
}

// Listed tells whether the event is there and comes from a list, so that its place among others is known.
func (h *History) Listed(event id.EventID) bool {
	n := h.events[event]
	return n != nil && !n.Partial
}

// Order is where an event belongs that a sync brings.
type Order int

const (
	After     Order = iota // behind all that is there
	Before                 // before all that is there
	Unordered              // nothing tells
)

// Order tells where an event belongs that a sync brings, and after it these in the same response, as long as the sync can be behind what
// was read: it then brings what was stored before that. Times only show that this is not so, for the clocks of homeservers differ, and can
// be set back. Newer are the events before it in the response that belong behind all.
func (h *History) Order(e Event, newer map[id.EventID]bool, next []Event) Order {
	h.link()
	last := int64(math.MinInt64)
	for _, n := range h.events {
		if slices.Contains(n.Parents, e.ID) {
			return Before
		}
		last = max(last, n.Time)
	}
	switch {
	case h.sent(e): // which changes nothing, wherever it belongs
		return After
	case slices.ContainsFunc(next, func(later Event) bool { return h.Has(later.ID) }):
		return Before
	case e.Time > last, slices.ContainsFunc(e.Parents, func(parent id.EventID) bool { return newer[parent] }),
		len(h.heads) > 0 && !slices.ContainsFunc(h.heads, func(head *node) bool { return !slices.Contains(e.Parents, head.ID) }):
		return After
	}
	return Unordered
}

// Unverified are the events that what is known was made from, and that can have rivals which are not known: of which nothing older has been
// listed. The event itself is none of them, or any head without one. A writer has verified what it made its event from before it sent
// that. So nothing is asked of what a marked event was made from, nor of what the last event of a dict with one name was made from where
// its writer had not read that.
func (h *History) Unverified(event id.EventID, oneName bool) (unverified []*Event) {
	h.link()
	next := h.heads
	if n := h.events[event]; n != nil {
		next = n.parents
	}
	seen := newBitset(len(h.order))
	for next = slices.Clone(next); len(next) > 0; next = next[1:] {
		n := next[0]
		if seen.has(n.index) {
			continue
		}
		seen.add(n.index)
		follows := func(parent *node) bool { return !parent.Before || !parent.Partial || parent.verified }
		known := !n.Partial && len(n.missing) == 0 && (slices.ContainsFunc(n.parents, follows) || n.parentGivenUp || n.prunedParent || h.rooted)
		switch {
		case n.verified, known && n.Marked:
		case known && oneName && !n.Conditional:
		case known:
			next = append(next, n.parents...)
		default:
			unverified = append(unverified, &n.Event)
		}
	}
	return unverified
}

// Verify notes that no rival of the event is unknown.
func (h *History) Verify(event id.EventID) {
	if n := h.events[event]; n != nil {
		n.verified = true
	}
}

// Rooted notes that all that the homeserver has will be added, or has been from a while before the first event on, until one is added
// that comes from the state.
func (h *History) Rooted() { h.rooted = true }

// Time is when the event was sent, in Unix milliseconds, 0 where it is not there.
func (h *History) Time(event id.EventID) int64 {
	if n := h.events[event]; n != nil {
		return n.Time
	}
	return 0
}

// Sender is who sent the event, empty where it is not known.
func (h *History) Sender(event id.EventID) id.UserID {
	if n := h.events[event]; n != nil {
		return n.Event.Sender
	}
	return ""
}

// Had tells whether the event is in the history or was until Prune.
func (h *History) Had(event id.EventID) bool { return h.Has(event) || h.pruned[event] }

// Since is how many events were sent no longer than that before the last.
func (h *History) Since(before time.Duration) (n int) {
	last := int64(math.MinInt64)
	for _, e := range h.events {
		last = max(last, e.Time)
	}
	for _, e := range h.events {
		if last-e.Time <= before.Milliseconds() {
			n++
		}
	}
	return n
}

// Len is the number of events.
func (h *History) Len() int { return len(h.events) }

// Heads are the events that no other has merged, in the order in which they were added. Only an empty history has none.
func (h *History) Heads() []*Event {
	h.link()
	return eventsOf(h.heads)
}

// sole is the head where there is one that can be taken as it stands, which is the ordinary case, else nil.
func (h *History) sole() *node {
	if len(h.heads) != 1 || h.heads[0].noChange || h.heads[0].Redacted || !slices.Equal(h.heads, h.latest) {
		return nil
	}
	return h.heads[0]
}

// Latest are the heads, or in place of those that were dropped what these were made from.
func (h *History) Latest() []*Event {
	h.link()
	return eventsOf(h.latest)
}

func eventsOf(nodes []*node) []*Event {
	events := make([]*Event, len(nodes))
	for i, n := range nodes {
		events[i] = &n.Event
	}
	return events
}

// Drop notes that the homeserver has taken these events out of the room's state, and no others: they count for nothing, but for what
// somebody has made of them.
func (h *History) Drop(events ...id.EventID) {
	for _, n := range h.events {
		if dropped := slices.Contains(events, n.ID); n.dropped != dropped {
			n.dropped, h.linked = dropped, false
		}
	}
}

// latestWithout are the latest of these heads and their ancestors, but for what is left out and nothing else has gone on from.
func (h *History) latestWithout(heads []*node, leftOut func(n *node) bool) (latest []*node) {
	if !slices.ContainsFunc(heads, leftOut) {
		return heads
	}
	within, covered := newBitset(len(h.order)), newBitset(len(h.order))
	for _, head := range heads {
		within.add(head.index)
		within.addAll(head.past)
	}
	for _, n := range slices.Backward(h.order) { // children first
		if !within.has(n.index) || leftOut(n) && !covered.has(n.index) {
			continue
		}
		if !covered.has(n.index) {
			latest = append(latest, n)
		}
		covered.addAll(n.past)
	}
	return latest
}

// Descends tells whether the event has merged the other one, by itself or through others, or is it.
func (h *History) Descends(event, from id.EventID) bool {
	h.link()
	a, b := h.events[event], h.events[from]
	return a != nil && b != nil && a.descends(b)
}

// Missing are parents that must be found before a merge can be trusted. There are none where one event, or none, is
// without its parents and all heads descend from that: they then have it in common.
func (h *History) Missing() (missing []id.EventID) {
	h.link()
	if len(h.heads) < 2 || h.beginsAt(h.heads) {
		return nil
	}
	for _, n := range h.order {
		missing = append(missing, n.missing...)
	}
	return missing
}

// Open tells whether several events are without their parents, or one that not all others descend from: whether there
// can be something between them that the history does not show.
func (h *History) Open() bool {
	h.link()
	return !h.beginsAt(h.order)
}

// beginsAt tells whether no event is without its parents, or a single one that all of these descend from.
func (h *History) beginsAt(all []*node) bool {
	roots := only(h.order, func(n *node) bool { return len(n.missing) > 0 })
	return len(roots) == 0 || len(roots) == 1 && !slices.ContainsFunc(all, func(n *node) bool { return !n.descends(roots[0]) })
}

// StateIsOpen tells whether an event that comes from the state is without its parents. These can turn up once it is listed.
func (h *History) StateIsOpen() bool {
	h.link()
	return slices.ContainsFunc(h.order, func(n *node) bool { return n.Partial && len(n.missing) > 0 })
}

// GiveUp is for when the missing parents cannot be found, because there are too many events, or for good. What descends
// from none of the others' ancestors is then merged as if it began with an empty dict: no value is lost that way, but a
// deleted key can come back.
func (h *History) GiveUp() {
	h.link()
	if h.givenUp == nil || len(h.givenUp) > maxGivenUp {
		h.givenUp = map[id.EventID]bool{}
	}
	for _, n := range h.order {
		for _, parent := range n.missing {
			h.givenUp[parent] = true
		}
	}
	h.linked = false
}

// Prune forgets the oldest events but for most, where there is one head that descends from all others.
func (h *History) Prune(most int) {
	h.link()
	if len(h.heads) != 1 || len(h.order) <= 2*most {
		return
	}
	if h.pruned == nil || len(h.pruned) > maxPruned {
		h.pruned = map[id.EventID]bool{}
	}
	for _, n := range h.order[:len(h.order)-most] {
		delete(h.events, n.ID)
		h.pruned[n.ID] = true
	}
	for _, n := range h.order[len(h.order)-most:] {
		n.prunedParent = n.prunedParent || len(n.missing) > 0 || slices.ContainsFunc(n.parents, func(parent *node) bool { return h.pruned[parent.ID] })
	}
	h.linked = false
}

// Known tells whether the event is there with all its parents.
func (h *History) Known(event id.EventID) bool {
	h.link()
	n := h.events[event]
	return n != nil && len(n.missing) == 0
}
