package memory

import (
	"context"
	"iter"
	"maps"

	"github.com/roomkv/roomkv/internal/fault"
)

// adviceOneDict is what to do about a memory that is too large, once its large values are out of it.
const adviceOneDict = "delete keys, store less under them, or Copy the memory to a store WithPerKeyState, where each key has that much to itself"

// inDict is the memory in one state event.
type inDict struct {
	Room
	stateKey string
}

// Find implements [Memory].
func (m inDict) Find(ctx context.Context, name string, afresh bool) (*Record, error) {
	return m.find(ctx, m.stateKey, name, afresh)
}

// All implements [Memory].
func (m inDict) All(ctx context.Context) ([]Record, error) {
	view, err := m.View(ctx, m.stateKey, maps.Equal[map[string]string])
	if err == nil {
		err = view.Err
	}
	if err == nil {
		err = m.CheckNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return RecordsOf(view), nil
}

// now is All as the homeserver has it.
func (m inDict) now(ctx context.Context) ([]Record, error) {
	view, err := m.Afresh(ctx, m.stateKey)
	if err == nil {
		err = m.CheckNames(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return RecordsOf(view), nil
}

// Named implements [Memory].
func (m inDict) Named(ctx context.Context, _ []string) (map[string]Record, error) {
	records, err := m.now(ctx)
	found := make(map[string]Record, len(records))
	for _, record := range records {
		found[record.Name] = record
	}
	return found, err
}

// Parts implements [Memory]: there is one.
func (m inDict) Parts(ctx context.Context, _ func(stateKey string) bool) iter.Seq2[Part, error] {
	return func(yield func(Part, error) bool) {
		records, err := m.now(ctx)
		yield(Part{Records: records}, err)
	}
}

// Remove implements [Memory].
func (m inDict) Remove(ctx context.Context, names []string, _ func(name string)) error {
	return m.Commit(ctx, Removal(names))
}

// Commit implements [Memory].
func (m inDict) Commit(ctx context.Context, change Change) error {
	return fault.Advise(m.Dict(m.stateKey).Writer.Do(ctx, m.Fitting(ctx, m.Sealing(change.Edit(change.Names)))), adviceOneDict)
}
