package memory

import (
	"slices"
	"strings"
)

// Listing says which keys a list gives, and in which order. The zero value gives all of them, in ascending order.
type Listing struct {
	Prefix     string
	After      *string // the key after which the list begins, nil for the first one
	Limit      int     // how many keys at most, 0 for all
	Descending bool
}

// Holds tells whether the key is one of them, but for the limit.
func (l Listing) Holds(key string) bool {
	return strings.HasPrefix(key, l.Prefix) && (l.After == nil || l.Compare(key, *l.After) > 0)
}

// Compare is the order of the keys.
func (l Listing) Compare(a, b string) int {
	if l.Descending {
		return strings.Compare(b, a)
	}
	return strings.Compare(a, b)
}

// Unlimited is the listing without its limit.
func (l Listing) Unlimited() Listing {
	l.Limit = 0
	return l
}

// Reached tells whether there are as many as the list may have.
func (l Listing) Reached(n int) bool { return l.Limit > 0 && n >= l.Limit }

// Of puts those keys in order that the list gives. It changes the slice.
func (l Listing) Of(keys []string) []string {
	keys = slices.DeleteFunc(keys, func(key string) bool { return !l.Holds(key) })
	slices.SortFunc(keys, l.Compare)
	if l.Limit > 0 && len(keys) > l.Limit {
		keys = keys[:l.Limit]
	}
	return keys
}
