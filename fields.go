package roomkv

import (
	"context"
	"encoding/json"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// fields reads a value whose fields are in encrypted events, one or several in each, as opsdroid stored dicts in the per-key
// layout before it encrypted them whole. What is known of the value is what the least trusted event says.
func (r roomState) fields(ctx context.Context, key string, fields map[string]json.RawMessage, from id.EventID) (value, error) {
	all := value{key: key}
	values := make(map[string]json.RawMessage, len(fields))
	for field, stored := range fields {
		read, err := wire.Decode(stored)
		if err != nil || read.Event == "" { // one that was stored before the room was encrypted
			if err := r.trustsState(ctx); err != nil {
				return all, fault.Of(ErrUntrusted, err, "event %s in %s, key %q: a field of the value is not encrypted", from, r.ID, key)
			}
			values[field] = stored
			continue
		}
		inside, err := r.sealed(ctx, wire.Name(field), read.Event)
		if !all.encrypted || inside.trust < all.trust {
			all.encrypted, all.sender, all.trust = true, inside.sender, inside.trust
		}
		if err != nil {
			return all, err
		}
		values[field] = inside.json
	}
	text, err := json.Marshal(values)
	if err != nil {
		return all, fault.Of(ErrCorrupt, err, "event %s in %s, key %q", from, r.ID, key)
	}
	all.json = text
	return all, nil
}
