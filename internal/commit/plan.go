package commit

import (
	"encoding/json"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// What the field that names parents takes of an event, in bytes: about that, and about that for each parent.
const (
	markSize   = 120
	parentSize = 50

	// maxHeads is how many heads one event merges, so that their names leave room for the dict.
	maxHeads = 40

	// mergeMargin is what the rest of an event takes at most: a merge must not be refused, for others' writes hang on it.
	mergeMargin = 1500
)

// plan is an event that is to be sent.
type plan struct {
	names   map[string]string
	parents *wire.Parents // nil where none are named
	event   merge.Event   // as it will be known, once it has an ID
	applied []*pending

	write    bool  // whether there is anything to send
	doubtful bool  // whether an edit failed or changed nothing, which only counts on what is current for certain
	values   bool  // whether there are values that were not in the room
	err      error // what keeps any edit from being made
}

func (p *plan) content(mode Mode) json.RawMessage {
	dict := wire.OfNames(p.names)
	if !mode.Single {
		dict.Parents = p.parents
	}
	return dict.Content()
}

// plan merges what is known and makes the edits.
func (c *commit) plan() plan {
	var merged merge.Merged
	var err error
	c.dict.Look(func(h *merge.History) {
		own := c.own
		for _, head := range h.Heads() {
			if head.Err != nil {
				err = head.Err
			}
			if h.Descends(head.ID, c.own) {
				own = head.ID
			}
		}
		merged = h.MergeFirst(maxHeads)
		if own != "" && len(merged.Parents) > 1 && (c.without || c.room.Fits(sizeOf(merged.Dict)+mergeMargin) != nil) {
			// Each fits alone. The others' writes were there first, and this one is not acknowledged.
			merged = h.MergeWithout(own)
			c.todo = slices.Clone(c.all)
		}
	})
	if err != nil {
		return plan{err: err}
	}
	return c.planOn(merged, true)
}

// planOn makes the edits on what was merged, or on what was not read. An edit that would make the event too large is
// left out.
func (c *commit) planOn(merged merge.Merged, read bool) plan {
	base := base{names: maps.Clone(merged.Dict), changed: map[string]bool{}, dict: c.dict}
	if base.names == nil {
		base.names = map[string]string{}
	}
	if len(merged.Parents) > 0 {
		base.event = merged.Parents[0]
	}
	p := plan{write: len(merged.Parents) > 1}
	size := sizeOf(base.names) + markSize + parentSize*(len(merged.Parents)+len(merged.Yields))
	for _, edit := range c.todo {
		changes, err := edit.changes(&base)
		edit.err, edit.names = err, nil
		after := size
		for name, value := range changes {
			old, exists := base.names[name]
			if exists {
				after -= wire.EntrySize(name, old)
			}
			if value != nil {
				after += wire.EntrySize(name, wire.Canonical(value))
			}
			if !read || exists != (value != nil) || exists && old != wire.Canonical(value) {
				edit.names = append(edit.names, name)
			}
		}
		if err == nil && after > size {
			if edit.err = c.room.Fits(after); len(merged.Parents) > 1 {
				edit.err = c.room.Fits(after + mergeMargin)
			}
		}
		if edit.err != nil || len(edit.names) == 0 {
			p.doubtful = true
			continue
		}
		size = after
		for _, name := range edit.names {
			base.changed[name] = true
			if value := changes[name]; value != nil {
				base.names[name] = wire.Canonical(value)
			} else {
				delete(base.names, name)
			}
		}
		p.values = p.values || edit.Values
		p.applied = append(p.applied, edit)
	}
	p.write = p.write || len(p.applied) > 0
	p.names = base.names
	p.parents = &wire.Parents{Events: merged.Parents, Yields: merged.Yields}
	if p.parents.Events == nil {
		p.parents.Events = []id.EventID{}
	}
	if len(p.applied) > 0 { // a merge by itself is the same whoever makes it, and then one event is enough
		p.parents.By = nonce()
		p.parents.Conditional = p.applied[0].Conditional
	}
	p.event = merge.Event{Dict: p.names, Parents: merged.Parents, Yields: merged.Yields, Marked: true}
	return p
}

func sizeOf(names map[string]string) int {
	size := len("{}")
	for name, stored := range names {
		size += wire.EntrySize(name, stored)
	}
	return size
}

// base implements [Base].
type base struct {
	names   map[string]string
	changed map[string]bool // by edits before
	event   id.EventID
	dict    *replica.Dict
}

func (b *base) Stored(name string) (json.RawMessage, bool) {
	text, ok := b.names[name]
	return json.RawMessage(text), ok
}

func (b *base) Event() id.EventID { return b.event }

func (b *base) Unchanged(name string, since id.EventID) (unchanged bool) {
	if _, ok := b.names[name]; !ok || b.changed[name] {
		return false
	}
	b.dict.Look(func(h *merge.History) {
		unchanged = h.Descends(since, h.Origin(h.Line(name), name))
	})
	return unchanged
}
