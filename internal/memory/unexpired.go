package memory

import (
	"context"
	"encoding/json"
	"iter"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

// unexpired is a memory without what has expired there.
type unexpired struct {
	Memory
	room Room
}

// Unexpired is the memory of the room without what has expired there.
func (r Room) Unexpired(m Memory) Memory { return unexpired{m, r} }

// expired tells whether the record's time is over.
func (r Room) expired(ctx context.Context, found *Record) (bool, error) {
	at := found.Until()
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
		over, err := r.expired(ctx, &found)
		if err != nil {
			failed = err
		}
		return over
	})
	return records, failed
}

// Find implements [Memory].
func (m unexpired) Find(ctx context.Context, name string, afresh bool) (*Record, error) {
	found, err := m.Memory.Find(ctx, name, afresh)
	if found == nil || err != nil {
		return found, err
	}
	if over, err := m.room.expired(ctx, found); over || err != nil {
		return nil, err
	}
	return found, nil
}

// All implements [Memory].
func (m unexpired) All(ctx context.Context) ([]Record, error) {
	records, err := m.Memory.All(ctx)
	if err != nil {
		return records, err
	}
	return m.room.unexpired(ctx, records)
}

// Named implements [Memory].
func (m unexpired) Named(ctx context.Context, names []string) (map[string]Record, error) {
	found, err := m.Memory.Named(ctx, names)
	if err != nil {
		return found, err
	}
	for name, record := range found {
		over, err := m.room.expired(ctx, &record)
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
func (m unexpired) Parts(ctx context.Context, foreign func(stateKey string) bool) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		for part, err := range m.Memory.Parts(ctx, foreign) {
			if err == nil {
				part.Records, err = m.room.unexpired(ctx, part.Records)
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
	if h.Layout.Atomic() {
		change.Names, change.Whole = []string{wire.Name("")}, true
		return h.Commit(ctx, change)
	}
	records, err := h.InState().All(ctx)
	if err != nil {
		return err
	}
	for _, found := range records {
		over, err := h.expired(ctx, &found)
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
