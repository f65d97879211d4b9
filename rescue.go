package roomkv

import (
	"context"
	"encoding/json"
	"maps"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
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
// the same moment as the power is taken away, and leave it out of the state afterwards. So it does with what others wrote at the same
// time as an edit that is still being made, which nobody is going to merge. In the single-state-key layout the writer
// looks back: on Dendrite, which throws the event away, it finds out by itself, and on Synapse, which lists the event,
// [overlay.view] has it.
func (o *overlay) rescue(ctx context.Context, stateKey string, sent recent) error {
	evt, err := o.get(ctx, stateKey)
	if err != nil {
		return err
	}
	stands := evt != nil && evt.ID == sent.event
	if evt != nil && !stands {
		event, err := o.getEvent(ctx, sent.event)
		stands = err == nil && evt.Time >= event.Timestamp // somebody has written later
	}
	making := o.account.making(stateKey)
	switch {
	case !stands:
		o.account.lacks(stateKey)
	case len(making.events) == 0:
		return nil
	}
	names, counted, err := o.said(ctx, stateKey, sent, making)
	o.dict(stateKey).Forget()
	if err != nil {
		return err
	}
	below := o.nothing()
	below.views[stateKey] = &replica.View{}
	if evt != nil {
		below.views[stateKey] = o.viewOf(evt, stateKey)
	}
	if !stands || !maps.Equal(names, below.views[stateKey].Names) {
		err = o.writer.Do(ctx, below.edit(commit.Edit{Conditional: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			changes := map[string]json.RawMessage{}
			for name := range below.views[stateKey].Names {
				changes[name] = nil
			}
			for name, stored := range names {
				changes[name] = json.RawMessage(stored)
			}
			return changes, nil
		}}))
	}
	if err == nil {
		o.account.take(counted...)
	}
	return err
}

// said is what the state would have if it did not lack the event, and what was written at the same time were merged, and which of the
// events that are being made count there. Where the homeserver lists the event, it may have been sent without knowing of others like it, and
// not count beside them. It does not wait for who writes there, whose [Update] may wait for us.
func (o *overlay) said(ctx context.Context, stateKey string, sent recent, making making) (names map[string]string, counted []id.EventID, err error) {
	apart := new(replica.Dict)
	reader := commit.NewWriter(apart, place{o.roomState, stateKey}, commit.Mode{OneName: true, Doubt: true})
	err = reader.Do(ctx, commit.Edit{ReadOnly: true, Conditional: true, Afresh: true, Overwrites: true})
	if err != nil {
		return nil, nil, err
	}
	listed := false
	apart.Look(func(h *merge.History) {
		listed = h.Has(sent.event)
		line := h.Line(making.name)
		for _, event := range making.events {
			if h.Has(event) && h.Counts(event, making.name, line) {
				counted = append(counted, event)
			}
		}
	})
	if view := apart.View(); listed && view != nil && view.Err == nil {
		return view.Names, counted, nil
	}
	dict, err := o.core.layout.parse(stateKey, sent.content)
	if err != nil {
		return nil, nil, nil // it was nothing to begin with
	}
	return dict.Names(), []id.EventID{sent.event}, nil
}
