package roomkv

import (
	"context"
	"encoding/json"
	"maps"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// beneath is what the state has, of some names or of all, under what account data has.
type beneath struct {
	*overlay
	views map[string]*replica.View // by state key
	moves int                      // how often somebody had tried to move the memory before
	began int64                    // when the reading began, in Unix milliseconds
}

// beneath reads what the state has under the names: one request, or in the per-key layout one for each name where these are few.
// A write must know what is current at the homeserver.
func (o *overlay) beneath(ctx context.Context, names []string, writing bool) (beneath, error) {
	below := o.nothing()
	oneKey := !o.core.Layout.Atomic()
	if oneKey && len(names) > memory.Parallel {
		return o.listed(ctx, below, o.ListWhole)
	}
	if !oneKey {
		names = []string{""} // all are in one dict
	}
	for _, name := range names {
		stateKey := o.core.Layout.StateKey(name)
		view, err := o.view(ctx, stateKey, writing)
		if err != nil {
			return below, err
		}
		below.views[stateKey] = view
	}
	return below, nil
}

// nothing is to be filled with what the state has.
func (o *overlay) nothing() beneath {
	return beneath{overlay: o, views: map[string]*replica.View{}, moves: o.account.count(), began: time.Now().UnixMilli()}
}

// beneathAll reads all that the state has, with the requests of [Store.Keys] and one for each state key that seems to have been changed
// after account data, for a listing can be behind.
func (o *overlay) beneathAll(ctx context.Context) (beneath, error) {
	if o.core.Layout.Atomic() {
		return o.beneath(ctx, nil, false)
	}
	below, err := o.listed(ctx, o.nothing(), o.List)
	content := o.account.current()
	for name := range content.Over {
		if err == nil && !below.hidden(content, name) {
			stateKey := o.core.Layout.StateKey(name)
			below.views[stateKey], err = o.view(ctx, stateKey, false)
		}
	}
	return below, err
}

// listed fills below with the state that a listing gives.
func (o *overlay) listed(ctx context.Context, below beneath, list func(context.Context) (map[string]*matrix.Event, error)) (beneath, error) {
	events, err := list(ctx)
	for stateKey, evt := range events {
		if stateKey == wire.SealName && err == nil {
			_, err = o.CheckSealEvent(evt)
		}
		if o.core.Layout.Holds(stateKey) {
			below.views[stateKey] = o.ViewOf(evt)
		}
	}
	return below, err
}

// view reads the dict under the state key. In the single-state-key layout that is all that the room's events say, also what
// is not in the state: an acknowledged event that the homeserver has left out there is merged by the next who writes
// there, and counts until then.
func (o *overlay) view(ctx context.Context, stateKey string, writing bool) (*replica.View, error) {
	oneKey := !o.core.Layout.Atomic()
	if !oneKey && !writing && o.core.Follower.Live(o.ID) {
		return o.roomState.View(ctx, stateKey, maps.Equal[map[string]string, map[string]string])
	}
	current, err := memory.Place{Room: o.Room, StateKey: stateKey}.Current(ctx)
	if err != nil || oneKey {
		return replica.ViewOf(current), err
	}
	d := o.Dict(stateKey)
	known := current == nil
	if !known {
		d.Do(func(history *merge.History) {
			if known = history.Has(current.ID); known {
				history.Add(*current) // it can have been redacted
			}
		})
	}
	if view := d.View(); known && view != nil {
		return view, nil
	}
	if err := d.Read(ctx, true); err != nil {
		return nil, err
	}
	if view := d.View(); view != nil {
		return view, nil
	}
	return replica.ViewOf(current), nil
}

func (b beneath) at(name string) *replica.View {
	if view := b.views[b.core.Layout.StateKey(name)]; view != nil {
		return view
	}
	return &replica.View{}
}

// hidden tells whether what account data has under the name, be it that there is nothing, counts more than what the state
// has: unless that was changed since, or account data has moved there.
func (b beneath) hidden(content wire.Account, name string) bool {
	over, ok := content.Over[name]
	return ok && !b.moved(content) && over.Base == b.base(name)
}

// covered tells whether account data hides what the state has under the state key, where that cannot be read.
func (b beneath) covered(content wire.Account, stateKey string) bool {
	for name := range content.Over {
		if !b.core.Layout.Atomic() && b.core.Layout.StateKey(name) == stateKey && b.hidden(content, name) {
			return true
		}
	}
	return false
}

// moved tells whether the state has taken that content of account data. In the per-key layout it is the events that tell.
func (b beneath) moved(content wire.Account) bool {
	if !b.core.Layout.Atomic() {
		return false
	}
	return wire.IsMoved(json.RawMessage(b.at("").Names[wire.MovedName(b.Client.UserID)]), content)
}

func (b beneath) base(name string) string {
	view, event := b.at(name), id.EventID("")
	if !b.core.Layout.Atomic() {
		event = view.Event
	}
	stored, found := view.Names[name]
	return wire.Base(stored, found, event)
}

// recordOf is what is there under the name, or nil.
func (b beneath) recordOf(content wire.Account, name string) *memory.Record {
	if !b.hidden(content, name) {
		return memory.RecordOf(b.at(name), name)
	}
	stored, found := content.Names[name]
	if !found {
		return nil
	}
	over := content.Over[name]
	return &memory.Record{Name: name, Stored: json.RawMessage(stored), Event: revisionOf(over), Sender: b.Client.UserID,
		Time: time.UnixMilli(over.Time), InAccount: true}
}

// records are those of account data and of the state beneath it, but for the state events that are foreign.
func (b beneath) records(foreign func(stateKey string) bool) ([]memory.Record, error) {
	content, err := b.over()
	if err != nil {
		return nil, err
	}
	var records []memory.Record
	for stateKey, view := range b.views {
		if foreign(stateKey) {
			continue
		}
		for _, found := range memory.RecordsOf(view) {
			if found.Err != nil && !b.covered(content, stateKey) || found.Err == nil && !b.hidden(content, found.Name) {
				records = append(records, found)
			}
		}
	}
	for name := range content.Over {
		if found := b.recordOf(content, name); found != nil && found.InAccount {
			records = append(records, *found)
		}
	}
	return records, nil
}

// over is what account data has. As [roomState.checkNames] it fails where that, or the state, was sealed with another secret.
func (b beneath) over() (wire.Account, error) {
	content := b.account.current()
	err := b.CheckNames(content.Names)
	if err == nil && b.core.Layout.Atomic() {
		err = b.CheckNames(b.at("").Names)
	}
	return content, err
}

// edit makes an edit of the memory one of account data. It leaves out there what no longer counts, as far as that was written before
// the state was read. It fails with errAgain where the state was read before what it would replace was written over another
// state, and where somebody has moved the memory or tried to.
func (b beneath) edit(edit commit.Edit) commit.Edit {
	apply, since := edit.Apply, edit.Since
	edit.Since = ""
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		if b.account.count() != b.moves {
			return nil, errAgain
		}
		content := b.account.current()
		field, _ := base.Stored(wire.AccountName)
		over := wire.Overs(field)
		changes := map[string]json.RawMessage{}
		for name, o := range over {
			_, read := b.views[b.core.Layout.StateKey(name)]
			if read && b.knows(content, name, o) && (b.moved(content) || o.Base != b.base(name)) {
				delete(over, name)
				changes[name] = nil
			}
		}
		wanted, err := apply(both{base, b, over, since})
		if err != nil {
			return nil, err
		}
		for name, stored := range wanted {
			changes[name] = stored
			if wire.IsOwn(name) {
				continue
			}
			if o, ok := over[name]; ok && o.Base != b.base(name) {
				return nil, errAgain
			}
			if _, there := b.at(name).Names[name]; stored == nil && !there && !b.account.isLeftOut(b.core.Layout.StateKey(name)) {
				delete(over, name)
			} else {
				over[name] = wire.Over{Time: over[name].Time, Base: b.base(name)}
			}
		}
		for name, stored := range changes {
			if _, there := base.Stored(name); !there && stored == nil {
				delete(changes, name)
			}
		}
		if changes[wire.AccountName] = nil; len(over) > 0 {
			changes[wire.AccountName] = wire.Field(over)
		}
		return changes, nil
	}
	return edit
}

// knows tells whether the state was read after that was written to account data. What an edit before it in the same batch has made of the
// name is not written yet.
func (b beneath) knows(content wire.Account, name string, over wire.Over) bool {
	saved, ok := content.Over[name]
	return ok && over == saved && over.Time < b.began
}

// both implements [commit.Base] for account data over the state.
type both struct {
	commit.Base
	below beneath
	over  map[string]wire.Over
	since id.EventID
}

func (b both) Stored(name string) (json.RawMessage, bool) {
	if _, hides := b.over[name]; hides {
		return b.Base.Stored(name)
	}
	if stored, ok := b.below.at(name).Names[name]; ok {
		return json.RawMessage(stored), true
	}
	if wire.IsOwn(name) {
		return b.Base.Stored(name)
	}
	return nil, false
}

func (b both) Fresh(name string) bool {
	_, hides := b.over[name]
	return hides && b.Base.Fresh(name)
}

// Names is only asked for in the single-state-key layout.
func (b both) Names() map[string]string {
	names := maps.Clone(b.below.at("").Names)
	if names == nil {
		names = map[string]string{}
	}
	for name := range b.over {
		if stored, there := b.Base.Stored(name); there {
			names[name] = string(stored)
		} else {
			delete(names, name)
		}
	}
	return names
}

func (b both) Event() id.EventID { return b.below.at("").Event }

func (b both) Unchanged(name string, since id.EventID) (unchanged bool) {
	if over, hides := b.over[name]; hides {
		_, there := b.Base.Stored(name)
		return there && !b.Base.Fresh(name) && revisionOf(over) == since
	}
	view := b.below.at(name)
	if _, there := view.Names[name]; !there || view.Event == since {
		return there
	}
	if d := b.below.Replica(b.below.core.Layout.StateKey(name)); d != nil {
		d.Look(func(h *merge.History) { unchanged = h.Descends(since, h.Origin(h.Line(name), name)) })
	}
	return unchanged
}

// both is what is there of the dict under the state key, in account data and beneath it.
func (o *overlay) both(content wire.Account, stateKey string, view *replica.View) map[string]string {
	below := beneath{overlay: o, views: map[string]*replica.View{stateKey: view}}
	names := maps.Clone(view.Names)
	if names == nil {
		names = map[string]string{}
	}
	for name := range content.Over {
		if o.core.Layout.StateKey(name) != stateKey || !below.hidden(content, name) {
			continue
		}
		if stored, there := content.Names[name]; there {
			names[name] = stored
		} else {
			delete(names, name)
		}
	}
	return names
}
