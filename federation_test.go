package roomkv_test

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/matrix"
)

// federated starts two homeservers, with a bot on each that may write, in one room. The second bot joins after so many messages of the first.
func federated(t *testing.T, said int) (pair *homeserver.Pair, a, b *mautrix.Client, room id.RoomID) {
	t.Helper()
	ctx := t.Context()
	pair, err := homeserver.StartPair(ctx)
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, pair.Close()) })
	a, err = pair.A.Register(ctx, "a")
	require.NoError(t, err)
	b, err = pair.B.Register(ctx, "b")
	require.NoError(t, err)
	created, err := a.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "trusted_private_chat", Invite: []id.UserID{b.UserID}})
	require.NoError(t, err)
	talk(t, a, created.RoomID, said)
	eventually(t, func() bool {
		_, err := b.JoinRoomByID(ctx, created.RoomID)
		return err == nil
	}, "the invitation arrives")
	return pair, a, b, created.RoomID
}

// putMany puts distinct keys one after the other.
func putMany(t *testing.T, store *roomkv.Store, name string, from, to int, pause time.Duration) {
	for i := from; i < to; i++ {
		assert.NoError(t, store.Put(t.Context(), fmt.Sprintf("%s/%d", name, i), i))
		time.Sleep(pause)
	}
}

func size(t *testing.T, store *roomkv.Store) int {
	keys, err := store.Keys(t.Context())
	require.NoError(t, err)
	return len(keys)
}

func TestTwoHomeservers(t *testing.T) {
	hstest.Parallel(t)
	hstest.Real(t)
	const puts = 25
	pair, clientA, clientB, room := federated(t, 0)
	a, stopA := follow(t, clientA, room)
	b, _ := follow(t, clientB, room)
	fresh := map[string]*roomkv.Store{"a": open(t, clientA, room), "b": open(t, clientB, room)}
	converge := func(want int) {
		t.Helper()
		began := time.Now()
		for {
			got := []int{size(t, a), size(t, b), size(t, fresh["a"]), size(t, fresh["b"])}
			if assert.ObjectsAreEqual([]int{want, want, want, want}, got) {
				break
			}
			require.Less(t, time.Since(began), 10*time.Second, "%v of %d", got, want)
			time.Sleep(20 * time.Millisecond)
		}
		t.Logf("%d keys on both after %s", want, time.Since(began).Round(10*time.Millisecond))
	}
	both := func(name string, pause time.Duration, during func()) {
		var group sync.WaitGroup
		group.Go(func() { putMany(t, a, "a"+name, 0, puts, pause) })
		group.Go(func() { putMany(t, b, "b"+name, 0, puts, pause) })
		during()
		group.Wait()
	}

	both("", 0, func() {})
	converge(2 * puts)

	both(" cut", 100*time.Millisecond, func() {
		time.Sleep(time.Second)
		pair.Cut()
		time.Sleep(3 * time.Second)
		pair.Restore()
	})
	converge(4 * puts)

	// The same key on both sides of a cut: both end with the later one.
	pair.Cut()
	require.NoError(t, a.Put(t.Context(), "same", "a"))
	time.Sleep(50 * time.Millisecond)
	require.NoError(t, b.Put(t.Context(), "same", "b"))
	pair.Restore()
	converge(4*puts + 1)
	for _, store := range []*roomkv.Store{a, b} {
		eventually(t, func() bool {
			got, err := roomkv.Get[string](t.Context(), store, "same")
			return err == nil && got == "b"
		}, "the later one counts")
	}

	putMany(t, a, "last", 0, puts, 0)
	converge(5*puts + 1)
	stopA()
	require.NoError(t, pair.A.Close()) // which kills it
	assert.Equal(t, 5*puts+1, size(t, b))
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Second)
	defer cancel()
	require.NoError(t, b.Put(ctx, "alone", 1))
	assert.Equal(t, 5*puts+2, size(t, b))
}

// A look back on a Dendrite that joined late has all events that this Dendrite has; see [matrix.Room.Back].
func TestLookBackOnAHomeserverThatJoinedLate(t *testing.T) {
	hstest.Parallel(t)
	hstest.Real(t)
	const puts = 20
	_, _, client, room := federated(t, 120)
	var want []id.EventID
	for i := range puts {
		sent, err := client.SendStateEvent(t.Context(), room, database, "", map[string]any{"n": i})
		require.NoError(t, err)
		want = append(want, sent.EventID)
		talk(t, client, room, 3)
	}
	slices.Reverse(want)
	listed(t, client, room, want[0])
	var got []id.EventID
	for from := ""; len(got) < puts; {
		page, err := matrix.Room{Client: matrix.Client{Client: client}, ID: room}.Back(t.Context(), database, from, 20)
		require.NoError(t, err)
		for _, evt := range page.Events {
			got = append(got, evt.ID)
		}
		if from = page.Next; from == "" {
			break
		}
	}
	assert.Equal(t, want, got)
}
