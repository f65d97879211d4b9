package wire_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/wire"
)

func TestTag(t *testing.T) {
	for key, want := range map[string]string{
		"{user}/a": "user", "a{user}": "user", "a{user}{other}": "user", "{{user}}": "{user", "}{user}": "user", "{ü}": "ü", "{\x00}": "\x00",
		"": "", "a": "a", "{": "{", "}": "}", "{}": "{}", "{}{user}": "{}{user}", "a{b": "a{b", "a}b{c": "a}b{c",
	} {
		tag, tagged := wire.Tag(key)
		assert.Equal(t, want, tag, key)
		assert.Equal(t, want != key, tagged, key)
	}
}

func TestShard(t *testing.T) {
	for _, test := range []struct {
		key      string
		n, shard int
	}{ // as sha256sum says
		{"", 64, 0xe3b0c442 % 64}, {"greeting", 64, 0x18f6b020 % 64}, {"{greeting}/x", 64, 0x18f6b020 % 64}, {"greeting", 500, 0x18f6b020 % 500}, {"anything", 1, 0},
	} {
		assert.Equal(t, test.shard, wire.Shard(test.key, test.n), test.key)
	}
	const keys, n = 10_000, 64
	counts := [n]int{}
	for i := range keys {
		counts[wire.Shard(fmt.Sprint("key ", i), n)]++
	}
	for shard, count := range counts {
		assert.InDelta(t, keys/n, count, 60, "shard %d", shard)
	}
}

func TestShardKeys(t *testing.T) {
	for _, n := range []int{1, 2, 64, wire.MaxShards} {
		for _, shard := range []int{0, n / 2, n - 1} {
			got, of, ok := wire.ParseShard(wire.ShardKey(shard, n))
			assert.True(t, ok)
			assert.Equal(t, [2]int{shard, n}, [2]int{got, of})
		}
	}
	for _, stateKey := range []string{
		"", "roomkv.shards", "roomkv.shard.", "roomkv.shard.4", "roomkv.shard.4.", "roomkv.shard.4.4", "roomkv.shard.4.-1", "roomkv.shard.-4.-5", "roomkv.shard.04.1",
		"roomkv.shard.4.01", "roomkv.shard.4.1.", "roomkv.shard.4.1%00", "roomkv.shard.0.0", "roomkv.shard.501.1", "roomkv.shard.99999999999999999999.1", "shard.4.1", "roomkv.shard.+4.1",
	} {
		_, _, ok := wire.ParseShard(stateKey)
		assert.False(t, ok, stateKey)
	}
	assert.True(t, wire.IsOwn(wire.ShardsName))
	assert.True(t, wire.IsOwn(wire.ShardKey(1, 4)))
	for _, key := range []string{"shards", "shard.4.1", "roomkv.shards", wire.ShardKey(1, 4), "shards\x00", "shard.4.1\x00", strings.Repeat("roomkv.shard.4.1", 30)} {
		stateKey := wire.StateKey(key)
		_, _, isShard := wire.ParseShard(stateKey)
		assert.False(t, isShard || stateKey == wire.ShardsName, "%q has the state key %q", key, stateKey)
	}
}

func TestSealedShard(t *testing.T) {
	for _, shard := range []int{0, 1, 255, 256, wire.MaxShards - 1} {
		name := wire.SealedName(wire.InShard([32]byte{1, 2, 3, 31: 9}, shard))
		got, ok := wire.SealedShard(name)
		assert.True(t, ok)
		assert.Equal(t, shard, got)
	}
	for _, name := range []string{"", "a", wire.SealName, "roomkv.sealed.", "roomkv.sealed.AAAA",
		"roomkv.sealed." + strings.Repeat("\n", 43), wire.SealedName([32]byte{})[:len("roomkv.sealed.")+40] + "\r\n\n"} {
		_, ok := wire.SealedShard(name)
		assert.False(t, ok, name)
	}
}
