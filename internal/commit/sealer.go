package commit

import (
	"context"

	"github.com/roomkv/roomkv/internal/wire"
)

// Sealer keeps new values elsewhere than in the dict, which then holds references to them. The dict's size is that of the
// references.
type Sealer interface {
	// Check fails where the value cannot be kept.
	Check(value Value) error

	// Holds tells whether stored refers to that very value, as far as that is known.
	Holds(ctx context.Context, stored string, value Value) bool

	// Learn reads what is kept, in order that Holds knows of all of it, and tells whether it has. It makes one request at most.
	Learn(ctx context.Context, stored []string) bool

	// Seal keeps values and gives what is to be stored for each, by name.
	Seal(ctx context.Context, values []Value) (map[string]string, error)
}

// Value is a value that is to be stored.
type Value struct {
	Name   string
	Key    string
	Stored string // as it would be in the dict itself, without the time until which it counts

	// Expires is that time, in Unix milliseconds, 0 where there is none. It stands in the dict, beside the reference.
	Expires int64
}

// ValueOf is a value with what is to be stored of it; see [wire.Expiring].
func ValueOf(name, key, stored string) Value {
	at, text := wire.Expiry(stored)
	return Value{Name: name, Key: key, Stored: text, Expires: at}
}

// size is about what a name with a reference to the value takes of a content, in bytes.
func (v Value) size() int {
	return wire.EntrySize(v.Name, wire.Expiring("", v.Expires)) + referenceSize
}

// referenceSize is what a reference takes of a content, in bytes. In rooms of versions 1 and 2 IDs of events have the server's name, and can be longer.
const referenceSize = len(`{"encrypted_val":"$"}`) + 43
