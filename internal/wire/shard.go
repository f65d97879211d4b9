package wire

import (
	"crypto/sha256"
	"encoding/binary"
	"strconv"
	"strings"
)

const (
	// ShardsName is the name of the field that tells over how many state events keys are spread. It is the state key of the event that has the field,
	// and no key.
	ShardsName = prefix + "shards"

	// shardPrefix begins the state keys of the events that have the keys.
	shardPrefix = prefix + "shard."

	// MaxShards is over how many state events keys may be spread. A listing of as many, all of them full, can still be read at once.
	MaxShards = 500
)

// ShardKey is the state key of one of n state events over which keys are spread.
func ShardKey(shard, n int) string {
	return shardPrefix + strconv.Itoa(n) + "." + strconv.Itoa(shard)
}

// ParseShard is the inverse of [ShardKey].
func ParseShard(stateKey string) (shard, n int, ok bool) {
	rest, ok := strings.CutPrefix(stateKey, shardPrefix)
	if !ok {
		return 0, 0, false
	}
	of, number, _ := strings.Cut(rest, ".")
	n, _ = strconv.Atoi(of)
	shard, _ = strconv.Atoi(number)
	ok = 0 <= shard && shard < n && n <= MaxShards && stateKey == ShardKey(shard, n)
	return shard, n, ok
}

// Tag is the part of a key that decides where it goes: what stands between the first { and the first } after that, where that is not empty, and else
// the whole key. It is Redis Cluster's rule for hash tags.
func Tag(key string) (tag string, tagged bool) {
	if _, after, open := strings.Cut(key, "{"); open {
		if tag, _, closed := strings.Cut(after, "}"); closed && tag != "" {
			return tag, true
		}
	}
	return key, false
}

// Shard is which of n state events has the key.
func Shard(key string, n int) int {
	tag, _ := Tag(key)
	return ShardBy(sha256.Sum256([]byte(tag)), n)
}

// ShardBy is the one of n state events to which a hash leads.
func ShardBy(digest [sha256.Size]byte, n int) int {
	return int(binary.BigEndian.Uint32(digest[:]) % uint32(n))
}

// InShard is a digest that tells by itself which state event has the name that [SealedName] makes of it.
func InShard(digest [sha256.Size]byte, shard int) [sha256.Size]byte {
	binary.BigEndian.PutUint16(digest[:], uint16(shard))
	return digest
}

// SealedShard is what a sealed name of [InShard] tells, and it is not ok for any other name.
func SealedShard(name string) (shard int, ok bool) {
	if !IsSealed(name) {
		return 0, false
	}
	var start [3]byte // 4 characters of base64
	_, _ = sealedText.Decode(start[:], []byte(name[len(sealedPrefix):][:4]))
	return int(binary.BigEndian.Uint16(start[:])), true
}
