package roomkv

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// Tx is what the function of a [Store.Transact] reads and changes. It is good until the function returns, and fails with [ErrTxDone] after that.
// Its methods may be called by several goroutines, one after the other.
type Tx struct {
	prefix prefix
	at     place
	until  func(opts []PutOption) (at int64, told bool, err error) // see [core.until]

	mu sync.Mutex
	tx *memory.Transaction // nil once the function has returned
}

// Transact calls fn and makes all that it changes in one state event, or nothing of it. Nothing that fn has read changes in between: where
// somebody on the same homeserver changes such a key at the same time, fn is called again with what came of that. As with [Update], fn is called
// in the caller's goroutine, must not use the store, and may have no effects that must not happen twice; its error is returned as it is.
//
// In the per-key layout fn can use one key, and with [WithShards] those of one tag. What waits for a flush is sent first. It takes the requests of Update.
//
// Errors: those of fn and [Store.Put], [ErrNotAtomic] for a key of another state event, [ErrInvalidOption] where fn is nil.
func (s *Store) Transact(ctx context.Context, fn func(tx *Tx) error) (err error) {
	ctx, op := s.begin(ctx, "Transact")
	defer op.end(&err)
	if fn == nil {
		return fault.Of(ErrInvalidOption, nil, "the function is nil")
	}
	room, err := s.open(ctx)
	if err != nil {
		return err
	}
	return s.write(ctx, []string{""}, func(h memory.Handle) error { // any key
		return h.Transact(ctx, func(t *memory.Transaction) error {
			tx := &Tx{prefix: s.prefix, at: place{s.core, room.ID}, tx: t, until: func(opts []PutOption) (int64, bool, error) { return s.core.until(ctx, opts) }}
			defer tx.end()
			return fn(tx)
		})
	})
}

func (tx *Tx) end() {
	tx.mu.Lock()
	defer tx.mu.Unlock()
	tx.tx = nil
}

// use calls do unless the function has returned.
func (tx *Tx) use(do func(t *memory.Transaction) error, keys ...string) error {
	if err := checkKeys(keys); err != nil {
		return err
	}
	tx.mu.Lock()
	defer tx.mu.Unlock()
	if tx.tx == nil {
		return fault.Of(ErrTxDone, nil, "its function has returned")
	}
	return do(tx.tx)
}

// Get decodes the value of key into dest, a pointer, with what fn has changed before.
//
// Errors: those of [Store.Get], [ErrNotAtomic], [ErrTxDone].
func (tx *Tx) Get(key string, dest any) error {
	var value json.RawMessage
	err := tx.use(func(t *memory.Transaction) (err error) {
		found := false
		if value, found, err = t.Value(tx.prefix.of(key)); err == nil && !found {
			err = memory.NotFound(key, t.Room())
		}
		return err
	}, key)
	if err != nil {
		return err
	}
	return decode(key, value, dest)
}

// Put stores value under key once fn has returned without an error.
//
// Errors: [ErrInvalidKey], [ErrInvalidValue], [ErrTooLarge], [ErrNotAtomic], [ErrTxDone].
func (tx *Tx) Put(key string, value any, opts ...PutOption) error {
	stored, err := encode.Value(key, value)
	if err != nil {
		return err
	}
	at, _, err := tx.until(opts)
	if err != nil {
		return err
	}
	stored = wire.WithExpiry(stored, at)
	return tx.use(func(t *memory.Transaction) error { return t.Put(tx.prefix.of(key), stored) }, key)
}

// Delete removes the keys once fn has returned without an error. A key that is not there is no error.
//
// Errors: [ErrInvalidKey], [ErrNotAtomic], [ErrTxDone].
func (tx *Tx) Delete(keys ...string) error {
	return tx.use(func(t *memory.Transaction) error {
		for _, key := range keys {
			if err := t.Delete(tx.prefix.of(key)); err != nil {
				return err
			}
		}
		return nil
	}, keys...)
}

// Keys returns the keys, sorted, with what fn has changed before. A write of any key at the same time then has fn called again. With [WithShards] it is
// ErrNotAtomic unless a [Prefix], with that of a [Store.Sub] before it, has a whole {tag}: all keys that begin with it are in one event.
//
// Errors: those of [Store.Keys], [ErrNotAtomic], [ErrTxDone].
func (tx *Tx) Keys(opts ...ListOption) (keys []string, err error) {
	list, err := listing(opts)
	if err != nil {
		return nil, err
	}
	err = tx.use(func(t *memory.Transaction) error {
		keys, err = t.Keys(tx.prefix.listed(list))
		return err
	})
	return tx.prefix.relative(keys), err
}

// Require makes the Transact change nothing unless the lease is held when the change is made. So no write of an earlier holder counts once another process
// has had the lease. The lease must come from a store of the same room and the same [New]. In the per-key layout no other key can be used beside it.
//
// Errors: [ErrLeaseLost], [ErrNotAtomic], [ErrTxDone], [ErrInvalidOption] for a lease of another room or [New].
func (tx *Tx) Require(l *Lease) error {
	if l == nil || l.at != tx.at {
		return fault.Of(ErrInvalidOption, nil, "the lease is not one of the same memory")
	}
	return tx.use(func(t *memory.Transaction) error {
		value, found, err := t.Value(l.key)
		if err != nil {
			return err
		}
		var is wire.Lease
		if found {
			if err := decode(l.key, value, &is); err != nil {
				return err
			}
		}
		select {
		case <-l.done:
			is.Holder = ""
		default:
		}
		if is.Holder != l.own || is.Fence != l.fence {
			return fault.Of(ErrLeaseLost, nil, "%q in %s", l.key, t.Room())
		}
		return nil
	})
}
