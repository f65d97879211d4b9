package memory

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Put says how values are stored.
type Put struct {
	OnlyMissing bool              // values that are there already stay as they are
	Done        func(name string) // see [Change]

	// Onto are the keys whose values depend on what is there. Each function tells whether anything changes, and gives what is stored in place of
	// the value, nil for the key to be removed. It is given what is there now, or why that cannot be read, and can be called several times; the
	// last call counts.
	Onto map[string]func(old Old, err error) (value json.RawMessage, changes bool)

	// Sent is told of each event that was sent with values that depend on what is there, before it is known whether it counts. It may be nil.
	Sent func(names []string)
}

// PutAll stores values, in their stored form and by key. Nil removes a key where an event can hold several names, and where the value depends on
// what is there. Values that go to the media repository are there before anything else is sent.
func (h Handle) PutAll(ctx context.Context, stored map[string]json.RawMessage, how Put) error {
	if len(stored) == 0 {
		return nil
	}
	given := stored
	names, keyOf := h.NamesOf(slices.Collect(maps.Keys(stored)))
	stored, err := h.keepAll(ctx, stored, names, keyOf)
	if err != nil {
		return err
	}
	var sealer func(ctx context.Context, again bool) (commit.Sealer, error) // one for all values; nil where each event's ask the room
	if h.Layout.Alone() || len(ByEvent(h.Layout, names)) > 1 {
		if sealer, err = h.checkEach(ctx, stored, names, keyOf); err != nil {
			return err
		}
	}
	return h.Commit(ctx, Change{Names: names, Done: how.Done, Edit: func(names []string) commit.Edit {
		values := make(map[string]string, len(names))
		conditional := how.OnlyMissing
		for _, name := range names {
			values[name] = keyOf[name]
			conditional = conditional || how.Onto[keyOf[name]] != nil
		}
		edit := commit.Edit{Values: values, Conditional: conditional, Overwrites: !conditional, Sealer: sealer}
		if how.Sent != nil {
			edit.OnSent = func(id.EventID) { how.Sent(names) }
		}
		edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
			changes := make(map[string]json.RawMessage, len(names))
			for _, name := range names {
				key := keyOf[name]
				if onto := how.Onto[key]; onto != nil {
					value, remade, err := h.remade(ctx, base, name, key, given[key], stored[key], onto)
					if err != nil {
						return nil, err
					}
					if remade {
						changes[name] = value
					}
				} else if _, there := base.Stored(name); !there || !how.OnlyMissing {
					changes[name] = stored[key]
				}
			}
			return changes, nil
		}
		return edit
	}})
}

// remade is what is stored for a key whose value depends on what is there: kept, which stands for the value that was given, or another value.
func (h Handle) remade(ctx context.Context, base commit.Base, name, key string, given, kept json.RawMessage, onto func(Old, error) (json.RawMessage, bool)) (_ json.RawMessage, changes bool, err error) {
	value, changes := onto(h.OldIn(ctx, base, name))
	switch {
	case !changes || value == nil:
		return nil, changes, nil
	case string(value) == string(given):
		return kept, true, nil
	}
	if err := h.CheckLarge(ctx, name, key, value); err != nil {
		return nil, false, err
	}
	value, err = h.Keep(ctx, name, key, value)
	return value, true, err
}

// checkEach fails where one of several values that go to several events does not fit into one. It gives the sealer of all together.
func (h Handle) checkEach(ctx context.Context, stored map[string]json.RawMessage, names []string, keyOf map[string]string) (sealer func(ctx context.Context, again bool) (commit.Sealer, error), err error) {
	several := len(names) > 1
	own, err := h.Sealer(ctx, !several)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	var values []commit.Value
	for _, name := range names {
		if stored[keyOf[name]] == nil {
			continue
		}
		value := commit.ValueOf(name, keyOf[name], wire.Canonical(stored[keyOf[name]]))
		values = append(values, value)
		if own != nil {
			err = own.Check(value)
		} else {
			err = h.Fits(h.Layout.StateKey(name), len("{}")+wire.EntrySize(name, value.Stored))
		}
		if err != nil {
			return nil, fault.Advise(err, adviceOneKey)
		}
	}
	if several {
		sealer = seal.NewBatch(h.AskedSealer, values).Sealer
	}
	return sealer, nil
}
