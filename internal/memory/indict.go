package memory

import (
	"context"
	"iter"
	"maps"
)

// inDict is the memory in one state event.
type inDict struct{ inState }

// All implements [Memory].
func (m inDict) All(ctx context.Context) ([]Record, error) {
	view, err := m.View(ctx, m.Layout.StateKey(""), maps.Equal[map[string]string])
	if err == nil {
		err = view.Err
	}
	if err == nil {
		err = m.CheckFields(view.Names)
	}
	if err != nil {
		return nil, err
	}
	return RecordsOf(view), nil
}

// now is All as the homeserver has it.
func (m inDict) now(ctx context.Context) ([]Record, error) {
	view, err := m.Afresh(ctx, m.Layout.StateKey(""))
	if err == nil {
		err = m.CheckFields(view.Names)
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
func (m inDict) Remove(ctx context.Context, names []string, done func(name string)) error {
	return m.Commit(ctx, Removal(names, done))
}
