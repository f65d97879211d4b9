package memory

import (
	"context"
	"encoding/json"
	"iter"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// Expired tells whether that time is over, in Unix milliseconds by the homeserver's clock; 0 never is.
func (r Room) Expired(ctx context.Context, at int64) (bool, error) {
	if at == 0 {
		return false, nil
	}
	now, err := r.Now(ctx)
	return err == nil && at <= now, err
}

// unexpired leaves those records out whose time is over.
func (r Room) unexpired(ctx context.Context, records []Record) ([]Record, error) {
	var failed error
	records = slices.DeleteFunc(records, func(found Record) bool {
		over, err := r.Expired(ctx, found.Until())
		if err != nil {
			failed = err
		}
		return over
	})
	return records, failed
}

// Find implements [Memory], as do All, Named and Parts. A handle has nothing that has expired.
func (h Handle) Find(ctx context.Context, name string, afresh bool) (*Record, error) {
	found, err := h.Memory.Find(ctx, name, afresh)
	if found == nil || err != nil {
		return found, err
	}
	if over, err := h.Expired(ctx, found.Until()); over || err != nil {
		return nil, err
	}
	return found, nil
}

// All implements [Memory].
func (h Handle) All(ctx context.Context) ([]Record, error) {
	records, err := h.Memory.All(ctx)
	if err != nil {
		return records, err
	}
	return h.unexpired(ctx, records)
}

// Some implements [Memory].
func (h Handle) Some(ctx context.Context, names []string) ([]Record, error) {
	records, err := h.Memory.Some(ctx, names)
	if err != nil {
		return records, err
	}
	return h.unexpired(ctx, records)
}

// Named implements [Memory].
func (h Handle) Named(ctx context.Context, names []string) (map[string]Record, error) {
	found, err := h.Memory.Named(ctx, names)
	if err != nil {
		return found, err
	}
	for name, record := range found {
		over, err := h.Expired(ctx, record.Until())
		if err != nil {
			return nil, err
		}
		if over {
			delete(found, name)
		}
	}
	return found, nil
}

// Parts implements [Memory].
func (h Handle) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for part, err := range h.Memory.Parts(ctx, foreign) {
			if err == nil {
				part.Records, err = h.unexpired(ctx, part.Records)
			}
			if !yield(part, err) {
				return
			}
		}
	}
}

// Sweep removes what has expired: from a dict of all names in one event, else with an event for each name.
func (h Handle) Sweep(ctx context.Context) error {
	none := func(commit.Base) (map[string]json.RawMessage, error) { return nil, nil }
	change := Change{Edit: func([]string) commit.Edit { return commit.Edit{Conditional: true, Sweeps: true, Apply: none} }}
	if h.Layout.Together("") {
		change.Names, change.Whole = []string{wire.Name("")}, true
		return h.Commit(ctx, change)
	}
	records, err := h.Memory.All(ctx)
	if err != nil {
		return err
	}
	for _, found := range records {
		over, err := h.Expired(ctx, found.Until())
		if err != nil {
			return err
		}
		if over {
			change.Names = append(change.Names, found.Name)
		}
	}
	if len(change.Names) == 0 {
		return nil
	}
	return h.Commit(ctx, change)
}

// Until is until when the record counts, in Unix milliseconds, 0 where that is for ever.
func (r *Record) Until() int64 {
	return wire.Until(r.Stored)
}
