package fakehs_test

import (
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// several are clients in a room.
func several(t *testing.T, server *fakehs.Server, n int) (clients []*mautrix.Client, room id.RoomID) {
	for range n {
		clients = append(clients, fakehstest.Client(t, server))
	}
	return clients, joined(t, clients...)
}

// atOnce has the clients each send state, all built on the same, and gives the events in the order of the clients.
func atOnce(t *testing.T, server *fakehs.Server, clients []*mautrix.Client, room id.RoomID, stateKey string) []id.EventID {
	sent := make([]id.EventID, len(clients))
	server.Together(len(clients))
	var all sync.WaitGroup
	for i, client := range clients {
		all.Go(func() { sent[i] = put(t, client, room, stateKey, content{"by": i}) })
	}
	all.Wait()
	server.Settle()
	return sent
}

func TestForks(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		clients, room := several(t, server, 4)
		before := put(t, clients[0], room, "", content{})
		sent := atOnce(t, server, clients, room, "")
		page := list(t, clients[0], room, "", 10)
		require.Len(t, page.Chunk, 5)
		assert.ElementsMatch(t, append(sent, before), ids(page.Chunk))

		// The latest by time, then by ID, is the current one.
		latest := slices.MaxFunc(page.Chunk[:4], func(a, b *event.Event) int {
			if a.Timestamp != b.Timestamp {
				return int(a.Timestamp - b.Timestamp)
			}
			return slices.Compare([]byte(a.ID), []byte(b.ID))
		})
		assert.Equal(t, latest.ID, current(t, clients[1], room, ""))

		stored := synced(t, clients[0], room)[1:]
		listed := ids(page.Chunk[:4])
		if server.Mode() == fakehs.Forking {
			for _, evt := range page.Chunk[:4] {
				assert.Equal(t, before, evt.Unsigned.ReplacesState)
			}
			slices.Reverse(listed)
			assert.Equal(t, stored, listed)
			return
		}
		assert.Equal(t, stored, listed, "Dendrite lists what is of one depth the wrong way round")
		for i, evt := range stored[1:] {
			read, err := clients[0].GetEvent(t.Context(), room, evt)
			require.NoError(t, err)
			assert.Contains(t, stored[:i+1], read.Unsigned.ReplacesState, "one after the other")
		}
	})
}

// synced are the events of the kind, in the order in which a sync has them: that in which they were stored.
func synced(t *testing.T, client *mautrix.Client, room id.RoomID) []id.EventID {
	resp, err := client.SyncRequest(t.Context(), 0, "", `{"room":{"timeline":{"limit":100,"types":["`+kind.Type+`"]}}}`, false, "")
	require.NoError(t, err)
	return ids(resp.Rooms.Join[room].Timeline.Events)
}

// On Dendrite one user's writes are one after the other, on Synapse they fork.
func TestOneUserAtOnce(t *testing.T) {
	t.Parallel()
	t.Run("forking", func(t *testing.T) {
		t.Parallel()
		server := fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking})
		client := fakehstest.Client(t, server)
		room := joined(t, client)
		atOnce(t, server, []*mautrix.Client{client, client, client}, room, "")
		for _, evt := range list(t, client, room, "", 10).Chunk {
			assert.Empty(t, evt.Unsigned.ReplacesState)
		}
	})
	t.Run("linear", func(t *testing.T) {
		t.Parallel()
		server := fakehstest.New(t, fakehs.Options{})
		client := fakehstest.Client(t, server)
		room := joined(t, client)
		var all sync.WaitGroup
		for i := range 5 {
			all.Go(func() { put(t, client, room, "", content{"i": i}) })
		}
		all.Wait()
		server.Settle()
		events := list(t, client, room, "", 10).Chunk
		require.Len(t, events, 5)
		for i, evt := range events[:4] {
			assert.Equal(t, events[i+1].ID, evt.Unsigned.ReplacesState)
		}
	})
}

// Without any help of the test, writes at the same time fork now and then.
func TestForksComeByThemselves(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		clients, room := several(t, server, 4)
		var all sync.WaitGroup
		for i, client := range clients {
			all.Go(func() {
				for j := range 10 {
					put(t, client, room, "", content{"by": i, "j": j})
				}
			})
		}
		all.Wait()
		server.Settle()
		replaced := map[id.EventID]int{}
		page := list(t, clients[0], room, "", 100)
		assert.Len(t, page.Chunk, 40)
		for _, evt := range page.Chunk {
			replaced[evt.Unsigned.ReplacesState]++
		}
		if server.Mode() == fakehs.Forking {
			assert.Less(t, len(replaced), 40)
		}
	})
}

// The order in which the server has stored events is told by the tokens of their surroundings.
func TestContextTellsTheOrder(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		clients, room := several(t, server, 3)
		atOnce(t, server, clients, room, "k")
		put(t, clients[0], room, "k", content{"last": true})
		server.Settle()
		var starts []string
		for _, evt := range synced(t, clients[0], room) {
			around, err := clients[0].Context(t.Context(), room, evt, nil, 1)
			require.NoError(t, err)
			assert.Equal(t, evt, around.Event.ID)
			assert.Len(t, around.EventsBefore, map[fakehs.Mode]int{fakehs.Linear: 1, fakehs.Forking: 0}[server.Mode()])
			starts = append(starts, around.Start)
		}
		require.Len(t, starts, 4)
		assert.IsIncreasing(t, placesOf(t, starts))
	})
}

// A user whose power is taken while an event of theirs is on its way loses it, and what they had sent before to the same state key.
func TestPowerTakenInFlight(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		admin, bot, room := pair(t, server)
		put(t, admin, room, "admin's", content{"a": 1})
		put(t, bot, room, "bot's", content{"a": 1})
		for _, key := range []string{"admin's", "bot's", "new"} {
			level(t, admin, room, bot.UserID, 50)
			hold, entered := make(chan struct{}), make(chan struct{})
			server.BeforeStore(func(write fakehs.Write) {
				if write.Type == "m.room.power_levels" {
					close(entered)
					<-hold // until the bot's event is stored
				}
			})
			var all sync.WaitGroup
			all.Go(func() { level(t, admin, room, bot.UserID, 0) })
			<-entered
			sent := put(t, bot, room, key, content{"a": 2})
			assert.Equal(t, sent, current(t, bot, room, key))
			close(hold)
			all.Wait()
			server.BeforeStore(nil)
			server.Settle()
			if left := current(t, admin, room, key); key == "admin's" {
				assert.NotEqual(t, sent, left)
				assert.NotEmpty(t, left, "what the admin has sent is there")
			} else {
				assert.Empty(t, left)
			}
			assert.Contains(t, ids(list(t, admin, room, "", 100).Chunk), sent, "though lists have it")
		}
	})
}

// On Dendrite an event that comes after the change of power is acknowledged and never seen, on Synapse seen and not in the state.
func TestPowerTakenBefore(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		admin, bot, room := pair(t, server)
		before := put(t, bot, room, "k", content{"a": 1})
		hold, entered := make(chan struct{}), make(chan struct{})
		server.BeforeStore(func(write fakehs.Write) {
			if write.Type == kind.Type {
				close(entered)
				<-hold
			}
		})
		var sent id.EventID
		var all sync.WaitGroup
		all.Go(func() { sent = put(t, bot, room, "k", content{"a": 2}) })
		<-entered
		level(t, admin, room, bot.UserID, 0)
		close(hold)
		all.Wait()
		server.Settle()
		listed := ids(list(t, admin, room, "", 100).Chunk)
		if server.Mode() == fakehs.Linear {
			assert.Equal(t, before, current(t, admin, room, "k"))
			assert.NotContains(t, listed, sent)
		} else {
			assert.Empty(t, current(t, admin, room, "k"))
			assert.Contains(t, listed, sent)
		}
	})
}

// Lists lag behind what is acknowledged, the state does not.
func TestLag(t *testing.T) {
	t.Parallel()
	server := fakehstest.New(t, fakehs.Options{Lag: time.Hour})
	client := fakehstest.Client(t, server)
	room := joined(t, client)
	server.Settle()
	sent := put(t, client, room, "k", content{"a": 1})
	assert.Equal(t, sent, current(t, client, room, "k"))
	assert.Empty(t, list(t, client, room, "", 100).Chunk)
	assert.Empty(t, synced(t, client, room))
	_, err := client.GetEvent(t.Context(), room, sent)
	assert.ErrorIs(t, err, mautrix.MNotFound)
	server.Settle()
	assert.Equal(t, []id.EventID{sent}, ids(list(t, client, room, "", 100).Chunk))
	assert.Equal(t, []id.EventID{sent}, synced(t, client, room))
}

// The time of an event is what the server's clock says.
func TestClock(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		room := joined(t, client)
		server.SetClock(-24 * time.Hour)
		put(t, client, room, "k", content{})
		evt, err := client.FullStateEvent(t.Context(), room, kind, "k")
		require.NoError(t, err)
		assert.WithinDuration(t, time.Now().Add(-24*time.Hour), time.UnixMilli(evt.Timestamp), time.Minute)
	})
}
