package roomkv

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"reflect"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/encode"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// DeleteKey is what the function of an [Update] returns in place of an error to have the key removed. No method returns it.
//
//lint:ignore ST1012 it is no error, like fs.SkipDir
var DeleteKey = errors.New("roomkv: remove the key")

// Update reads the value of key, calls fn with it, and stores what fn returns. If there is no value, found is false and old the zero T. No other write on
// the same homeserver comes in between: fn is called again with what it has left. If fn returns [DeleteKey] the key is removed. Any other error of fn is
// returned as it is, and nothing is changed.
//
// fn runs in the caller's goroutine and holds up other writes to the memory, in the per-key layout to the key. It must not use the store, nor do what must not
// happen twice. With [WithFlushEvery] it can run after Update too.
//
// Errors: those of fn, of [Store.Get] but for [ErrNotFound], and of [Store.Put]; [ErrInvalidOption] for a nil store or fn.
func Update[T any](ctx context.Context, s *Store, key string, fn func(old T, found bool) (T, error), opts ...PutOption) (err error) {
	if s == nil || fn == nil {
		return fault.Of(ErrInvalidOption, nil, "the store or the function is nil")
	}
	ctx, op := s.begin(ctx, "Update", key)
	defer op.end(&err)
	m, err := s.keyed(ctx, key)
	if err != nil {
		return err
	}
	at, told, err := s.core.until(ctx, opts)
	if err != nil {
		return err
	}
	return m.Update(ctx, key, func(was memory.Old) (json.RawMessage, error) {
		var old T
		if was.Found {
			if err := decode(key, was.Value, &old); err != nil {
				return nil, err
			}
		}
		changed, err := fn(old, was.Found)
		switch {
		case err == DeleteKey:
			return nil, nil
		case err != nil:
			return nil, err
		}
		stored, err := encode.Value(key, changed)
		if err != nil {
			return nil, err
		}
		if told {
			return wire.WithExpiry(stored, at), nil
		}
		return wire.WithExpiry(stored, was.Expires), nil
	})
}

// Create stores value under key where there is none. Of several that create the same key at the same time, in any
// number of goroutines and processes on one homeserver, exactly one succeeds.
//
// It takes the requests of [Update].
//
// Errors: [ErrExists], and those of [Store.Put].
func (s *Store) Create(ctx context.Context, key string, value any, opts ...PutOption) (err error) {
	ctx, op := s.begin(ctx, "Create", key)
	defer op.end(&err)
	return s.create(ctx, key, value, opts)
}

func (s *Store) create(ctx context.Context, key string, value any, opts []PutOption) error {
	stored, err := s.core.stored(ctx, key, value, opts)
	if err != nil {
		return err
	}
	return s.change(ctx, memory.Update{Key: key, Puts: true}, func(base commit.Base, h memory.Handle, name string) (json.RawMessage, error) {
		if _, found := base.Stored(name); found {
			return nil, fault.Of(ErrExists, nil, "%q in %s", key, h.ID)
		}
		return stored, nil
	})
}

// CompareAndPut stores value only if key has not changed since revision, as [Store.Entry] gave it. Changes of other keys do not matter, in either
// layout. An empty revision means that there must be no value. Of several that compare with the same revision, in any number of goroutines and processes on one
// homeserver, at most one succeeds.
//
// An Entry that waits for a flush has an empty revision: call [Store.Flush] and read again. A revision that is not among the last thousand or so of the
// memory's events counts as changed. It takes the requests of [Update].
//
// Errors: [ErrConflict], also where the key has been deleted, and those of [Store.Put].
func (s *Store) CompareAndPut(ctx context.Context, key string, value any, revision Revision, opts ...PutOption) (err error) {
	ctx, op := s.begin(ctx, "CompareAndPut", key)
	defer op.end(&err)
	stored, err := s.core.stored(ctx, key, value, opts)
	if err != nil {
		return err
	}
	return s.compareAndStore(ctx, memory.Update{Key: key, Puts: true, Since: id.EventID(revision)}, stored)
}

// CompareAndDelete removes key only if it has not changed since revision, as [Store.Entry] gave it; see [Store.CompareAndPut]. Of several that
// compare with the same revision at most one succeeds. With an empty revision there must be no value, and nothing is done.
//
// Errors: [ErrConflict], also where the key has been deleted, and those of [Store.Delete].
func (s *Store) CompareAndDelete(ctx context.Context, key string, revision Revision) (err error) {
	ctx, op := s.begin(ctx, "CompareAndDelete", key)
	defer op.end(&err)
	return s.compareAndStore(ctx, memory.Update{Key: key, Since: id.EventID(revision)}, nil)
}

// compareAndStore stores a value, nil for none, if the key has not changed since.
func (s *Store) compareAndStore(ctx context.Context, update memory.Update, stored json.RawMessage) error {
	return s.change(ctx, update, func(base commit.Base, h memory.Handle, name string) (json.RawMessage, error) {
		key, revision, room := update.Key, update.Since, h.ID
		_, found := base.Stored(name)
		switch {
		case revision == "" && found:
			return nil, fault.Of(ErrConflict, nil, "%q in %s is there already", key, room)
		case revision != "" && !found:
			return nil, fault.Of(ErrConflict, nil, "%q in %s has been deleted since %s", key, room, revision)
		case revision != "" && !base.Unchanged(name, revision):
			return nil, fault.Of(ErrConflict, nil, "%q in %s has changed since %s", key, room, revision)
		}
		return stored, nil
	})
}

// change makes a change of one key that depends on what is there. A result of nil removes the key.
func (s *Store) change(ctx context.Context, update memory.Update, fn func(commit.Base, memory.Handle, string) (json.RawMessage, error)) error {
	key := update.Key
	update.Key = s.prefix.of(key)
	return s.write(ctx, []string{key}, func(h memory.Handle) error {
		update.Apply = func(base commit.Base, name string) (json.RawMessage, error) { return fn(base, h, name) }
		return h.Update(ctx, update)
	})
}

// Pop removes key and decodes the value it had into dest, as [Store.Get] does. Of several callers that pop the same key, in any number of
// goroutines and processes on one homeserver, at most one gets no error. Use dest only then: after another error dest can hold the value, and the key
// may be gone or not. A key that is not there is [ErrNotFound]. Where the value cannot be decoded into dest nothing is removed. Pop takes the
// requests of [Update].
//
// Errors: those of [Store.Get] and [Store.Delete].
func (s *Store) Pop(ctx context.Context, key string, dest any) (err error) {
	ctx, op := s.begin(ctx, "Pop", key)
	defer op.end(&err)
	var popped json.RawMessage // the last one: what came before did not count
	err = s.change(ctx, memory.Update{Key: key, Calls: true}, func(base commit.Base, h memory.Handle, name string) (json.RawMessage, error) {
		popped = nil
		old, err := h.OldIn(ctx, base, name)
		if err == nil && !old.Found {
			err = memory.NotFound(key, h.ID)
		}
		if err != nil {
			return nil, err
		}
		// On trial, for it can turn out that this value was not the one to be removed.
		trial := dest
		if to := reflect.ValueOf(dest); to.Kind() == reflect.Pointer && !to.IsNil() {
			trial = reflect.New(to.Type().Elem()).Interface()
		}
		err = Entry{Key: key, Value: old.Value}.Decode(trial)
		if err == nil {
			popped = old.Value
		}
		return nil, err
	})
	if popped != nil {
		err = cmp.Or(err, Entry{Key: key, Value: popped}.Decode(dest))
	}
	return err
}
