package commit_test

import (
	"cmp"
	"encoding/json"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// eventKind is what an event of the simulated room is.
type eventKind int

const (
	dictEvent    eventKind = iota // a state event of the store's type
	powerEvent                    // who may send state
	messageEvent                  // anything else
	redaction                     // of a dict event
)

// simEvent is an event of the simulated room.
type simEvent struct {
	id       id.EventID
	kind     eventKind
	sender   string
	ts       int64 // origin_server_ts
	key      string
	content  json.RawMessage
	powerful map[string]bool // of a powerEvent: who has no power is false

	base     *simEvent // what was there for its sender
	replaces *simEvent // what the homeserver says of that
	depth    int
	seq      int // its place among all that were stored
	visible  time.Time
	after    roomState   // with it
	tips     []*simEvent // which no event followed then
	power    *simEvent   // by which it was allowed
	redacts  *simEvent
	redacted bool

	read map[bool]merge.Event // by whether it is listed
}

// roomState is the room's state, by state key, with the power levels under powerKey.
type roomState map[string]*simEvent

const powerKey = "\x00power"

// simServer is a homeserver with one room.
//
// Forking, it is as Synapse: an event follows those that were there when its request began, and state resolution chooses between
// branches. Lists are in the order of depths, and of storage within one.
//
// Ordered, it is as Dendrite: what a sender sends comes one after the other. What several send at once has one depth, and state
// resolution chooses there too. Shuffles, each list shows what has one depth in another order. Without sameDepth all events are in one
// line.
type simServer struct {
	forking   bool
	oneName   bool
	sameDepth bool
	shuffles  bool
	silent    bool // ordered: lists do not tell what an event replaced
	lag       time.Duration
	skew      time.Duration // of its clock
	now       func() time.Time
	random    *rand.Rand // of what is nobody's request

	log  []*simEvent // as stored
	tips []*simEvent // which no event follows
	byID map[id.EventID]*simEvent
}

func newSimServer() *simServer {
	s := &simServer{now: time.Now, byID: map[id.EventID]*simEvent{}}
	s.store(&simEvent{id: "$create", kind: powerEvent, sender: "admin", ts: s.now().UnixMilli(), powerful: map[string]bool{}}, s.begin())
	return s
}

// begun is what the server looks at as a request begins.
type begun struct {
	tips   []*simEvent
	stored int // how many events
	depth  int
	ts     int64
}

func (s *simServer) begin() begun {
	b := begun{tips: slices.Clone(s.tips), stored: len(s.log), ts: s.now().Add(s.skew).UnixMilli()}
	for _, tip := range s.tips {
		b.depth = max(b.depth, tip.depth)
	}
	return b
}

// state is the room's state where these events are the last.
func (s *simServer) state(tips []*simEvent) roomState {
	if len(tips) == 0 {
		return roomState{}
	}
	state := maps.Clone(tips[0].after)
	if len(tips) == 1 {
		return state
	}
	candidates := map[string][]*simEvent{}
	for _, tip := range tips {
		for key, e := range tip.after {
			if !slices.Contains(candidates[key], e) {
				candidates[key] = append(candidates[key], e)
			}
		}
	}
	agreed := func(key string) bool {
		return !slices.ContainsFunc(tips, func(tip *simEvent) bool { return tip.after[key] != candidates[key][0] })
	}
	latest := func(a, b *simEvent) int { return cmp.Compare(b.seq, a.seq) }
	state[powerKey] = slices.SortedFunc(slices.Values(candidates[powerKey]), latest)[0]
	for key, all := range candidates {
		if key == powerKey || agreed(key) {
			continue
		}
		// As in version 2 of state resolution: the later power levels, then the later time, then the ID.
		slices.SortFunc(all, func(a, b *simEvent) int {
			return cmp.Or(latest(a.power, b.power), cmp.Compare(b.ts, a.ts), strings.Compare(string(b.id), string(a.id)))
		})
		delete(state, key)
		for _, e := range all {
			if state[powerKey].allows(e.sender) {
				state[key] = e
				break
			}
		}
	}
	return state
}

func (e *simEvent) allows(sender string) bool {
	may, known := e.powerful[sender]
	return may || !known
}

// current is the event under the state key now.
func (s *simServer) current(key string) *simEvent { return s.state(s.tips)[key] }

// put is what becomes of a request to set state that began then. It gives the event that is already there where that is the same. A
// nil event was refused.
func (s *simServer) put(e *simEvent, at begun) *simEvent {
	if !s.forking && (!s.sameDepth || slices.ContainsFunc(s.log[at.stored:], func(other *simEvent) bool { return other.sender == e.sender })) {
		at = s.begin()
	}
	state := s.state(at.tips)
	e.power = state[powerKey]
	if !e.power.allows(e.sender) {
		return nil
	}
	if there := state[e.key]; there != nil && there.sender == e.sender && !there.redacted && wire.Same(there.content, e.content) {
		return there
	}
	e.base, e.replaces = state[e.key], state[e.key]
	if !s.forking {
		e.replaces = s.current(e.key)
	}
	e.ts = at.ts
	s.store(e, at)
	return e
}

// store adds an event after those that were the last as its request began.
func (s *simServer) store(e *simEvent, at begun) {
	if e.ts == 0 {
		e.ts = at.ts
	}
	e.depth, e.seq = at.depth+1, len(s.log)
	e.visible = s.now().Add(s.lag)
	e.after = s.state(at.tips)
	if e.after == nil {
		e.after = roomState{}
	}
	switch e.kind {
	case dictEvent:
		e.after[e.key] = e
	case powerEvent:
		e.after[powerKey] = e
	}
	s.log = append(s.log, e)
	s.byID[e.id] = e
	s.tips = append(slices.DeleteFunc(slices.Clone(s.tips), func(tip *simEvent) bool { return slices.Contains(at.tips, tip) }), e)
	e.tips = s.tips
}

// chat sends something that is nobody's dict.
func (s *simServer) chat(n int) {
	for range n {
		e := &simEvent{id: simID(s.random, len(s.log)), kind: messageEvent, sender: "somebody"}
		s.store(e, s.begin())
	}
}

// foreign sends dicts that are not looked at.
func (s *simServer) foreign(n int) {
	for i := range n {
		key := fmt.Sprint("foreign ", i%7)
		content, _ := json.Marshal(map[string]int{key: len(s.log)})
		s.put(&simEvent{id: simID(s.random, len(s.log)), kind: dictEvent, sender: "somebody", key: key, content: content}, s.begin())
	}
}

// redact takes away what an event says.
func (s *simServer) redact(e *simEvent) {
	e.redacted, e.content, e.read = true, json.RawMessage("{}"), nil
	s.store(&simEvent{id: simID(s.random, len(s.log)), kind: redaction, sender: "admin", redacts: e}, s.begin())
}

// empower gives somebody power or takes it, with a request that began then.
func (s *simServer) empower(account string, may bool, at begun) *simEvent {
	if !s.forking {
		at = s.begin()
	}
	powerful := maps.Clone(s.state(at.tips)[powerKey].powerful)
	powerful[account] = may
	e := &simEvent{id: simID(s.random, len(s.log)), kind: powerEvent, sender: "admin", powerful: powerful}
	s.store(e, at)
	return e
}

// listed are those of the events that a list shows, the oldest first.
func (s *simServer) listed(events []*simEvent) []*simEvent {
	now := s.now()
	listed := slices.DeleteFunc(slices.Clone(events), func(e *simEvent) bool { return e.visible.After(now) })
	slices.SortStableFunc(listed, func(a, b *simEvent) int { return cmp.Or(cmp.Compare(a.depth, b.depth), cmp.Compare(a.seq, b.seq)) })
	return listed
}

// shuffled is a part of a list as an ordered homeserver shows it this time.
func (s *simServer) shuffled(events []*simEvent, random *rand.Rand) []*simEvent {
	if !s.shuffles {
		return events
	}
	events = slices.Clone(events)
	random.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	slices.SortStableFunc(events, func(a, b *simEvent) int { return cmp.Compare(a.depth, b.depth) })
	return events
}

// page is a page of dict events from where the last one ended, the newest first.
func (s *simServer) page(key, from string, limit int, random *rand.Rand) commit.Page {
	listed := s.listed(s.log)
	if from != "" {
		depth, seq, _ := strings.Cut(from, "_")
		d, _ := strconv.Atoi(depth)
		q, _ := strconv.Atoi(seq)
		listed = slices.DeleteFunc(listed, func(e *simEvent) bool { return cmp.Or(cmp.Compare(e.depth, d), cmp.Compare(e.seq, q)) >= 0 })
	}
	var part []*simEvent // the newest first
	rest := len(listed)
	for counted := 0; rest > 0 && counted < limit; {
		rest--
		e := listed[rest]
		isDict := e.kind == dictEvent || e.id == "$create"
		if isDict {
			part = append(part, e)
		}
		if isDict || !s.forking { // Dendrite counts what the filter hides
			counted++
		}
	}
	page := commit.Page{}
	if len(part) == limit && part[len(part)-1].kind == dictEvent && part[len(part)-1].key == key {
		page.Depth = int64(part[len(part)-1].depth)
	}
	if rest > 0 {
		page.Next = fmt.Sprintf("%d_%d", listed[rest].depth, listed[rest].seq)
	}
	slices.Reverse(part)
	for _, e := range slices.Backward(s.shuffled(part, random)) {
		page.Oldest = e.ts
		if e.kind == dictEvent && e.key == key {
			page.Events = append(page.Events, s.event(e, true))
		}
	}
	return page
}

// event is an event of a dict as the store reads it, from a list or from the state.
func (s *simServer) event(e *simEvent, listed bool) merge.Event {
	if known, ok := e.read[listed]; ok {
		return known
	}
	parse := wire.ParseDict
	if s.oneName {
		parse = func(content json.RawMessage) (wire.Dict, error) { return wire.ParsePerKey(e.key, content) }
	}
	dict, err := parse(e.content)
	read := merge.Event{ID: e.id, Sender: id.UserID(e.sender), Time: e.ts, Dict: dict.Names, Mark: dict.ParentsText,
		Redacted: e.redacted, Partial: !listed, Err: err}
	if e.replaces != nil && (s.forking || listed && !s.silent && e.key == "") {
		read.Replaces = e.replaces.id
	}
	commit.Tell(&read, dict.Parents)
	if e.read == nil {
		e.read = map[bool]merge.Event{}
	}
	e.read[listed] = read
	return read
}

// before is the state that an initial sync shows beside a timeline, up to which so many events are stored. Synapse shows that before the timeline's
// first event and that after its last, as their branches have it, but for what the timeline has. Dendrite shows what is current.
func (s *simServer) before(timeline []*simEvent, stored int) (state []*simEvent) {
	var states []roomState
	switch {
	case len(timeline) == 0 || !s.forking:
		states = []roomState{s.state(s.log[stored-1].tips)}
	default:
		first := timeline[0]
		before := maps.Clone(first.after)
		if first.kind == dictEvent {
			if delete(before, first.key); first.base != nil {
				before[first.key] = first.base
			}
		}
		states = []roomState{before, timeline[len(timeline)-1].after}
	}
	for _, one := range states {
		for _, key := range slices.Sorted(maps.Keys(one)) {
			if e := one[key]; !slices.Contains(timeline, e) && !slices.Contains(state, e) {
				state = append(state, e)
			}
		}
	}
	return state
}

// simID is an event's ID: at random, so that the order of IDs is no other, with its place for people.
func simID(random *rand.Rand, seq int) id.EventID {
	return id.EventID(fmt.Sprintf("$%c%c.%d", 'a'+random.IntN(26), 'a'+random.IntN(26), seq))
}
