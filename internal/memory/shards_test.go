package memory

import (
	"encoding/json"
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/wire"
)

func TestShards(t *testing.T) {
	var layout Layout = Shards{64}
	assert.True(t, layout == Shards{64})
	assert.False(t, layout == Shards{65})
	assert.False(t, layout.Alone())
	assert.False(t, layout.Together(""))
	assert.False(t, layout.Together("a{b"), "a key can begin with it and have another tag")
	assert.False(t, layout.Together("{}"), "such a key has no tag")
	assert.True(t, layout.Together("a{b}"))
	assert.Equal(t, 64, layout.Events())
	at := layout.StateKey("a")
	assert.Equal(t, wire.ShardKey(wire.Shard("a", 64), 64), at)
	assert.Equal(t, layout.StateKey(wire.Name(`{"}x`)), layout.StateKey(wire.Name(`"`)), "it is the key that has the tag, and not its name")
	for _, own := range []string{wire.SealName, wire.PredecessorName, wire.ShardsName, "roomkv.unknown"} {
		assert.Equal(t, wire.ShardsName, layout.StateKey(own))
	}
	for stateKey, want := range map[string]bool{
		at: true, wire.ShardKey(0, 64): true, wire.ShardKey(0, 65): false, wire.ShardsName: false, "": false, "a": false, sealedName: false, wire.SealName: false, wire.PredecessorName: false,
	} {
		assert.Equal(t, want, layout.Holds(stateKey), stateKey)
		assert.Equal(t, want || stateKey == wire.ShardsName, layout.Feeds(stateKey), stateKey)
		assert.Equal(t, stateKey == wire.ShardKey(0, 65), layout.Excludes(stateKey), stateKey)
		if want || stateKey == wire.ShardsName || stateKey == wire.ShardKey(0, 65) {
			assert.False(t, PerKey{}.Holds(stateKey), "no other layout takes it for its own: %s", stateKey)
			assert.False(t, OneDict{}.Holds(stateKey), stateKey)
		}
	}
}

func TestShardsParse(t *testing.T) {
	layout := Shards{64}
	here, elsewhere := "", ""
	at := layout.StateKey("here")
	for i := range 1000 {
		if key := fmt.Sprint("key ", i); layout.StateKey(key) == at {
			here = key
		} else {
			elsewhere = key
		}
	}
	content := fmt.Sprintf(`{"here":1,%q:2,%q:3,%q:4,"roomkv.unknown":5,%q:6,%q:7}`, here, elsewhere, sealedName, wire.ShardsName, wire.SealName)
	dict, err := layout.Parse(at, json.RawMessage(content))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"here": "1", here: "2", "roomkv.unknown": "5"}, dict.Names, "what belongs elsewhere is not there")
	dict, err = layout.Parse(wire.ShardsName, json.RawMessage(content))
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"roomkv.unknown": "5", wire.ShardsName: "6", wire.SealName: "7"}, dict.Names)
	_, err = layout.Parse(at, json.RawMessage(`[]`))
	require.ErrorIs(t, err, wire.ErrFormat)
}

// A sealed name tells where it is, and nothing of tags but that.
func TestSealedShards(t *testing.T) {
	r := roomWith(t, Settings{Layout: Shards{4}, Secret: secret})
	shards := map[string]bool{}
	for i := range 50 {
		a, b := r.NameOf(fmt.Sprintf("{tag %d}/a", i)), r.NameOf(fmt.Sprintf("b{tag %d}", i))
		assert.NotEqual(t, a, b)
		assert.Equal(t, r.Layout.StateKey(a), r.Layout.StateKey(b), "the same tag")
		assert.Equal(t, a[:len("roomkv.sealed.AA")], b[:len("roomkv.sealed.AA")], "16 bits are the event's")
		assert.NotEqual(t, a[len("roomkv.sealed.AAA"):][:4], b[len("roomkv.sealed.AAA"):][:4], "and the others tell nothing")
		shards[r.Layout.StateKey(a)] = true
	}
	assert.Len(t, shards, 4)
	one, other := roomWith(t, Settings{Layout: Shards{500}, Secret: secret}), roomWith(t, Settings{Layout: Shards{500}, Secret: another})
	keys := []string{"a", "b", "c", "d"}
	at := func(r Room) (all []string) {
		for _, key := range keys {
			all = append(all, r.Layout.StateKey(r.NameOf(key)))
		}
		return all
	}
	assert.NotEqual(t, at(one), at(other), "nobody without the secret knows where a key goes")
	assert.NotEqual(t, at(one), at(one.Of("!other:example.org")), "and no room tells of another")
	assert.False(t, slices.Equal(at(one), at(roomWith(t, Settings{Layout: Shards{500}}))))
}
