package roomkv

import (
	"context"
	"encoding/json"
	"maps"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
)

func (o *overlay) rescueAll(ctx context.Context) error {
	for stateKey, sent := range o.account.lately() {
		if err := o.rescue(ctx, stateKey, sent); err != nil {
			return err
		}
		o.account.rescued(stateKey, sent.event)
	}
	return nil
}

// rescue takes to account data what was acknowledged and is not in the state: homeservers acknowledge a state event that is sent at
// the same moment as the power is taken away, and leave it out of the state afterwards. It takes along what others wrote at the same
// time as it or as an edit that has not ended or has failed, for nobody else will merge the two. In the single-state-key layout the writer
// looks back: on Dendrite, which throws the event away, it finds out by itself, and on Synapse, which lists the event,
// [overlay.view] has it.
func (o *overlay) rescue(ctx context.Context, stateKey string, sent recent) error {
	evt, err := o.Get(ctx, stateKey)
	if err != nil {
		return err
	}
	stands := evt != nil && evt.ID == sent.event
	if evt != nil && !stands {
		event, err := o.GetEvent(ctx, sent.event)
		stands = err == nil && evt.Time >= event.Timestamp // somebody has written later
	}
	edits := o.account.unsettled(stateKey)
	switch {
	case !stands:
		o.account.lacks(stateKey)
	case len(edits.events) == 0:
		return nil
	}
	said, err := o.said(ctx, stateKey, sent, stands, edits)
	o.Dict(stateKey).Forget()
	if err != nil {
		return err
	}
	below := o.nothing()
	below.views[stateKey] = &replica.View{}
	if evt != nil {
		below.views[stateKey] = o.ViewOf(evt)
	}
	if stands && !said.known {
		return nil
	}
	if !stands || !maps.Equal(said.names, below.views[stateKey].Names) {
		err = o.writer.Do(ctx, below.edit(commit.Edit{Conditional: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			changes := map[string]json.RawMessage{}
			for name := range below.views[stateKey].Names {
				changes[name] = nil
			}
			for name, stored := range said.names {
				changes[name] = json.RawMessage(stored)
			}
			return changes, nil
		}}))
		if err != nil {
			return err
		}
		o.account.has(stateKey, said.heads)
	}
	o.account.take(said.counted...)
	return nil
}

// said is what a state key would have if the state did not lack an event, and if what was written at the same time were merged.
type said struct {
	known   bool // false where it cannot be read
	names   map[string]string
	heads   []id.EventID // what is merged
	counted []id.EventID // the events of edits that count there
}

// said finds that out for an event that was sent, which the state has, or had until somebody wrote later, where it stands. The homeserver can
// list the event where the state lacks it, and it may have been sent without knowing of others like it, and not count beside them. It
// does not wait for who writes there, whose [Update] may wait for us.
func (o *overlay) said(ctx context.Context, stateKey string, sent recent, stands bool, edits unsettled) (said, error) {
	var all said
	apart, err := o.apart(ctx, stateKey)
	if err != nil {
		return all, err
	}
	apart.Do(func(h *merge.History) {
		if !stands && !h.Has(sent.event) { // thrown away
			h.Add(o.roomState.Parsed(&matrix.Event{ID: sent.event, Sender: o.Client.UserID, Time: sent.at.UnixMilli(),
				StateKey: &stateKey, Content: sent.content, Listed: true}))
			if len(h.Missing()) > 0 {
				h.GiveUp()
			}
		}
		for _, event := range h.Unplaced("") { // what was thrown away has no place among the others
			h.Place(event, 0, false)
		}
		for _, head := range h.Heads() {
			all.heads = append(all.heads, head.ID)
		}
		line := h.Line(edits.name)
		for _, event := range edits.events {
			if h.Has(event) && h.Counts(event, edits.name, line) {
				all.counted = append(all.counted, event)
			}
		}
	})
	if view := apart.View(); view != nil && view.Err == nil {
		all.known, all.names = true, view.Names
	} else if dict, err := o.core.Layout.Parse(stateKey, sent.content); err == nil && !stands {
		all.known, all.names = true, dict.Names()
	}
	return all, nil
}
