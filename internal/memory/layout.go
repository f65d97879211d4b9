package memory

import (
	"encoding/json"

	"github.com/roomkv/roomkv/internal/wire"
)

// Layout is how names are spread over state events. Layouts can be compared with ==.
type Layout interface {
	// StateKey is the state key of the event that holds the name.
	StateKey(name string) string

	// Holds tells whether an event with the state key can hold names.
	Holds(stateKey string) bool

	// Parse reads the content of such an event.
	Parse(stateKey string, content json.RawMessage) (wire.Dict, error)

	// Atomic tells whether one event holds all names: then a commit changes several at once, the event holds the seal too, and one request reads
	// all. Else each name has an event of its own.
	Atomic() bool

	// String is a short name.
	String() string
}

// OneDict is the layout with the whole memory in the state event of one state key.
type OneDict struct{ Key string }

// StateKey implements [Layout].
func (l OneDict) StateKey(string) string { return l.Key }

// Holds implements [Layout].
func (l OneDict) Holds(stateKey string) bool { return stateKey == l.Key }

// Parse implements [Layout].
func (OneDict) Parse(_ string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParseDict(content)
}

// Atomic implements [Layout].
func (OneDict) Atomic() bool { return true }

// String implements [Layout].
func (OneDict) String() string { return "single" }

// PerKey is the layout with a state event for each name.
type PerKey struct{}

// StateKey implements [Layout].
func (PerKey) StateKey(name string) string { return wire.StateKeyOf(name) }

// Holds implements [Layout]. The dict of the other layout is under the empty state key by default.
func (PerKey) Holds(stateKey string) bool {
	return stateKey != "" && stateKey != wire.SealName && stateKey != wire.PredecessorName
}

// Parse implements [Layout].
func (PerKey) Parse(stateKey string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParsePerKey(stateKey, content)
}

// Atomic implements [Layout].
func (PerKey) Atomic() bool { return false }

// String implements [Layout].
func (PerKey) String() string { return "per-key" }
