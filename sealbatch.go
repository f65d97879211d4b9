package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/commit"
)

// sealBatch seals values that have a state event each and are written together: as many as fit share an encrypted event,
// which is sent when the first of them is needed.
type sealBatch struct {
	room   roomState
	values []commit.Value
	at     map[commit.Value]int // in values

	turn   chan struct{}           // holds an element while somebody seals; guards the rest
	sealed map[commit.Value]string // references that nobody has asked for yet
	done   []bool                  // which of values have been sealed
}

func newSealBatch(room roomState, values []commit.Value) *sealBatch {
	b := &sealBatch{room: room, values: values, turn: make(chan struct{}, 1), at: make(map[commit.Value]int, len(values)), sealed: map[commit.Value]string{}, done: make([]bool, len(values))}
	for i, value := range values {
		b.at[value] = i
	}
	return b
}

// sealer is for [commit.Edit]. Whoever made the batch has just asked whether the room is encrypted.
func (b *sealBatch) sealer(ctx context.Context, _ bool) (commit.Sealer, error) {
	found, err := place{roomState: b.room}.Sealer(ctx, true)
	alone, ok := found.(sealer)
	if err != nil || !ok {
		return nil, err
	}
	return batchSealer{alone, b}, nil
}

// batchSealer implements [commit.Sealer]. Values that are not of the batch are sealed as ever.
type batchSealer struct {
	sealer
	batch *sealBatch
}

// Seal implements [commit.Sealer]. A reference is given once: where a value is sealed again, others may have dropped the first.
func (s batchSealer) Seal(ctx context.Context, values []commit.Value) (map[string]string, error) {
	b := s.batch
	select {
	case b.turn <- struct{}{}:
		defer func() { <-b.turn }()
	case <-ctx.Done():
		return nil, ctx.Err()
	}
	references := make(map[string]string, len(values))
	var others []commit.Value
	for _, value := range values {
		i, ok := b.at[value]
		if ok && !b.done[i] {
			if err := b.sealFrom(ctx, s.sealer, i); err != nil {
				return nil, err
			}
		}
		reference, ok := b.sealed[value]
		if !ok {
			others = append(others, value)
			continue
		}
		references[value.Name] = reference
		delete(b.sealed, value)
	}
	if len(others) == 0 {
		return references, nil
	}
	sealed, err := s.sealer.Seal(ctx, others)
	for name, reference := range sealed {
		references[name] = reference
	}
	return references, err
}

// sealFrom seals a value and those after it, as many as share an event with it.
func (b *sealBatch) sealFrom(ctx context.Context, sealer sealer, from int) error {
	end := from
	for end < len(b.values) && !b.done[end] {
		end++
	}
	_, n, err := sealer.share(b.values[from:end])
	if err != nil {
		return err
	}
	values := append([]commit.Value{}, b.values[from:from+n]...) // Seal sorts what it is given
	sealed, err := sealer.Seal(ctx, values)
	if err != nil {
		return err
	}
	for i, value := range b.values[from : from+n] {
		b.sealed[value] = sealed[value.Name]
		b.done[from+i] = true
	}
	return nil
}
