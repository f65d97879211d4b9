package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
)

// timesInState is in how many state events of the type each key is.
func timesInState(t *testing.T, client *mautrix.Client, room id.RoomID, eventType string) map[string]int {
	t.Helper()
	state, err := client.State(t.Context(), room)
	require.NoError(t, err)
	times := map[string]int{}
	for _, evt := range state[event.Type{Type: eventType, Class: event.StateEventType}] {
		for name := range evt.Content.Raw {
			if !strings.HasPrefix(name, "roomkv.") {
				times[name]++
			}
		}
	}
	return times
}

// A copy to more shards ends at any request, ten times, each time in another process.
func TestCopyToMoreShardsIsInterrupted(t *testing.T) {
	hstest.Parallel(t)
	keys, from, to := 300, 16, 32
	if thorough() {
		keys, from, to = 10_000, 64, 128
	}
	for _, encrypted := range []bool{false, true} {
		t.Run(fmt.Sprintf("encrypted=%v", encrypted), func(t *testing.T) {
			ctx := t.Context()
			newMemory := newStore
			if encrypted {
				newMemory = newEncrypted
			}
			src, client, room := newMemory(t, roomkv.WithShards(from))
			values, want := map[string]any{}, map[string]string{}
			for i := range keys {
				key := fmt.Sprintf("score/@member%05d:example.org", i)
				values[key], want[key] = i, fmt.Sprint(i)
			}
			require.NoError(t, src.PutAll(ctx, values))
			more := []roomkv.Option{roomkv.WithShards(to), roomkv.WithEventType("com.example.more")}
			breaker := breakable(client)
			for range 10 {
				breaker.during(t, 6*to, func(ctx context.Context) error {
					_, err := roomkv.Copy(ctx, open(t, client, room, more...), open(t, client, room, roomkv.WithShards(from)))
					return err
				})
			}
			dst := open(t, client, room, more...)
			copied, err := roomkv.Copy(ctx, dst, src)
			require.NoError(t, err)
			assert.Equal(t, keys, copied.Written+copied.Equal)
			eventually(t, func() bool { return len(memoryOf(t, dst)) == keys }, "the list")
			assert.Equal(t, want, memoryOf(t, dst))
			times := timesInState(t, client, room, "com.example.more")
			assert.Len(t, times, keys)
			for key, n := range times {
				assert.Equal(t, 1, n, "%s is there once", key)
			}
		})
	}
}

// What somebody has put into the wrong shard is nowhere, so that no key is there twice.
func TestKeyInTheWrongShard(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t, layouts["shards"])
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	at := func(key string) string { return wire.ShardKey(wire.Shard(key, shards), shards) }
	var content map[string]any
	require.NoError(t, client.StateEvent(ctx, room, database, at("b"), &content))
	content["a"], content["c"], content["roomkv.unknown"] = "wrong", "wrong", 1
	require.NotEqual(t, at("a"), at("b"))
	require.NotEqual(t, at("c"), at("b"))
	_, err := client.SendStateEvent(ctx, room, database, at("b"), content)
	require.NoError(t, err)
	for _, store := range []*roomkv.Store{store, open(t, client, room, layouts["shards"])} {
		got, err := roomkv.Get[json.RawMessage](ctx, store, "a")
		require.NoError(t, err)
		assert.Equal(t, "1", string(got))
		require.ErrorIs(t, store.Get(ctx, "c", new(any)), roomkv.ErrNotFound)
		eventually(t, func() bool { return len(memoryOf(t, store)) == 2 }, "the list")
		assert.Equal(t, map[string]string{"a": "1", "b": "2"}, memoryOf(t, store))
	}
	require.NoError(t, store.Put(ctx, "b", 3))
	content = nil
	require.NoError(t, client.StateEvent(ctx, room, database, at("b"), &content))
	assert.NotContains(t, content, "a", "and the next write leaves it out")
	assert.Contains(t, content, "roomkv.unknown", "but not what it does not know")
}
