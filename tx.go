package roomkv

import (
	"context"
	"encoding/json"
	"sync"

	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
)

// Tx is what the function of a [Store.Transact] reads and changes. It is good until the function returns, and fails with [ErrTxDone] after that.
// Its methods may be called by several goroutines, one after the other.
type Tx struct {
	prefix prefix

	mu sync.Mutex
	tx *memory.Transaction // nil once the function has returned
}

// Transact calls fn and makes all that it changes in one state event, or nothing of it. Nothing that fn has read changes in between: where
// somebody on the same homeserver changes such a key at the same time, fn is called again with what came of that. As with [Update], fn is called
// in the caller's goroutine, must not use the store, and may have no effects that must not happen twice; its error is returned as it is.
//
// In the per-key layout fn can use one key, and with [WithShards] keys of one state event, such as those of one tag. What waits for a flush is sent first.
// It takes the requests of Update.
//
// Errors: those of fn and of [Store.Put], [ErrNotAtomic] for a key of another state event, [ErrInvalidOption] where fn is nil.
func (s *Store) Transact(ctx context.Context, fn func(tx *Tx) error) error {
	if fn == nil {
		return fault.Of(ErrInvalidOption, nil, "the function is nil")
	}
	return s.write(ctx, []string{""}, func(h memory.Handle) error { // any key
		return h.Transact(ctx, func(t *memory.Transaction) error {
			tx := &Tx{prefix: s.prefix, tx: t}
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
func (tx *Tx) Put(key string, value any) error {
	stored, err := encode.Value(key, value)
	if err != nil {
		return err
	}
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
