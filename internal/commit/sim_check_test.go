package commit_test

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// check looks for what is wrong at this moment: with what a reader computes who knows all that was ever stored, and with what callers
// were told since the last time.
func (w *world) check() {
	now := [2]int{len(w.server.log), w.results}
	if now == w.checked || w.failure != nil {
		return
	}
	before := w.checked[1]
	w.checked = now
	truth := w.truth()
	for _, key := range w.keys() {
		w.checkValue(key, truth[key])
	}
	w.checkWhole(truth)
	for _, o := range w.ops {
		if o.done && o.number > before && o.Kind == get && o.err == nil {
			w.checkGet(o)
		}
	}
}

// truth is what the room's events say, by key.
func (w *world) truth() map[string][]string {
	if w.histories == nil {
		w.histories = map[string]*merge.History{}
	}
	for _, e := range w.server.log[w.known:] {
		if e.kind != dictEvent {
			continue
		}
		h := w.histories[e.key]
		if h == nil {
			h = new(merge.History)
			w.histories[e.key] = h
		}
		read := w.server.event(e, true)
		if read.Mark == "" { // nothing tells what was there for its sender, but the homeserver knew
			read.Marked = true
			if e.base != nil {
				read.Parents = []id.EventID{e.base.id}
			}
		}
		h.Add(read)
		h.Place(e.id, int64(e.seq), true)
		w.changed[e.key] = true
	}
	w.known = len(w.server.log)
	for stateKey := range w.changed {
		for name, stored := range w.histories[stateKey].Merge().Dict {
			w.merged[stateKey] = maps.Clone(w.merged[stateKey])
			if w.merged[stateKey] == nil {
				w.merged[stateKey] = map[string]string{}
			}
			w.merged[stateKey][name] = stored
		}
		maps.DeleteFunc(w.merged[stateKey], func(name, _ string) bool {
			_, ok := w.histories[stateKey].Merge().Dict[name]
			return !ok
		})
	}
	clear(w.changed)
	truth := map[string][]string{}
	for _, dict := range w.merged {
		for name, stored := range dict {
			if list := tokens(stored); list != nil {
				truth[name] = list
			}
		}
	}
	return truth
}

// keys are all keys that anybody has asked for.
func (w *world) keys() []string {
	keys := map[string]bool{}
	for _, o := range w.ops {
		for _, key := range o.keys() {
			keys[key] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

func (o *op) keys() []string { return append([]string{o.Key}, o.Keys...) }

// found is what the operation found under the key, each time it was made.
func (o *op) found(key string) [][]string {
	found := slices.Clone(o.saw)
	for _, saw := range o.sawAll {
		found = append(found, saw[key])
	}
	return found
}

// on are the operations on a key that can change it.
func (w *world) on(key string) []*op {
	return slices.DeleteFunc(slices.Clone(w.ops), func(o *op) bool { return o.Kind == get || o.Kind == sweep || !slices.Contains(o.keys(), key) })
}

// before tells whether the one had ended when the other began. What failed can happen at any time.
func (o *op) before(other *op) bool {
	return (o.acknowledged() || o.refused()) && o.end.Before(other.start)
}

// erases tells whether the operation can take away what was there.
func (o *op) erases() bool {
	return (o.Kind == put || o.Kind == remove || o.Kind == pop || o.Kind == expire) && !o.refused()
}

// unseen tells whether an operation may be overwritten by one that has not seen it: with a state event for each key, a plain
// write is one request, and a conditional one at the same time can have read before it. That is refused in the end where it merges two plain ones, of
// which the later one looks older by a clock that was set back.
func (w *world) unseen(o *op, on []*op) bool {
	setBack := w.server.skew < 0
	return w.OneName && (o.Kind == put || o.Kind == remove) && slices.ContainsFunc(on, func(other *op) bool {
		return other.Kind.conditional() && (o.Kind == remove || !other.refused() || setBack) && !other.before(o) && !o.before(other)
	})
}

// missing tells why a value that lacks what was acknowledged before that moment is wrong, by those operations that wants lets through.
func (w *world) missing(key string, value []string, before, until time.Time, wants func(*op) bool) string {
	on := w.on(key)
	for _, o := range on {
		if !o.acknowledged() || !o.end.Before(before) || !wants(o) || w.unseen(o, on) {
			continue
		}
		makes := o.Kind != remove && o.Kind != pop && !o.Looks
		if makes && !slices.Contains(value, o.ID) && !slices.ContainsFunc(on, func(other *op) bool {
			return other != o && other.erases() && other.start.Before(until) && !other.before(o)
		}) {
			return fmt.Sprintf("%s is %v, without what %s was told is done", key, value, o)
		}
		if !o.erases() {
			continue
		}
		for _, other := range on {
			if other.acknowledged() && other.end.Before(o.start) && slices.Contains(value, other.ID) {
				return fmt.Sprintf("%s is %v, with %s in it, after which %s was told is done", key, value, other, o)
			}
		}
	}
	return ""
}

func everybody(*op) bool { return true }

// wrong tells what no value may hold.
func (w *world) wrong(key string, value []string) (kind, text string) {
	for i, token := range value {
		// Who first reads an event after it was redacted cannot know which changes did not count there, and can make its own again.
		if slices.Contains(value[:i], token) && !w.redacted {
			return "twice", fmt.Sprintf("%s is %v, with %s twice", key, value, token)
		}
		if !slices.ContainsFunc(w.ops, func(o *op) bool { return o.ID == token && o.Kind != get && slices.Contains(o.keys(), key) }) {
			return "foreign", fmt.Sprintf("%s is %v, and nobody stored %s", key, value, token)
		}
	}
	return "", ""
}

// checkValue compares what a key is with what callers were told.
func (w *world) checkValue(key string, value []string) {
	if kind, text := w.wrong(key, value); kind != "" {
		w.fail(kind, "%s", text)
	}
	if w.redacted {
		return
	}
	if w.unguarded(key) {
		return
	}
	for _, o := range w.on(key) {
		if o.refused() && slices.Contains(value, o.ID) {
			w.fail("refused", "%s is %v, and %s was told: %v", key, value, o, o.err)
		}
	}
	if text := w.missing(key, value, time.Now().Add(1), time.Now().Add(1), everybody); text != "" {
		w.fail("lost", "%s", text)
	}
}

// checkGet compares what a caller read with what its process had done and read before.
func (w *world) checkGet(g *op) {
	if kind, text := w.wrong(g.Key, g.got); kind != "" {
		w.fail(kind, "%s read: %s", g, text)
	}
	if g.Want != nil && !slices.Equal(g.got, g.Want) {
		w.fail("want", "%s read %v, and should have read %v", g, g.got, g.Want)
	}
	if w.expired(g.got, g.start) {
		w.fail("expired", "%s read %v, whose time was over", g, g.got)
	}
	if w.IgnoreOwn || w.redacted {
		return
	}
	own := func(o *op) bool { return o.process == g.process }
	if text := w.missing(g.Key, g.got, g.start, g.end, own); text != "" {
		w.fail("own write", "%s read: %s", g, text)
	}
	if !g.process.follows {
		return
	}
	for _, before := range w.ops {
		if before.Kind == get && before.process == g.process && before.Key == g.Key && before.acknowledged() && before.end.Before(g.start) {
			seen := func(o *op) bool { return slices.Contains(before.got, o.ID) }
			if text := w.missing(g.Key, g.got, g.start, g.end, seen); text != "" {
				w.fail("monotonic", "%s, after %s had read %v, read: %s", g, before, before.got, text)
			}
		}
	}
}

// history is what is to be explained by an order of operations on a key.
type history struct {
	world *world
	key   string
	ops   []*op
	final string
	tried map[[2]string]bool
	steps int
}

var errUndecided = errors.New("too many orders")

// linear tells whether there is an order of the operations on the key that explains what each was told and what is there at the end.
func (w *world) linear(key string, final []string) error {
	on := w.on(key)
	if w.IgnoreRefusals {
		on = slices.DeleteFunc(on, (*op).refused)
	}
	slices.SortStableFunc(on, func(a, b *op) int { return a.start.Compare(b.start) })
	if len(on) > 60 {
		return errUndecided
	}
	h := history{world: w, key: key, ops: on, final: parts(final), tried: map[[2]string]bool{}}
	if h.order(0, "") {
		return nil
	}
	if h.steps > maxOrders {
		return errUndecided
	}
	return fmt.Errorf("no order of %d operations explains that %s is %v", len(on), key, final)
}

const maxOrders = 300_000

// order tells whether the operations that are not done lead from the value to the final one.
func (h *history) order(done uint64, value string) bool {
	if h.steps++; h.steps > maxOrders {
		return false
	}
	at := [2]string{fmt.Sprint(done), value}
	if h.tried[at] {
		return false
	}
	h.tried[at] = true
	finished := true
	for i, o := range h.ops {
		if done&(1<<i) != 0 {
			continue
		}
		finished = finished && !h.must(o)
		if slices.ContainsFunc(h.ops, func(other *op) bool {
			return done&(1<<slices.Index(h.ops, other)) == 0 && h.must(other) && other.before(o)
		}) {
			continue
		}
		for _, next := range o.results(h.key, value) {
			if h.order(done|1<<i, next) {
				return true
			}
		}
		if h.world.unseen(o, h.ops) && o.acknowledged() && h.order(done|1<<i, value) {
			return true
		}
	}
	return finished && value == h.final
}

// must tells whether the operation has to be in the order.
func (h *history) must(o *op) bool { return o.acknowledged() || o.refused() }

// results are what the operation can make of a value, none where it cannot have happened then.
func (o *op) results(key, value string) []string {
	exists := value != ""
	add := func() []string {
		if exists {
			return []string{value + " " + o.ID}
		}
		return []string{o.ID}
	}
	saw := func() bool {
		return !o.acknowledged() && !o.refused() || slices.ContainsFunc(o.found(key), func(s []string) bool { return parts(s) == value })
	}
	switch o.Kind {
	case put:
		if o.refused() { // opsdroid found nothing to add to
			return []string{value}
		}
		return []string{o.ID}
	case remove:
		return []string{""}
	case expire:
		if first, _, _ := strings.Cut(value, " "); first+expiry == o.ID {
			return []string{""}
		}
	case transact:
		switch {
		case !saw():
		case o.Looks, o.refused():
			return []string{value}
		default:
			return add()
		}
	case update:
		if saw() {
			return add()
		}
	case create:
		switch {
		case o.refused() && exists:
			return []string{value}
		case !o.refused() && !exists:
			return []string{o.ID}
		}
	case compareAndPut:
		switch {
		case o.refused():
			return []string{value}
		case parts(o.basis) == value:
			return add()
		}
	case pop:
		switch {
		case o.refused() && !exists, !o.acknowledged() && !o.refused():
			return []string{""}
		case o.acknowledged() && exists && parts(o.got) == value:
			return []string{""}
		}
	}
	return nil
}

// checkEnd compares what each process reads in the end with what the room's events say, and that with what all were told.
func (w *world) checkEnd() {
	truth := w.truth()
	if w.redacted || len(w.powerless) > 0 { // what others make of what was dropped is theirs
		for _, key := range w.keys() {
			truth[key] = w.current(key)
		}
	}
	if !w.redacted && len(w.powerless) == 0 {
		w.checkSerial(truth)
	}
	if !w.OneName {
		w.process("fresh", false)
	}
	for _, key := range w.keys() {
		if w.unguarded(key) || w.alone && w.redacted && len(w.powerless) > 0 { // what its writer could not merge may hold what was redacted
			continue
		}
		if !w.redacted {
			err := w.linear(key, truth[key])
			undecided := errors.Is(err, errUndecided)
			w.record(key, truth[key], undecided)
			switch {
			case undecided:
				w.undecided++
			case err != nil:
				w.fail("order", "%v", err)
				return
			}
		}
		w.checkCurrent(key, truth[key])
		for _, p := range w.processes {
			if p.dead {
				continue
			}
			g := p.perform(opPlan{ID: fmt.Sprintf("%s.end.%s", p.name, key), Kind: get, Key: key})
			if w.ctx.Err() != nil {
				return
			}
			if g.err != nil || !slices.Equal(g.got, truth[key]) {
				w.fail("converge", "%s reads %v (%v), and %s is %v", p.name, g.got, g.err, key, truth[key])
			}
		}
	}
}

// unguarded tells whether a writer lost its power while it wrote the key and nobody can tell what became of that: with a state event for
// each key who does not follow looks no further than to the state, and a writer that cannot merge what it has hidden leaves that to the next.
func (w *world) unguarded(key string) bool {
	if w.firstAtOnce(w.stateKey(key)) {
		return true
	}
	follower := slices.ContainsFunc(w.processes, func(p *process) bool {
		return p.follows && !p.dead && w.server.current(powerKey).allows(p.account)
	})
	return (w.OneName || w.alone && !follower) && slices.ContainsFunc(w.on(key), func(o *op) bool { return o.powerless() })
}

// firstAtOnce tells whether several have written the first event of a key at once, where each has an event: a homeserver that forks does not
// tell that these replaced nothing from one that never tells what was replaced.
func (w *world) firstAtOnce(stateKey string) bool {
	first := 0
	for _, e := range w.server.log {
		if e.kind == dictEvent && e.key == stateKey && e.base == nil {
			first++
		}
	}
	return w.OneName && w.Forking && first > 1
}

// current is what the state has under the key.
func (w *world) current(key string) []string {
	if e := w.server.current(w.stateKey(key)); e != nil {
		return tokens(w.server.event(e, false).Dict[key])
	}
	return nil
}

// checkCurrent compares what is current with what the room's events say.
func (w *world) checkCurrent(key string, value []string) {
	there := w.current(key)
	if !slices.Equal(there, value) {
		w.fail("current", "%s is %v in the state, and %v by all events", key, there, value)
	}
}
