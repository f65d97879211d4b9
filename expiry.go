package roomkv

import (
	"context"
	"encoding/json"
	"time"

	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// PutOption says how a value is stored.
type PutOption func(*putting)

// putting is what options say of a value.
type putting struct {
	told  bool // whether they say when it expires
	after time.Duration
}

// ExpireAfter has the value count for that long only. Then no method finds it, and the next write to its state event removes it. The time goes by the homeserver's
// clock, from the call on, to within a second: processes whose clocks differ decide alike. A write without ExpireAfter takes the expiry off, but
// an [Update] keeps it. Zero is for ever.
//
// The homeserver and opsdroid see the time, and the value until it is removed; see [Store.Sweep]. It takes one request more every ten minutes, for the
// homeserver's time, and so does a read of what expires.
//
// Errors of the call: [ErrInvalidOption] for less than zero or for what ends after the year 9999, [ErrNoTime], and those of requests.
func ExpireAfter(d time.Duration) PutOption {
	return func(p *putting) { p.told, p.after = true, d }
}

// until is when what is put with these options expires, in Unix milliseconds, 0 where it does not.
func (s *Store) until(ctx context.Context, opts []PutOption) (at int64, told bool, err error) {
	var put putting
	if err := apply(&put, opts); err != nil {
		return 0, false, err
	}
	switch {
	case put.after < 0:
		return 0, false, fault.Of(ErrInvalidOption, nil, "ExpireAfter takes no negative duration")
	case put.after == 0:
		return 0, put.told, nil
	}
	now, err := s.core.Now(ctx)
	if err != nil {
		return 0, false, err
	}
	if at = now + max(1, put.after.Milliseconds()); at > wire.MaxTime {
		return 0, false, fault.Of(ErrInvalidOption, nil, "ExpireAfter takes no duration that ends after the year 9999")
	}
	return at, true, nil
}

// stored is the stored form of a value that is put with these options.
func (s *Store) stored(ctx context.Context, key string, value any, opts []PutOption) (json.RawMessage, error) {
	stored, err := encode.Value(key, value)
	if err != nil {
		return nil, err
	}
	at, _, err := s.until(ctx, opts)
	return expiring(stored, at), err
}

// expiring is a stored form that counts until then.
func expiring(stored json.RawMessage, at int64) json.RawMessage {
	if at == 0 {
		return stored
	}
	return json.RawMessage(wire.Expiring(string(stored), at))
}

// Sweep removes all that has expired in the memory of the room, also what a [Store.Sub] does not see. Without it the next write to a state event removes
// what has expired there: in the single-state-key layout that of any key, in the per-key layout that of the same key.
//
// Where nothing has expired it makes no event and takes the requests of [Store.Keys]. Else it takes those of [Store.Update] in the single-state-key
// layout, and in the per-key layout those of an Update for each key.
//
// Errors: those of [Store.Delete], and [ErrNoTime].
func (s *Store) Sweep(ctx context.Context) error {
	return s.write(ctx, nil, func(h memory.Handle) error { return h.Sweep(ctx) })
}
