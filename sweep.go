package roomkv

import (
	"context"

	"github.com/roomkv/roomkv/internal/memory"
)

// Sweep removes what has expired from the whole memory, also if the store is a [Store.Sub]. Without Sweep the next write to a state event removes what has
// expired there. If nothing has, Sweep makes no event and takes one request. Else it takes those of [Update], in the per-key layout for each key and
// [WithShards] for each state event.
//
// Errors: those of [Store.Delete], [ErrNoTime].
func (s *Store) Sweep(ctx context.Context) (err error) {
	ctx, op := s.begin(ctx, "Sweep")
	defer op.end(&err)
	return s.write(ctx, nil, func(h memory.Handle) error { return h.Sweep(ctx) })
}
