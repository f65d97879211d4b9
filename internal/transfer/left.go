package transfer

import (
	"cmp"
	"fmt"
)

// maxNamed is how many keys an error names.
const maxNamed = 5

// leftOut counts keys that were not brought, and remembers why the first were not.
type leftOut struct {
	n    int
	keys []string
	err  error
}

func (l *leftOut) add(key string, err error) {
	if l.n++; len(l.keys) < maxNamed {
		l.keys = append(l.keys, key)
	}
	l.err = cmp.Or(l.err, err)
}

// named are the first of the keys, for a text.
func (l *leftOut) named() string {
	if l.n > len(l.keys) {
		return fmt.Sprintf("%q and %d more", l.keys, l.n-len(l.keys))
	}
	return fmt.Sprintf("%q", l.keys)
}
