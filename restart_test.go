package roomkv_test

import (
	"context"
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// A bot of 60 rooms begins again. What the first response of its sync has is not asked for.
func TestRestartOfABotInManyRooms(t *testing.T) {
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		hstest.Parallel(t)
		ctx := t.Context()
		client := hstest.Client(t)
		const rooms, behind = 60, 10 // in every tenth room the memory is older than what the sync lists
		var all []id.RoomID
		for i := range rooms {
			room := hstest.Room(t, client)
			store := open(t, client, room, layout)
			require.NoError(t, store.Put(ctx, "k", 1))
			require.NoError(t, store.Put(ctx, "j", 1))
			if i%behind == 0 {
				talk(t, client, room, 60)
			}
			all = append(all, room)
		}
		time.Sleep(1100 * time.Millisecond) // what the sync lists of a moment alone need not be all of that
		for i, room := range all {
			if i%behind == 0 {
				talk(t, client, room, 1)
			}
		}
		time.Sleep(200 * time.Millisecond) // Dendrite's sync lags some milliseconds behind what it has acknowledged
		process := again(t, client)
		recorder := hstest.Record(process)
		store, _ := follow(t, process, all[0], layout)
		counts := func(t *testing.T, want int, i int, what string, do func() error) {
			t.Helper()
			recorder.Reset()
			require.NoError(t, do(), what)
			assert.Equal(t, want, requests(recorder), "%s, room %d: %s", what, i, sent(recorder))
		}
		time.Sleep(time.Second) // that nothing is there is not believed at once
		get := func(store *roomkv.Store) func() error {
			return func() error {
				got, err := roomkv.Get[int](ctx, store, "k")
				assert.Equal(t, 1, got)
				return err
			}
		}
		var late []string
		for i, room := range all {
			scoped, err := store.WithRoom(ctx, room)
			require.NoError(t, err)
			counts(t, 0, i, "first get", get(scoped))
			counts(t, 0, i, "first get of a key that is not there", func() error {
				assert.ErrorIs(t, scoped.Get(ctx, "missing", new(int)), roomkv.ErrNotFound)
				return nil
			})
			store.InEventRoom(func(ctx context.Context, _ *event.Event, inRoom *roomkv.Store) {
				counts(t, 0, i, "get in a handler", get(inRoom))
			})(ctx, &event.Event{RoomID: room})
			update := 1
			switch { // what was written beside the last write is looked for, which on Dendrite takes two requests beyond fifty events
			case i%behind == 0 && *forking:
				update = 2
			case i%behind == 0:
				update = 3
			}
			for n, want := range []int{update, 1} {
				recorder.Reset()
				require.NoError(t, roomkv.Update(ctx, scoped, "k", increment))
				if took := requests(recorder); took != want {
					late = append(late, fmt.Sprintf("update %d in room %d takes %d in place of %d: %s", n, i, took, want, sent(recorder)))
				}
			}
		}
		assert.LessOrEqual(t, len(late), rooms/10, "a busy machine's sync can be late, so that a store asks more often, but not each time: %v", late)
	})
}

// talk sends messages.
func talk(t *testing.T, client *mautrix.Client, room id.RoomID, messages int) {
	t.Helper()
	for n := range messages {
		_, err := client.SendText(t.Context(), room, fmt.Sprint("message ", n))
		require.NoError(t, err)
	}
}
