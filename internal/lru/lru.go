// Package lru has a cache that forgets what was used least recently.
package lru

import "container/list"

// Cache remembers values by key, and of those that together are larger than Most forgets the ones used least recently. It
// is not safe for concurrent use. The zero value remembers nothing.
type Cache[K comparable, V any] struct {
	Most int         // in the unit of Size
	Size func(V) int // of a value; 1 each where it is nil, so that Most is a number of values

	known map[K]*list.Element
	order list.List // of *remembered[K, V], the most recently used last
	total int
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

// Get finds a value, which counts as a use of it.
func (l *Cache[K, V]) Get(key K) (value V, ok bool) {
	element := l.known[key]
	if element == nil {
		return value, false
	}
	l.order.MoveToBack(element)
	return element.Value.(*remembered[K, V]).value, true
}

// Put remembers a value in place of the key's other one.
func (l *Cache[K, V]) Put(key K, value V) {
	if l.known == nil {
		l.known = map[K]*list.Element{}
	}
	l.Forget(key)
	l.known[key] = l.order.PushBack(&remembered[K, V]{key, value})
	l.total += l.sizeOf(value)
	for l.total > l.Most {
		l.Forget(l.order.Front().Value.(*remembered[K, V]).key)
	}
}

// Forget forgets the key's value.
func (l *Cache[K, V]) Forget(key K) {
	if element := l.known[key]; element != nil {
		delete(l.known, key)
		l.total -= l.sizeOf(l.order.Remove(element).(*remembered[K, V]).value)
	}
}

// All are the values, the one used least recently first.
func (l *Cache[K, V]) All(yield func(K, V) bool) {
	for element := l.order.Front(); element != nil; element = element.Next() {
		if r := element.Value.(*remembered[K, V]); !yield(r.key, r.value) {
			return
		}
	}
}

func (l *Cache[K, V]) sizeOf(value V) int {
	if l.Size == nil {
		return 1
	}
	return l.Size(value)
}
