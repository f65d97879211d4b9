package memory

import (
	"crypto/sha256"
	"encoding/json"
	"iter"
	"maps"
	"strconv"

	"github.com/roomkv/roomkv/internal/wire"
)

// Shards is the layout in which a hash spreads keys over so many state events. Another one has what concerns all of them.
type Shards struct{ N int }

// keys are the state keys of the events that have keys.
func (l Shards) keys() iter.Seq[string] {
	return func(yield func(string) bool) {
		for shard := range l.N {
			if !yield(wire.ShardKey(shard, l.N)) {
				return
			}
		}
	}
}

// StateKey implements [Layout].
func (l Shards) StateKey(name string) string {
	if shard, ok := l.shard(name); ok {
		return wire.ShardKey(shard, l.N)
	}
	return wire.ShardsName
}

// shard is not ok for the store's own fields.
func (l Shards) shard(name string) (shard int, ok bool) {
	if key, plain := wire.KeyOf(name); plain {
		return wire.Shard(key, l.N), true
	}
	shard, ok = wire.SealedShard(name)
	return shard % l.N, ok
}

// Digest implements [Layout]. It shows which event has the key, as the state does, and not which keys have the same tag.
func (l Shards) Digest(key string, keyed func(purpose, text string) [sha256.Size]byte) [sha256.Size]byte {
	tag, _ := wire.Tag(key)
	return wire.InShard(keyed("key", key), wire.ShardBy(keyed("tag", tag), l.N))
}

// Holds implements [Layout].
func (l Shards) Holds(stateKey string) bool {
	_, n, ok := wire.ParseShard(stateKey)
	return ok && n == l.N
}

// Feeds implements [Layout].
func (l Shards) Feeds(stateKey string) bool { return stateKey == wire.ShardsName || l.Holds(stateKey) }

// Parse implements [Layout]. Names that belong elsewhere are left out: those of keys, for nobody would find them, so that no key is there twice, and the fields
// that say what counts for all keys.
func (l Shards) Parse(stateKey string, content json.RawMessage) (wire.Dict, error) {
	dict, err := wire.ParseDict(content)
	at, _, isShard := wire.ParseShard(stateKey)
	maps.DeleteFunc(dict.Names, func(name, _ string) bool {
		if shard, isKey := l.shard(name); isKey {
			return !isShard || shard != at
		}
		return isShard && (name == wire.ShardsName || name == wire.SealName)
	})
	return dict, err
}

// Alone implements [Layout].
func (Shards) Alone() bool { return false }

// Together implements [Layout]: keys that begin with a tag have that.
func (Shards) Together(prefix string) bool {
	_, tagged := wire.Tag(prefix)
	return tagged
}

// Events implements [Layout].
func (l Shards) Events() int { return l.N }

// Mark implements [Layout].
func (l Shards) Mark() (name, stored string) { return wire.ShardsName, strconv.Itoa(l.N) }

// Excludes implements [Layout].
func (l Shards) Excludes(stateKey string) bool {
	_, n, ok := wire.ParseShard(stateKey)
	return ok && n != l.N
}

// Account implements [Layout]. Whatever N is, so that another one is noticed.
func (Shards) Account() string { return ":shards" }

// String implements [Layout].
func (Shards) String() string { return "shards" }
