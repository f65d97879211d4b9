package roomkv

import (
	"context"
	"crypto/rand"
	"errors"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// Once tells whether the caller is the one of several replicas that is to deal with the event. Of all calls within ttl, by processes on one homeserver, at most
// one gets true, and exactly one if none fails. Once creates the key "once/" and the event's ID, which expires after ttl, and takes the requests of [Update].
//
// Errors: those of [Store.Create] but for [ErrExists]; [ErrInvalidOption] for a ttl of zero or less and [WithSingleWriter]; [ErrForbidden] in account data.
func (s *Store) Once(ctx context.Context, event id.EventID, ttl time.Duration) (first bool, err error) {
	key := "once/" + event.String()
	ctx, op := s.begin(ctx, "Once", key)
	defer op.end(&err)
	if ttl <= 0 {
		return false, fault.Of(ErrInvalidOption, nil, "Once takes a duration above zero")
	}
	if s.core.SingleWriter {
		return false, fault.Of(ErrInvalidOption, nil, "WithSingleWriter says that no other process writes, so that there is no other replica")
	}
	if err := s.inStateOnly(ctx, "have an event dealt with once,"); err != nil {
		return false, err
	}
	err = s.create(ctx, key, wire.Once{By: rand.Text()}, []PutOption{ExpireAfter(ttl)})
	if errors.Is(err, ErrExists) {
		return false, nil
	}
	return err == nil, err
}

// inStateOnly fails where a write would go to account data, which has no history to tell who was first.
func (s *Store) inStateOnly(ctx context.Context, what string) error {
	if !s.core.fallback {
		return nil
	}
	h, err := s.handle(ctx)
	if err != nil {
		return err
	}
	m := s.core.accounts.Memory(h.Room)
	if away, err := m.Away(ctx); err != nil || !away {
		return err
	}
	return m.NotInState(ctx, what)
}
