package memory

import (
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Put says how values are stored.
type Put struct {
	OnlyMissing bool              // values that are there already stay as they are
	Done        func(name string) // see [Change]
}

// PutAll stores values, in their stored form and by key. Where one event has all names, nil removes a key. Values that go to the media
// repository are there before anything else is sent.
func (h Handle) PutAll(ctx context.Context, stored map[string]json.RawMessage, how Put) error {
	if len(stored) == 0 {
		return nil
	}
	names, keyOf := h.NamesOf(slices.Collect(maps.Keys(stored)))
	stored, err := h.keepAll(ctx, stored, names, keyOf)
	if err != nil {
		return err
	}
	var sealer func(ctx context.Context, again bool) (commit.Sealer, error) // one for all values; nil where each asks the room
	if !h.Layout.Atomic() {
		if sealer, err = h.checkEach(ctx, stored, names, keyOf); err != nil {
			return err
		}
	}
	return h.Commit(ctx, Change{Names: names, Done: how.Done, Edit: func(names []string) commit.Edit {
		values := make(map[string]string, len(names))
		for _, name := range names {
			values[name] = keyOf[name]
		}
		return commit.Edit{Values: values, Conditional: how.OnlyMissing, Overwrites: !how.OnlyMissing, Sealer: sealer, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changes := make(map[string]json.RawMessage, len(names))
			for _, name := range names {
				if _, there := base.Stored(name); !there || !how.OnlyMissing {
					changes[name] = stored[keyOf[name]]
				}
			}
			return changes, nil
		}}
	}})
}

// checkEach fails where one of several values that have an event each does not fit into that. It gives the sealer of all together.
func (h Handle) checkEach(ctx context.Context, stored map[string]json.RawMessage, names []string, keyOf map[string]string) (sealer func(ctx context.Context, again bool) (commit.Sealer, error), err error) {
	several := len(names) > 1
	own, err := h.Sealer(ctx, !several)
	if err != nil {
		return nil, err
	}
	slices.Sort(names)
	values := make([]commit.Value, len(names))
	for i, name := range names {
		values[i] = commit.Value{Name: name, Key: keyOf[name], Stored: wire.Canonical(stored[keyOf[name]])}
		if own != nil {
			err = own.Check(values[i])
		} else {
			err = h.Fits(h.Layout.StateKey(name), len("{}")+wire.EntrySize(name, values[i].Stored))
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
