package fallback

import (
	"context"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// stateView is what the state has under some names, or under all, for what lies over it.
type stateView struct {
	memory.Room
	dicts map[string]*replica.View // by state key
	whole bool                     // whether the state has nothing else
}

func newStateView(r memory.Room) stateView {
	return stateView{Room: r, dicts: map[string]*replica.View{}}
}

// read adds what is there under the names: a request for each event, or one for all where these are many. A write must know what is current at
// the homeserver.
func (v *stateView) read(ctx context.Context, names []string, writing bool) error {
	missing := memory.ByEvent(v.Layout, slices.DeleteFunc(slices.Clone(names), v.has))
	if len(missing) > memory.Parallel {
		return v.scanned(ctx, v.ListWhole)
	}
	for stateKey := range missing {
		view, err := v.current(ctx, stateKey, writing)
		if err != nil {
			return err
		}
		v.dicts[stateKey] = view
	}
	return nil
}

// readAll reads all that is there. Now is for what the homeserver has, where a listing can be behind.
func (v *stateView) readAll(ctx context.Context, now bool) error {
	switch {
	case v.Layout.Together(""):
		return v.read(ctx, []string{""}, now)
	case now:
		return v.scanned(ctx, v.ListWhole)
	default:
		return v.scanned(ctx, v.List)
	}
}

// reread reads once more what is there under the name, where a listing has told.
func (v *stateView) reread(ctx context.Context, name string) (err error) {
	if stateKey := v.Layout.StateKey(name); v.whole {
		v.dicts[stateKey], err = v.current(ctx, stateKey, false)
	}
	return err
}

// scanned adds what a listing gives.
func (v *stateView) scanned(ctx context.Context, listing func(context.Context) (map[string]*matrix.Event, error)) error {
	events, err := listing(ctx)
	for stateKey, evt := range events {
		if stateKey == v.Layout.StateKey(wire.SealName) && err == nil {
			err = v.CheckFieldsOf(evt)
		}
		if v.Layout.Holds(stateKey) && err == nil {
			v.dicts[stateKey], err = v.ViewWith(ctx, evt)
		}
	}
	v.whole = true
	return err
}

// current is the dict under the state key, with what others wrote at the same time and nobody has merged.
func (v *stateView) current(ctx context.Context, stateKey string, writing bool) (*replica.View, error) {
	if !v.Layout.Alone() && !writing && v.Follower.Live(v.ID) {
		return v.View(ctx, stateKey, maps.Equal[map[string]string, map[string]string])
	}
	current, err := memory.DictRoom{Room: v.Room, StateKey: stateKey}.Current(ctx)
	if err != nil {
		return nil, err
	}
	d := v.Dict(stateKey)
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

// has tells whether it is known what is there under the name.
func (v *stateView) has(name string) bool {
	return v.whole || v.dicts[v.Layout.StateKey(name)] != nil
}

func (v *stateView) at(name string) *replica.View {
	if view := v.dicts[v.Layout.StateKey(name)]; view != nil {
		return view
	}
	return &replica.View{}
}

// over is what account data says of a name that is written there now.
func (v *stateView) over(name string) wire.Over {
	until, _ := wire.Expiry(v.at(name).Names[name])
	return wire.Over{Base: v.base(name), Until: until}
}

// counts tells whether what lies over a name counts: while the state has what it had when that was written, or nothing since that has expired, or
// what the user has sent. The user writes to the state only while nothing lies over it, so that what lies there is later. The homeserver can have
// left an event out of the state in between, or put it back.
func (v *stateView) counts(over wire.Over, name string) bool {
	_, there := v.at(name).Names[name]
	swept := over.Until != 0 && !there
	return swept || over.Base == v.base(name) || isOwn(v.Room, name) || v.Layout.Alone() && v.at(name).Sender == v.Client.UserID
}

// isOwn tells whether the user has sent what the state has under the name, as far as this process knows its history.
func isOwn(r memory.Room, name string) (own bool) {
	if d := r.Replica(r.Layout.StateKey(name)); d != nil {
		d.Look(func(h *merge.History) { own = h.Sender(h.Origin(h.Line(name), name)) == r.Client.UserID })
	}
	return own
}

// base tells apart what can be there under a name; see [wire.Base].
func (v *stateView) base(name string) string {
	view := v.at(name)
	stored, found := view.Names[name]
	return baseOf(v.Room, stored, found, view.Event)
}

func baseOf(r memory.Room, stored string, found bool, event id.EventID) string {
	if !r.Layout.Alone() { // the event has other names too
		event = ""
	}
	return wire.Base(stored, found, event)
}

// stored is all that the view's dicts have, by name.
func (v *stateView) stored() map[string]string {
	all := map[string]string{}
	for _, view := range v.dicts {
		maps.Copy(all, view.Names)
	}
	return all
}

// expired are the names whose time is over.
func (v *stateView) expired(ctx context.Context) (map[string]bool, error) {
	names := map[string]bool{}
	for name, stored := range v.stored() {
		at, _ := wire.Expiry(stored)
		over, err := v.Expired(ctx, at)
		if err != nil {
			return nil, err
		}
		if over {
			names[name] = true
		}
	}
	return names, nil
}

// records are those of the view, but for the state events that are foreign.
func (v *stateView) records(foreign func(stateKey string) bool) (records []memory.Record) {
	for stateKey, view := range v.dicts {
		if !foreign(stateKey) {
			records = append(records, memory.RecordsOf(view)...)
		}
	}
	return records
}

// check fails with ErrWrongSecret where one of the dicts was sealed with another secret.
func (v *stateView) check() error {
	return v.CheckFields(v.at(wire.SealName).Names)
}

// unchanged is [commit.Base.Unchanged] for what the view has.
func (v *stateView) unchanged(name string, since id.EventID) (unchanged bool) {
	view := v.at(name)
	if _, there := view.Names[name]; !there || view.Event == since {
		return there
	}
	if d := v.Replica(v.Layout.StateKey(name)); d != nil {
		d.Look(func(h *merge.History) { unchanged = h.Descends(since, h.Origin(h.Line(name), name)) })
	}
	return unchanged
}

// counts tells whether one of the events counts, which were sent with an edit of the names before the homeserver refused to have them merged
// with what others wrote at the same time. An edit of several events is one that can be made twice.
func counts(ctx context.Context, r memory.Room, names []string, sent []id.EventID) (bool, error) {
	if len(sent) == 0 || len(memory.ByEvent(r.Layout, names)) > 1 {
		return false, nil
	}
	d := r.Dict(r.Layout.StateKey(names[0]))
	if err := d.Read(ctx, true); err != nil {
		return false, err
	}
	counts := true
	d.Look(func(h *merge.History) {
		for _, name := range names {
			line := h.Line(name)
			counts = counts && slices.ContainsFunc(sent, func(event id.EventID) bool { return h.Has(event) && h.Counts(event, name, line) })
		}
	})
	return counts, nil
}

// quiet waits until no write to the names is on its way, also of those who have given up.
func quiet(r memory.Room, names []string) {
	for stateKey := range memory.ByEvent(r.Layout, names) {
		if d := r.Replica(stateKey); d != nil {
			d.Writer.Idle()
		}
	}
}

// baseIn is [stateView.base] for what an edit changes.
func baseIn(r memory.Room, base commit.Base, name string) string {
	stored, found := base.Stored(name)
	return baseOf(r, string(stored), found, base.Event())
}
