package memory

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// fields reads a value whose fields are in encrypted events, one or several in each, as opsdroid stored dicts in the per-key
// layout before it encrypted them whole. What is known of the value is what the least trusted event says.
func (r Reader) fields(ctx context.Context, key string, fields map[string]json.RawMessage, from id.EventID) (Value, error) {
	all := Value{Key: key}
	values := make(map[string]json.RawMessage, len(fields))
	for field, stored := range fields {
		read, err := wire.Decode(stored)
		if err != nil || read.Event == "" { // one that was stored before the room was encrypted
			if err := r.trustsState(ctx); err != nil {
				return all, fault.Of(fault.ErrUntrusted, err, "event %s in %s, key %q: a field of the value is not encrypted", from, r.ID, key)
			}
			values[field] = stored
			continue
		}
		inside, err := r.inEvent(ctx, wire.Name(field), read.Event)
		if !all.Encrypted || inside.Trust < all.Trust {
			all.Encrypted, all.By, all.Trust = true, inside.By, inside.Trust
		}
		if err != nil {
			return all, err
		}
		values[field] = inside.JSON
	}
	text, err := json.Marshal(values)
	if err != nil {
		return all, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q", from, r.ID, key)
	}
	all.JSON = text
	return all, nil
}
