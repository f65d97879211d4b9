package commit

import (
	"slices"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// sent is an event that the homeserver has acknowledged.
type sent struct {
	event id.EventID
	at    time.Time
}

// maxLine is how many of its latest events a writer remembers.
const maxLine = 32

// line is a writer's latest events. It sent each when the one before was acknowledged.
//
// It tells how far a look back has to go where nobody else says anything in the room. A homeserver gives an event one more than the greatest depth
// that it has, and lists by depth, and what has one depth as it was stored. By the rule of rivalsSince, what a commit can overlook has got its depth
// [Policy.Skew] before the commit began, at the earliest. So that is deeper than the base of the line, which is the last event that was acknowledged by
// then. It is listed before any event that is one deeper than the base and was acknowledged when the commit began.
type line struct {
	events []placed
	quiet  bool // whether nobody had said anything between two of them, when that was seen last
}

// placed is an event with its depth in the room's graph, or less than that; 0 where nothing tells.
type placed struct {
	sent
	depth int64
}

// add adds an event unless it can be one that was there before.
func (l *line) add(event sent, isNew bool) {
	if !isNew {
		l.events = nil
		return
	}
	l.events = append(l.events[max(0, len(l.events)+1-maxLine):], placed{sent: event})
	l.learn(len(l.events)-1, 0)
}

// learn notes how deep an event is, at least, and so how deep those after it are.
func (l *line) learn(i int, depth int64) {
	for l.events[i].depth = max(l.events[i].depth, depth); i < len(l.events); i++ {
		if i > 0 && l.events[i-1].depth > 0 {
			l.events[i].depth = max(l.events[i].depth, l.events[i-1].depth+1)
		}
	}
}

// base is the last event that was acknowledged by then, negative without one.
func (l *line) base(then time.Time) int {
	late := slices.IndexFunc(l.events, func(e placed) bool { return e.at.After(then) })
	if late < 0 {
		return len(l.events) - 1
	}
	return late - 1
}

// since is how many events come after the base, where a page with them alone will do: 0 where others say something.
func (l *line) since(then time.Time) int {
	base := l.base(then)
	if !l.quiet || base < 0 {
		return 0
	}
	return len(l.events) - 1 - base
}

// covers tells whether a page has all that a commit can overlook which began at that moment. A fork that comes from another homeserver can have any
// depth. Where it has become current, it shows in what an event of the page replaced.
func (l *line) covers(page Page, began time.Time, skew time.Duration) bool {
	l.quiet = false
	if page.Depth == 0 {
		return false
	}
	last := slices.IndexFunc(l.events, func(e placed) bool { return e.event == page.Events[len(page.Events)-1].ID })
	if last < 0 {
		return false
	}
	l.learn(last, page.Depth)
	l.quiet = last > 0 && page.Depth == l.events[last-1].depth+1
	base := l.base(began.Add(-skew))
	return base >= 0 && !l.events[last].at.After(began) && l.events[base].depth > 0 && page.Depth <= l.events[base].depth+1 &&
		!slices.ContainsFunc(page.Events, func(e merge.Event) bool { return e.Replaces != "" && !slices.Contains(e.Parents, e.Replaces) })
}
