package roomkv

import (
	"fmt"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// Places are in the order of storage, also where that is not the order of the list, and do not change.
func TestPlacesAreInTheOrderOfStorage(t *testing.T) {
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, err := New(client, room.String(), WithPerKeyState())
	require.NoError(t, err)
	state, err := store.handle(ctx)
	require.NoError(t, err)
	place := func(event id.EventID) int64 {
		place, known, err := state.Stored(ctx, event)
		require.NoError(t, err)
		require.True(t, known)
		return place
	}
	var before, first []int64
	var rounds [][]id.EventID
	for round := range 4 {
		var mu sync.Mutex
		var group sync.WaitGroup
		var sent []id.EventID
		for i := range 4 {
			group.Go(func() {
				resp, err := client.SendStateEvent(ctx, room, event.Type{Type: "test", Class: event.StateEventType}, fmt.Sprint(i), map[string]int{"round": round})
				if assert.NoError(t, err) {
					mu.Lock()
					defer mu.Unlock()
					sent = append(sent, resp.EventID)
				}
			})
		}
		group.Wait()
		require.Eventually(t, func() bool { // Dendrite knows of an event some milliseconds after it has acknowledged it
			for _, event := range sent {
				if _, known, err := state.Stored(ctx, event); err != nil || !known {
					return false
				}
			}
			return true
		}, 5*time.Second, 10*time.Millisecond)
		var places []int64
		for _, event := range sent {
			places = append(places, place(event))
			for _, earlier := range before {
				assert.Less(t, earlier, places[len(places)-1], "all of the round before were acknowledged")
			}
		}
		first, before = append(first, places...), places
		rounds = append(rounds, sent)
	}
	seen := map[int64]bool{}
	for round, sent := range rounds {
		for i, event := range sent {
			again := place(event)
			assert.Equal(t, first[round*4+i], again)
			assert.False(t, seen[again], "two events in one place")
			seen[again] = true
		}
	}
	_, known, err := state.Stored(ctx, "$unknown")
	require.NoError(t, err)
	assert.False(t, known)
}
