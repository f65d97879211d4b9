package memory

import (
	"crypto/sha256"
	"encoding/json"

	"github.com/roomkv/roomkv/internal/wire"
)

// Layout is how names are spread over state events. Layouts can be compared with ==.
type Layout interface {
	// StateKey is the state key of the event that holds the name, be it a key's or one of the store's own fields.
	StateKey(name string) string

	// Digest is the keyed hash that stands for a key; see [wire.SealedName].
	Digest(key string, keyed func(purpose, text string) [sha256.Size]byte) [sha256.Size]byte

	// Holds tells whether an event with the state key can hold names of keys. Feeds is Holds, and beside that of an event that has what concerns all
	// keys, where that is a dict of its own.
	Holds(stateKey string) bool
	Feeds(stateKey string) bool

	// Parse reads the content of such an event.
	Parse(stateKey string, content json.RawMessage) (wire.Dict, error)

	// Alone tells whether each name has an event of its own, so that a write can replace that without having read it.
	Alone() bool

	// Together tells whether one event holds all keys that begin with the prefix, those also that nobody has put yet. Where that is so with the empty
	// prefix, it is the only event of the memory.
	Together(prefix string) bool

	// Events is how many events there can be, 0 where there can be one for each key.
	Events() int

	// Mark is a field that each memory of this layout has and another layout of the same kind has otherwise, empty where there is none.
	Mark() (name, stored string)

	// Excludes tells whether an event with the state key can have keys of another layout of the same kind.
	Excludes(stateKey string) bool

	// Account tells the account data of this layout from that of others.
	Account() string

	// String is a short name.
	String() string
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

// Digest implements [Layout].
func (OneDict) Digest(key string, keyed func(purpose, text string) [sha256.Size]byte) [sha256.Size]byte {
	return keyed("key", key)
}

// Holds implements [Layout].
func (l OneDict) Holds(stateKey string) bool { return stateKey == l.Key }

// Feeds implements [Layout].
func (l OneDict) Feeds(stateKey string) bool { return l.Holds(stateKey) }

// Parse implements [Layout].
func (OneDict) Parse(_ string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParseDict(content)
}

// Alone implements [Layout].
func (OneDict) Alone() bool { return false }

// Together implements [Layout].
func (OneDict) Together(string) bool { return true }

// Events implements [Layout].
func (OneDict) Events() int { return 1 }

// Mark implements [Layout].
func (OneDict) Mark() (name, stored string) { return "", "" }

// Excludes implements [Layout].
func (OneDict) Excludes(string) bool { return false }

// Account implements [Layout].
func (l OneDict) Account() string {
	if l.Key == "" {
		return ""
	}
	return "." + l.Key
}

// String implements [Layout].
func (OneDict) String() string { return "single" }

// PerKey is the layout with a state event for each name.
type PerKey struct{}

// StateKey implements [Layout].
func (PerKey) StateKey(name string) string { return wire.StateKeyOf(name) }

// Digest implements [Layout].
func (PerKey) Digest(key string, keyed func(purpose, text string) [sha256.Size]byte) [sha256.Size]byte {
	return keyed("key", key)
}

// Holds implements [Layout]. The dict of the default layout is under the empty state key.
func (PerKey) Holds(stateKey string) bool {
	_, _, isShard := wire.ParseShard(stateKey)
	return stateKey != "" && stateKey != wire.SealName && stateKey != wire.PredecessorName && stateKey != wire.ShardsName && !isShard
}

// Feeds implements [Layout].
func (l PerKey) Feeds(stateKey string) bool { return l.Holds(stateKey) }

// Parse implements [Layout].
func (PerKey) Parse(stateKey string, content json.RawMessage) (wire.Dict, error) {
	return wire.ParsePerKey(stateKey, content)
}

// Alone implements [Layout].
func (PerKey) Alone() bool { return true }

// Together implements [Layout].
func (PerKey) Together(string) bool { return false }

// Events implements [Layout].
func (PerKey) Events() int { return 0 }

// Mark implements [Layout].
func (PerKey) Mark() (name, stored string) { return "", "" }

// Excludes implements [Layout].
func (PerKey) Excludes(string) bool { return false }

// Account implements [Layout].
func (PerKey) Account() string { return ":keys" }

// String implements [Layout].
func (PerKey) String() string { return "per-key" }
