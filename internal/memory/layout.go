package memory

import (
	"encoding/json"

	"github.com/roomkv/roomkv/internal/wire"
)

// Layout is how names are spread over state events. Layouts can be compared with ==.
type Layout interface {
	// StateKey is the state key of the event that holds the name, be it a key's or one of the store's own fields.
	StateKey(name string) string

	// Holds tells whether an event with the state key can hold names.
	Holds(stateKey string) bool

	// Parse reads the content of such an event.
	Parse(stateKey string, content json.RawMessage) (wire.Dict, error)

	// Alone tells whether each name has an event of its own, so that a write can replace that without having read it.
	Alone() bool

	// Together tells whether one event holds all keys that begin with the prefix, those also that nobody has put yet. Where that is so with the empty
	// prefix, it is the only event of the memory.
	Together(prefix string) bool
}

// ByEvent are the names by the state key of the event that holds each.
func ByEvent(layout Layout, names []string) map[string][]string {
	byEvent := map[string][]string{}
	for _, name := range names {
		stateKey := layout.StateKey(name)
		byEvent[stateKey] = append(byEvent[stateKey], name)
	}
	return byEvent
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

// Alone implements [Layout].
func (OneDict) Alone() bool { return false }

// Together implements [Layout].
func (OneDict) Together(string) bool { return true }

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

// Alone implements [Layout].
func (PerKey) Alone() bool { return true }

// Together implements [Layout].
func (PerKey) Together(string) bool { return false }
