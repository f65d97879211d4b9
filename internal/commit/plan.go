package commit

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// What the field that names parents takes of an event, in bytes: about that, and about that for each parent.
const (
	markSize   = 120
	parentSize = 50

	// mergeMargin is what the rest of an event takes at most: a merge must not be refused, for others' writes hang on it.
	mergeMargin = 1500
)

// plan is an event that is to be sent.
type plan struct {
	names   map[string]string
	parents *wire.Parents // nil where none are named
	event   merge.Event   // as it will be known, once it has an ID
	applied []*pending

	fresh    map[string]Value // by name: what is to be sealed
	replaced []string         // what was stored before, where that is asked for
	maybe    []string         // what is stored where only fresh values replace it, which can be the same; nil where the event is sent anyway

	write    bool // whether there is anything to send
	doubtful bool // whether an edit failed or changed nothing, which only counts on what is current for certain
}

// size is what a name takes of the content, with what stands behind it.
func (p *plan) size(name, stored string) int {
	if value, ok := p.fresh[name]; ok {
		return value.size()
	}
	return wire.EntrySize(name, stored)
}

func (p *plan) content() json.RawMessage {
	return wire.Dict{Names: p.names, Parents: p.parents}.Content()
}

// plan merges what is known and makes the edits. It fails where no edit can be made.
func (c *commit) plan(ctx context.Context) (p plan, err error) {
	var merged merge.Merged
	unknown := c.decide(ctx, func(h *merge.History) {
		err = nil
		// What did not count when that was asked last can do so by what has been found since, and must not be done twice.
		c.todo = except(c.todo, func(p *pending) bool {
			return p.Conditional && len(p.in) > 0 && len(p.names) > 0 && tookEffect(h, p, p.names)
		})
		for _, head := range h.Heads() {
			if head.Err != nil && !c.overwrites() {
				err = head.Err
			}
		}
		merged = h.MergeFirst(c.policy.MaxHeads)
		fits := c.room.Fits(sizeOf(merged.Dict) + mergeMargin)
		if fits == nil {
			fits = c.refusedMerge
		}
		switch {
		case c.own == "" || len(merged.Parents) < 2 || fits == nil:
		default:
			// Each fits alone. The others' writes were there first, and this one is not acknowledged.
			without, ok := h.MergeWithout(c.sent())
			if !ok || c.room.Fits(sizeOf(without.Dict)+markSize+parentSize*len(without.Parents)) != nil {
				err = cmp.Or(err, fits)
				return
			}
			merged = without
			c.todo = slices.Clone(c.all)
		}
	})
	if err = cmp.Or(unknown, err); err != nil {
		return p, err
	}
	expired, err := c.expired(ctx, merged.Dict)
	if err == nil {
		p = c.planOn(ctx, merged, expired, true)
	}
	return p, err
}

// expired are the names whose time is over.
func (c *commit) expired(ctx context.Context, names map[string]string) (expired []string, err error) {
	now := int64(0)
	for name, stored := range names {
		at, _ := wire.Expiry(stored)
		if at == 0 {
			continue
		}
		if now == 0 {
			if now, err = c.room.Now(ctx); err != nil {
				return nil, err
			}
		}
		if at <= now {
			expired = append(expired, name)
		}
	}
	slices.Sort(expired)
	return expired, nil
}

// sent are the events that have the edits.
func (c *commit) sent() (events []id.EventID) {
	for _, p := range c.all {
		events = append(events, p.in...)
	}
	return events
}

// overwrites tells whether what cannot be read may be replaced.
func (c *commit) overwrites() bool {
	return c.mode.OneName && !slices.ContainsFunc(c.all, func(p *pending) bool { return !p.Overwrites })
}

// planOn makes the edits on what was merged, or on what was not read. An edit that would make the event too large is
// left out. No edit sees what has expired, and the event that has an edit takes it away.
func (c *commit) planOn(ctx context.Context, merged merge.Merged, expired []string, read bool) plan {
	base := base{names: maps.Clone(merged.Dict), changed: map[string]bool{}, dict: c.dict}
	if base.names == nil {
		base.names = map[string]string{}
	}
	for _, name := range expired {
		delete(base.names, name)
	}
	base.expired = expired
	if len(merged.Parents) > 0 {
		base.event = merged.Parents[0]
	}
	p := plan{write: len(merged.Parents) > 1 || read && c.shadowed.Load(), fresh: map[string]Value{}}
	if c.mode.Drop {
		c.dict.Look(func(h *merge.History) {
			for _, head := range h.Heads() {
				p.replaced = slices.AppendSeq(p.replaced, maps.Values(head.Dict))
			}
		})
	}
	size := sizeOf(base.names) + sizeOfNames(expired) + markSize + parentSize*len(merged.Parents)
	for _, names := range merged.Yields {
		size += parentSize + sizeOfNames(names)
	}
	reads := newReads() // of all atomic edits
	for _, edit := range c.todo {
		base.size, base.reads, base.fresh = size, nil, p.fresh
		if edit.Atomic {
			base.reads = newReads()
		}
		made := c.make(ctx, edit, &base, &p, read)
		after := size + made.size + made.reads.size()
		edit.err, edit.names = made.err, nil
		if edit.err == nil && after > size {
			if edit.err = c.room.Fits(after); len(merged.Parents) > 1 {
				edit.err = c.room.Fits(after + mergeMargin)
			}
		}
		if edit.Atomic { // also where it changes nothing: what it has found must be true once the event counts
			reads.add(made.reads)
		}
		if edit.err != nil || len(made.names) == 0 && !edit.Barrier && !(edit.Sweeps && len(expired) > 0) {
			p.doubtful = true
			continue
		}
		size, edit.names = after, made.names
		for _, name := range slices.Concat(made.names, made.beside) {
			base.changed[name] = true
			delete(p.fresh, name)
			if value, ok := made.fresh[name]; ok {
				p.fresh[name] = value
			}
			if stored, ok := made.stored[name]; ok {
				base.names[name] = stored
			} else {
				delete(base.names, name)
			}
		}
		p.applied = append(p.applied, edit)
	}
	if !p.write && len(p.fresh) == len(base.changed) {
		for name := range p.fresh {
			p.maybe = append(p.maybe, merged.Dict[name])
		}
	}
	p.write = p.write || len(p.applied) > 0
	if p.names = base.names; len(p.applied) == 0 { // who merges alone need not have the time that others have
		for _, name := range expired {
			p.names[name] = merged.Dict[name]
		}
	}
	p.parents = &wire.Parents{Events: merged.Parents, Yields: merged.Yields}
	if p.parents.Events == nil {
		p.parents.Events = []id.EventID{}
	}
	if len(p.applied) > 0 { // a merge by itself is the same whoever makes it, and then one event is enough
		p.parents.By = nonce(c.random())
		p.parents.Conditional = p.applied[0].Conditional
		p.parents.Swept = except(expired, func(name string) bool { _, there := p.names[name]; return there || base.changed[name] })
		if p.applied[0].Atomic {
			for name := range base.changed { // an edit can take back what an earlier one has done
				reads.note(name)
			}
			p.parents.Atomic = reads.without(func(name string) bool {
				before, was := merged.Dict[name]
				now, is := base.names[name]
				_, fresh := p.fresh[name]
				return fresh || was != is || before != now
			})
		}
	}
	p.event = merge.Event{Dict: p.names, Parents: merged.Parents, Yields: merged.Yields, Marked: true}
	return p
}

// made is what an edit makes of a plan.
type made struct {
	names  []string          // that change
	beside []string          // that change with them, alike for every writer, so that nobody can lose there
	stored map[string]string // what they get, but for those that are removed
	fresh  map[string]Value  // what of that is to be sealed
	reads  *reads            // what was asked for, and what was to be changed and is so already; nil where nobody asks
	size   int               // what all that adds to the content, or takes from it
	err    error
}

// make applies an edit to the base. Without having read it every name counts as changed.
func (c *commit) make(ctx context.Context, edit *pending, base *base, p *plan, read bool) made {
	changes, err := edit.changes(base)
	m := made{stored: map[string]string{}, fresh: map[string]Value{}, reads: base.reads, err: err}
	for name, stored := range changes {
		old, exists := base.names[name]
		grows := 0
		if exists {
			grows -= p.size(name, old)
		}
		same := exists == (stored != nil) && !edit.takes(name, stored, base.expired)
		if stored != nil {
			m.stored[name] = wire.Canonical(stored)
			if key, isValue := edit.Values[name]; isValue && c.sealer != nil {
				value := ValueOf(name, key, m.stored[name])
				m.fresh[name] = value
				grows += value.size()
				m.err = cmp.Or(m.err, c.sealer.Check(value))
				same = same && !edit.Anew && c.holds(ctx, p, old, value)
			} else {
				grows += wire.EntrySize(name, m.stored[name])
				same = same && old == m.stored[name]
			}
		}
		switch _, isValue := edit.Values[name]; {
		case read && same && !edit.Barrier: // with it, what others write under the name at the same time must yield all the same
			m.reads.note(name)
			continue
		case len(edit.Values) > 0 && !isValue && stored != nil && wire.IsOwn(name) && !c.mode.Single:
			m.beside = append(m.beside, name)
		default:
			m.names = append(m.names, name)
		}
		m.size += grows
	}
	return m
}

// holds tells whether what is stored, or is going to be, is the value.
func (c *commit) holds(ctx context.Context, p *plan, stored string, value Value) bool {
	if fresh, ok := p.fresh[value.Name]; ok {
		return fresh == value
	}
	at, reference := wire.Expiry(stored)
	return c.sealed[value] == stored || at == value.Expires && c.sealer.Holds(ctx, reference, value)
}
