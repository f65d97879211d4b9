package memory

import (
	"context"
	"encoding/json"
	"errors"
	"slices"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// Drop implements [commit.Room]. Whoever merges or overwrites the same values at the same time drops them too, and a second
// redaction changes nothing.
func (p DictRoom) Drop(ctx context.Context, stored []string) {
	p.DropOld(ctx, stored, p.StateKey)
}

// DropOld redacts the events that stored refers to, but for those that the state refers to. References in the events under the state keys besides do not count.
func (r Room) DropOld(ctx context.Context, stored []string, besides ...string) {
	var events []id.EventID
	for _, text := range stored {
		events = append(events, wire.References(json.RawMessage(text))...)
	}
	events = append(events, r.drops.take(r.ID)...)
	slices.Sort(events)
	if events = slices.Compact(events); len(events) == 0 {
		return
	}
	failed := events
	current, err := r.List(ctx)
	if err == nil {
		for _, stateKey := range besides { // the caller has just replaced these events, and a listing can still show the old ones
			delete(current, stateKey)
		}
		failed, err = r.RedactValues(ctx, events, Referred(current))
	}
	if err != nil {
		r.drops.keep(r.ID, failed)
		r.Log(ctx).Warn().Err(err).Stringer("room_id", r.ID).Int("events", len(failed)).Msg("Old values were not redacted")
	}
}

// RedactValues redacts events but for those that are in use. It gives those that could not be redacted, and why the last could
// not.
func (r Room) RedactValues(ctx context.Context, events []id.EventID, used map[id.EventID]bool) (failed []id.EventID, last error) {
	for _, event := range events {
		if used[event] {
			continue
		}
		// The state can name any event, and only the store's own are the store's to redact.
		_, err := r.Reader().NotWaiting().sealed().Open(ctx, event)
		switch {
		case errors.Is(err, fault.ErrCorrupt), errors.Is(err, fault.ErrRedacted):
			continue
		case err == nil:
			err = r.Redact(ctx, event)
		}
		switch {
		case errors.Is(err, fault.ErrUndecryptable):
			last = err
		case errors.Is(err, mautrix.MForbidden):
			last = r.ExplainRedact(ctx, event, err) // and is not tried again
		case err != nil:
			failed, last = append(failed, event), r.Explain(ctx, "redact", err)
		}
	}
	return failed, last
}

// Referred are the events that the state refers to.
func Referred(current map[string]*matrix.Event) map[id.EventID]bool {
	used := map[id.EventID]bool{}
	for _, evt := range current {
		var names map[string]json.RawMessage
		if json.Unmarshal(evt.Content, &names) != nil {
			continue
		}
		for _, stored := range names {
			for _, event := range wire.References(stored) {
				used[event] = true
			}
		}
	}
	return used
}
