package roomkv

import "container/list"

// lru remembers values by key, and of those that together are larger than most forgets the ones used least recently. It
// is not safe for concurrent use. The zero value remembers nothing.
type lru[K comparable, V any] struct {
	most  int // in the unit of size
	size  func(V) int
	known map[K]*list.Element
	order list.List // of *remembered[K, V], the most recently used last
	total int
}

type remembered[K comparable, V any] struct {
	key   K
	value V
}

func (l *lru[K, V]) get(key K) (value V, ok bool) {
	element := l.known[key]
	if element == nil {
		return value, false
	}
	l.order.MoveToBack(element)
	return element.Value.(*remembered[K, V]).value, true
}

func (l *lru[K, V]) put(key K, value V) {
	if l.known == nil {
		l.known = map[K]*list.Element{}
	}
	l.forget(key)
	l.known[key] = l.order.PushBack(&remembered[K, V]{key, value})
	l.total += l.sizeOf(value)
	for l.total > l.most {
		l.forget(l.order.Front().Value.(*remembered[K, V]).key)
	}
}

func (l *lru[K, V]) forget(key K) {
	if element := l.known[key]; element != nil {
		delete(l.known, key)
		l.total -= l.sizeOf(l.order.Remove(element).(*remembered[K, V]).value)
	}
}

// all are the values, the one used least recently first.
func (l *lru[K, V]) all(yield func(K, V) bool) {
	for element := l.order.Front(); element != nil; element = element.Next() {
		if r := element.Value.(*remembered[K, V]); !yield(r.key, r.value) {
			return
		}
	}
}

// sizeOf is 1 where there is no size, so that most is a number of values.
func (l *lru[K, V]) sizeOf(value V) int {
	if l.size == nil {
		return 1
	}
	return l.size(value)
}
