package roomkv

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fault"
)

// learnEncryption has it know how the room is encrypted.
func (r roomState) learnEncryption(ctx context.Context) error {
	at := r
	at.eventType = event.StateEncryption
	found, err := at.get(ctx, "")
	switch {
	case err != nil:
		return err
	case found == nil:
		return fault.Of(ErrNoCrypto, nil, "%s is encrypted, or has encrypted values in its memory, and the homeserver has no %s there, so nothing was written; "+
			"find out why, or write values that the homeserver can read with WithEncryption(false)", r.ID, event.StateEncryption.Type)
	}
	evt := &event.Event{ID: found.ID, Sender: found.Sender, Type: event.StateEncryption, StateKey: found.StateKey, RoomID: r.ID}
	if json.Unmarshal(found.Content, &evt.Content) != nil || evt.Content.ParseRaw(evt.Type) != nil {
		return fault.Of(ErrCorrupt, nil, "event %s in %s does not say how the room is encrypted", found.ID, r.ID)
	}
	mautrix.UpdateStateStore(ctx, r.Client.StateStore, evt)
	return nil
}
