package roomkv

import (
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestPlaceInATokenOfAKnownForm(t *testing.T) {
	for _, test := range []struct {
		name, start string
		before      int
		place       int64
		known       bool
	}{
		{"Synapse", "t9-41136_0_0_0_0_0_0_0_0_0_0_0_0_0", 0, 41136, true},
		{"Synapse, the room alone", "t9-41136", 0, 41136, true},
		{"Synapse, an event from before the join", "t9--17_0_0", 0, -17, true},
		{"Synapse, but the token is another event's", "t9-41136_0_0", 1, 0, false},
		{"Synapse, with the positions of several writers", "m41136~1.41137~2.41139_0_0", 0, 0, false},
		{"Synapse, of a sync", "s41136_0_0", 0, 0, false},
		{"Dendrite", "t9_41136", 1, 41136, true},
		{"Dendrite, where the event before is hidden", "t9_41136", 0, 41136, true},
		{"none", "", 0, 0, false},
		{"a number", "41136", 0, 0, false},
		{"no number", "t9-x", 0, 0, false},
		{"too large a number", "t9_" + strings.Repeat("9", 30), 0, 0, false},
		{"something else", "t9_41136_7", 0, 0, false},
		{"something around it", " t9_41136", 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			place, known := surroundings{Start: test.start, Before: make([]json.RawMessage, test.before)}.place()
			assert.Equal(t, test.known, known)
			assert.Equal(t, test.place, place)
		})
	}
}

// Places are in the order of storage, also where that is not the order of the list, and do not change.
func TestPlacesAreInTheOrderOfStorage(t *testing.T) {
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.Room(t, client)
	store, err := New(client, room.String(), WithPerKeyState())
	require.NoError(t, err)
	state, err := store.state(ctx)
	require.NoError(t, err)
	place := func(event id.EventID) int64 {
		place, known, err := state.stored(ctx, event)
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
				if _, known, err := state.stored(ctx, event); err != nil || !known {
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
	_, known, err := state.stored(ctx, "$unknown")
	require.NoError(t, err)
	assert.False(t, known)
}
