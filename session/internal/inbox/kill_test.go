package inbox_test

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// A process can be killed whenever the state was written. What has it from then on?
func TestKilledAtEveryStep(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		rooms := []id.RoomID{together(t, other, self), together(t, other, self), together(t, other, self)}
		storage := &files{}
		first := start(t, self, storage, func(context.Context, *event.Event) {})
		time.Sleep(time.Second)
		require.NoError(t, first.stop())

		type moment struct {
			saved   []byte
			handled []string // by handlers, at the time at which that was written
		}
		var moments []moment
		var heard told
		storage.written = func(data []byte) { moments = append(moments, moment{data, heard.all()}) }
		handle := func(_ context.Context, evt *event.Event) {
			time.Sleep(time.Duration(len(evt.ID)+int(evt.ID[3])%7) * 10 * time.Millisecond)
			heard.add(evt)
		}
		second := start(t, process(server, self), storage, handle)
		var sent []string
		for n := range 24 {
			text := fmt.Sprint(n%3, "-", n/3)
			sent = append(sent, text)
			say(t, other, rooms[n%3], text)
			time.Sleep(time.Duration(n%5) * 30 * time.Millisecond)
		}
		time.Sleep(time.Minute)
		require.NoError(t, second.stop())
		require.ElementsMatch(t, sent, heard.all())
		inOrder(t, heard.all())
		require.Greater(t, len(moments), 20)

		for n, at := range moments {
			var again told
			third := start(t, process(server, self), &files{is: map[string][]byte{"inbox": at.saved}}, func(_ context.Context, evt *event.Event) { again.add(evt) })
			time.Sleep(time.Minute)
			require.NoError(t, third.stop())
			for _, text := range sent {
				if slices.Contains(at.handled, text) {
					continue
				}
				assert.Contains(t, again.all(), text, "nobody was told after the kill at %d", n)
			}
			inOrder(t, again.all())
			// What the state has as handled is not told again.
			assert.Len(t, again.all(), len(sent)-recorded(t, at.saved, server, self, rooms), "after the kill at %d", n)
		}
	})
}

// inOrder asserts that each room's messages were told in their order.
func inOrder(t *testing.T, texts []string) {
	t.Helper()
	for room := range 3 {
		var in []string
		for _, text := range texts {
			if strings.HasPrefix(text, fmt.Sprint(room, "-")) {
				in = append(in, text)
			}
		}
		assert.True(t, slices.IsSorted(in), "%v", in)
	}
}

// recorded is how many messages count as handled in a state: those that it names, and those before its token.
func recorded(t *testing.T, saved []byte, server *fakehs.Server, self *mautrix.Client, rooms []id.RoomID) int {
	t.Helper()
	var is struct {
		NextBatch string       `json:"next_batch"`
		Handled   []id.EventID `json:"handled"`
	}
	require.NoError(t, json.Unmarshal(saved, &is))
	after := map[id.EventID]bool{}
	total := 0
	for _, room := range rooms {
		all, err := self.Messages(t.Context(), room, "", "", mautrix.DirectionBackward, nil, 100)
		require.NoError(t, err)
		since, err := self.Messages(t.Context(), room, "", is.NextBatch, mautrix.DirectionBackward, nil, 100)
		require.NoError(t, err)
		for _, evt := range all.Chunk {
			if evt.Type.Type == event.EventMessage.Type {
				total++
			}
		}
		for _, evt := range since.Chunk {
			if evt.Type.Type == event.EventMessage.Type {
				after[evt.ID] = true
			}
		}
	}
	for _, handled := range is.Handled {
		delete(after, handled)
	}
	return total - len(after)
}

func TestInterruptedHandler(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		room, storage := together(t, other, self), &files{}
		var begun, heard told
		first := start(t, self, storage, func(ctx context.Context, evt *event.Event) {
			begun.add(evt)
			if evt.Content.AsMessage().Body == "2" {
				<-ctx.Done()
			}
		})
		time.Sleep(time.Second)
		for n := range 4 {
			say(t, other, room, fmt.Sprint(n))
		}
		time.Sleep(time.Second)
		before := time.Now()
		require.NoError(t, first.stop())
		assert.Equal(t, 4*time.Second, time.Since(before).Round(time.Second), "the handler's context has ended")
		assert.Equal(t, numbered(0, 3), begun.all())
		start(t, process(server, self), storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Second)
		assert.Equal(t, numbered(2, 4), heard.all(), "what was interrupted is told again")
	})
}
