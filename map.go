package roomkv

import (
	"context"
	"encoding/json"
	"iter"

	"github.com/roomkv/roomkv/internal/fault"
)

// Map is a store whose values are all of type T. [MapOf] makes one. It is a small value, and its methods are safe for concurrent use.
type Map[T any] struct{ store *Store }

// MapEntry is an entry of a [Map].
type MapEntry[T any] struct {
	Key   string
	Value T
	Entry Entry // what Matrix knows of it
}

// MapChange is a change of a [Map]. Old and New are nil where the key was not there before, or is not there now.
type MapChange[T any] struct {
	Key      string
	Old, New *T
	Change   Change // what Matrix knows of it
}

// MapOf returns the store's memory as a map from keys to values of type T. The store stays as it is. With a nil store each method fails with
// [ErrInvalidOption].
func MapOf[T any](s *Store) Map[T] { return Map[T]{s} }

// Store is the store that the map was made of.
func (m Map[T]) Store() *Store { return m.store }

func (m Map[T]) check() error {
	if m.store == nil {
		return fault.Of(ErrInvalidOption, nil, "the map has no store; MapOf makes one that has")
	}
	return nil
}

// Get returns the value of key; see [Store.Get], whose errors it has.
func (m Map[T]) Get(ctx context.Context, key string) (T, error) { return Get[T](ctx, m.store, key) }

// Put stores value under key; see [Store.Put], whose errors it has.
func (m Map[T]) Put(ctx context.Context, key string, value T, opts ...PutOption) error {
	if err := m.check(); err != nil {
		return err
	}
	return m.store.Put(ctx, key, value, opts...)
}

// Update changes the value of key by what it was; see [Update], whose errors it has.
func (m Map[T]) Update(ctx context.Context, key string, fn func(old T, found bool) (T, error), opts ...PutOption) error {
	return Update(ctx, m.store, key, fn, opts...)
}

// Delete removes the keys; see [Store.Delete], whose errors it has.
func (m Map[T]) Delete(ctx context.Context, keys ...string) error {
	if err := m.check(); err != nil {
		return err
	}
	return m.store.Delete(ctx, keys...)
}

// Keys returns the keys; see [Store.Keys], whose errors it has.
func (m Map[T]) Keys(ctx context.Context, opts ...ListOption) ([]string, error) {
	if err := m.check(); err != nil {
		return nil, err
	}
	return m.store.Keys(ctx, opts...)
}

// All returns the entries; see [Store.All]. A value that is no T comes with [ErrDecode] and the zero T, and the iteration goes on.
func (m Map[T]) All(ctx context.Context, opts ...ListOption) iter.Seq2[MapEntry[T], error] {
	return func(yield func(MapEntry[T], error) bool) {
		if err := m.check(); err != nil {
			yield(MapEntry[T]{}, err)
			return
		}
		for entry, err := range m.store.All(ctx, opts...) {
			typed := MapEntry[T]{Key: entry.Key, Entry: entry}
			if err == nil {
				typed.Value, err = decoded[T](entry.Key, entry.Value)
			}
			if !yield(typed, err) {
				return
			}
		}
	}
}

// Watch returns the changes; see [Store.Watch]. A change to or from a value that is no T comes with [ErrDecode], and the iteration goes on.
func (m Map[T]) Watch(ctx context.Context, opts ...WatchOption) iter.Seq2[MapChange[T], error] {
	return func(yield func(MapChange[T], error) bool) {
		if err := m.check(); err != nil {
			yield(MapChange[T]{}, err)
			return
		}
		for change, err := range m.store.Watch(ctx, opts...) {
			typed := MapChange[T]{Key: change.Key, Change: change}
			for _, side := range []struct {
				text json.RawMessage
				to   **T
			}{{change.Old, &typed.Old}, {change.New, &typed.New}} {
				if err != nil || side.text == nil {
					continue
				}
				var value T
				if value, err = decoded[T](change.Key, side.text); err == nil {
					*side.to = &value
				}
			}
			if !yield(typed, err) {
				return
			}
		}
	}
}

// decoded is the value as a T, the zero T where it is none.
func decoded[T any](key string, text json.RawMessage) (value T, err error) {
	if err := decode(key, text, &value); err != nil {
		var zero T
		return zero, err
	}
	return value, nil
}
