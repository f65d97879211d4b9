package homeserver_test

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver"
)

var pairTest = event.Type{Type: "com.example.test", Class: event.StateEventType}

// member is a user on one server of a pair, in the room that it shares with a user on the other.
type member struct {
	*mautrix.Client
	room id.RoomID
}

// pairedRoom is a room made by a user on A, which a user on B has joined.
func pairedRoom(t *testing.T, pair *homeserver.Pair) (a, b member) {
	t.Helper()
	alice, err := pair.A.Register(t.Context(), "alice")
	require.NoError(t, err)
	bob, err := pair.B.Register(t.Context(), "bob")
	require.NoError(t, err)
	assert.NotEqual(t, alice.UserID.Homeserver(), bob.UserID.Homeserver())

	room, err := alice.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{
		Preset:             "private_chat",
		Invite:             []id.UserID{bob.UserID},
		PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{alice.UserID: 100, bob.UserID: 100}},
	})
	require.NoError(t, err)
	require.Eventually(t, func() bool {
		_, err := bob.JoinRoomByID(t.Context(), room.RoomID)
		return err == nil
	}, 10*time.Second, 50*time.Millisecond, "the invitation does not arrive")
	return member{alice, room.RoomID}, member{bob, room.RoomID}
}

func (m member) write(t *testing.T, key string, n int) {
	t.Helper()
	_, err := m.SendStateEvent(t.Context(), m.room, pairTest, key, map[string]int{"n": n})
	require.NoError(t, err)
}

// read returns 0 where there is no such event.
func (m member) read(t require.TestingT, ctx context.Context, key string) int {
	var content struct{ N int }
	err := m.StateEvent(ctx, m.room, pairTest, key, &content)
	if !errors.Is(err, mautrix.MNotFound) {
		require.NoError(t, err)
	}
	return content.N
}

func (m member) requireArrives(t *testing.T, key string, n int) {
	t.Helper()
	require.EventuallyWithT(t, func(c *assert.CollectT) {
		assert.Equal(c, n, m.read(c, t.Context(), key))
	}, 10*time.Second, 10*time.Millisecond, "%s does not see %s", m.UserID, key)
}

func startPair(t *testing.T) *homeserver.Pair {
	t.Helper()
	pair, err := homeserver.StartPair(t.Context())
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, pair.Close()) })
	return pair
}

func TestPairFederates(t *testing.T) {
	a, b := pairedRoom(t, startPair(t))
	a.write(t, "from A", 1)
	b.requireArrives(t, "from A", 1)
	b.write(t, "from B", 2)
	a.requireArrives(t, "from B", 2)
}

func TestPairCutAndRestored(t *testing.T) {
	pair := startPair(t)
	a, b := pairedRoom(t, pair)
	a.write(t, "both", 1)
	b.requireArrives(t, "both", 1)

	for round := range 2 {
		n := 10 * (round + 1)
		pair.Cut()
		pair.Cut() // no more than one cut
		for i := range 3 {
			a.write(t, fmt.Sprint("A", i), n)
			b.write(t, fmt.Sprint("B", i), n)
		}
		a.write(t, "both", n+1)
		b.write(t, "both", n+2)
		time.Sleep(time.Second)
		for i := range 3 {
			assert.NotEqual(t, n, b.read(t, t.Context(), fmt.Sprint("A", i)), "a write got through the cut")
			assert.NotEqual(t, n, a.read(t, t.Context(), fmt.Sprint("B", i)), "a write got through the cut")
		}
		assert.Equal(t, n+1, a.read(t, t.Context(), "both"))
		assert.Equal(t, n+2, b.read(t, t.Context(), "both"))

		pair.Restore()
		pair.Restore()
		for i := range 3 {
			b.requireArrives(t, fmt.Sprint("A", i), n)
			a.requireArrives(t, fmt.Sprint("B", i), n)
		}
		require.EventuallyWithT(t, func(c *assert.CollectT) {
			assert.Equal(c, a.read(c, t.Context(), "both"), b.read(c, t.Context(), "both"))
		}, 10*time.Second, 10*time.Millisecond, "the servers do not agree on who wrote last")

		a.write(t, "after", n)
		b.requireArrives(t, "after", n)
		b.write(t, "after", n+1)
		a.requireArrives(t, "after", n+1)
	}
}

func TestPairOutlivesOneServer(t *testing.T) {
	pair := startPair(t)
	a, b := pairedRoom(t, pair)
	a.write(t, "from A", 1)
	b.requireArrives(t, "from A", 1)

	require.NoError(t, pair.A.Close())
	assert.False(t, answers(pair.A.URL))
	b.write(t, "from B", 2)
	assert.Equal(t, 2, b.read(t, t.Context(), "from B"))
	assert.Equal(t, 1, b.read(t, t.Context(), "from A"))
}

func TestPairClosedWhileCut(t *testing.T) {
	pair := startPair(t)
	a, _ := pairedRoom(t, pair)
	pair.Cut()
	a.write(t, "from A", 1)
	require.NoError(t, pair.Close())
	assert.False(t, answers(pair.A.URL))
	assert.False(t, answers(pair.B.URL))
	require.NoError(t, pair.Close(), "closing twice is one closing")
}
