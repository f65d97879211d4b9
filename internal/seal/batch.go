package seal

import (
	"context"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
)

// Batch seals values that have a state event each and are written together: as many as fit share an encrypted event,
// which is sent when the first of them is needed. Which ones share does not depend on which that is.
type Batch struct {
	alone  func(ctx context.Context) (commit.Sealer, error)
	values []commit.Value

	turn   chan struct{}                   // holds an element while somebody seals; guards the rest
	groups map[commit.Value][]commit.Value // those that share an event with the value, while that is not sent; nil before the first Seal
	sealed map[commit.Value]string         // references that nobody has asked for yet
}

// NewBatch makes a batch of values. Alone gives the sealer of each by itself, or nil where values are not to be encrypted.
func NewBatch(alone func(ctx context.Context) (commit.Sealer, error), values []commit.Value) *Batch {
	return &Batch{alone: alone, values: values, turn: make(chan struct{}, 1), sealed: map[commit.Value]string{}}
}

// Sealer is for [commit.Edit]. Whoever made the batch has just asked whether the room is encrypted.
func (b *Batch) Sealer(ctx context.Context, _ bool) (commit.Sealer, error) {
	found, err := b.alone(ctx)
	alone, ok := found.(sealer)
	if err != nil || !ok {
		return nil, err
	}
	return batchSealer{alone, b}, nil
}

// batchSealer implements [commit.Sealer]. Values that are not of the batch are sealed as ever.
type batchSealer struct {
	sealer
	batch *Batch
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
	if err := b.divide(s.sealer); err != nil {
		return nil, err
	}
	references := make(map[string]string, len(values))
	var others []commit.Value
	for _, value := range values {
		if err := b.seal(ctx, s.sealer, b.groups[value]); err != nil {
			return nil, err
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
	maps.Copy(references, sealed)
	return references, err
}

// divide decides which values share an event.
func (b *Batch) divide(sealer sealer) error {
	if b.groups != nil {
		return nil
	}
	groups := make(map[commit.Value][]commit.Value, len(b.values))
	for rest := b.values; len(rest) > 0; {
		n, err := sealer.share(rest)
		if err != nil {
			return err
		}
		for _, value := range rest[:n] {
			groups[value] = rest[:n]
		}
		rest = rest[n:]
	}
	b.groups = groups
	return nil
}

// seal sends the event of a group, of which there is nothing where that is sent.
func (b *Batch) seal(ctx context.Context, sealer sealer, group []commit.Value) error {
	if len(group) == 0 {
		return nil
	}
	sealed, err := sealer.Seal(ctx, slices.Clone(group)) // it sorts what it is given
	if err != nil {
		return err
	}
	for _, value := range group {
		b.sealed[value] = sealed[value.Name]
		delete(b.groups, value)
	}
	return nil
}
