// Package lru has a cache that forgets what was used least recently.
package lru

import (
	"container/list"
	"sync"
)

// Cache remembers values by key, and forgets the ones used least recently where all together are too large. The zero value is ready.
// Methods are safe for concurrent use.
type Cache[K comparable, V any] struct {
	Most int // how many values Put leaves in the cache

	mu    sync.Mutex
	known map[K]*list.Element
	order list.List // of *remembered[K, V], the most recently used last
	total int       // the sizes of all
}

type remembered[K comparable, V any] struct {
	key   K
	value V
	size  int
}

// Get finds a value, which counts as a use of it.
func (l *Cache[K, V]) Get(key K) (value V, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	element := l.known[key]
	if element == nil {
		return value, false
	}
	l.order.MoveToBack(element)
	return element.Value.(*remembered[K, V]).value, true
}

// Put is [Cache.Keep] where values are counted: up to Most of them.
func (l *Cache[K, V]) Put(key K, value V) { l.Keep(key, value, 1, l.Most) }

// Keep remembers a value in place of the key's other one. The sizes of all are then at most the bound, which has the same unit: bytes, or 1
// for each value. What is larger by itself is not remembered.
func (l *Cache[K, V]) Keep(key K, value V, size, most int) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.known == nil {
		l.known = map[K]*list.Element{}
	}
	l.remove(l.known[key])
	l.known[key] = l.order.PushBack(&remembered[K, V]{key, value, size})
	for l.total += size; l.total > most; {
		l.remove(l.order.Front())
	}
}

// Forget forgets the key's value.
func (l *Cache[K, V]) Forget(key K) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.remove(l.known[key])
}

// ForgetThose forgets the values for which the function says so. It must not call the cache.
func (l *Cache[K, V]) ForgetThose(gone func(value V) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, element := range l.known {
		if gone(element.Value.(*remembered[K, V]).value) {
			l.remove(element)
		}
	}
}

// All are the values, the one used least recently first. What is done with each must not call the cache.
func (l *Cache[K, V]) All(yield func(K, V) bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for element := l.order.Front(); element != nil; element = element.Next() {
		if r := element.Value.(*remembered[K, V]); !yield(r.key, r.value) {
			return
		}
	}
}

// remove is called with mu held.
func (l *Cache[K, V]) remove(element *list.Element) {
	if element != nil {
		removed := l.order.Remove(element).(*remembered[K, V])
		delete(l.known, removed.key)
		l.total -= removed.size
	}
}
