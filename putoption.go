package roomkv

import (
	"context"
	"encoding/json"
	"time"

	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// PutOption says how a call such as [Store.Put] stores its value.
type PutOption func(*putting)

// putting is what options say of a value.
type putting struct {
	told  bool // whether they say when it expires
	after time.Duration
}

// ExpireAfter makes the value expire after d, by the homeserver's clock and to within a second. From then on no method finds it but History and At, and the next
// write to its state event removes it; see [Store.Sweep]. A write without ExpireAfter takes the expiry off, but [Update] keeps it. With 0 the value does not
// expire. opsdroid sees the value until it is removed. The homeserver is asked for its time about every ten minutes, also by reads of what expires.
//
// Errors of the call that is given it: [ErrInvalidOption] below 0 or beyond the year 9999, [ErrNoTime], those of requests.
func ExpireAfter(d time.Duration) PutOption {
	return func(p *putting) { p.told, p.after = true, d }
}

// until is when what is put with these options expires, in Unix milliseconds, 0 where it does not.
func (c *core) until(ctx context.Context, opts []PutOption) (at int64, told bool, err error) {
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
	now, err := c.Now(ctx)
	if err != nil {
		return 0, false, err
	}
	if at = now + max(1, put.after.Milliseconds()); at > wire.MaxTime {
		return 0, false, fault.Of(ErrInvalidOption, nil, "ExpireAfter takes no duration that ends after the year 9999")
	}
	return at, true, nil
}

// stored is the stored form of a value that is put with these options.
func (c *core) stored(ctx context.Context, key string, value any, opts []PutOption) (json.RawMessage, error) {
	stored, err := encode.Value(key, value)
	if err != nil {
		return nil, err
	}
	at, _, err := c.until(ctx, opts)
	return wire.WithExpiry(stored, at), err
}
