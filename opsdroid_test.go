package roomkv_test

import (
	"encoding/json"
	"os"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// fixture is what a version of opsdroid writes with one configuration.
type fixture struct {
	Name      string
	EventType string `json:"event_type"`
	Layout    string
	StateKey  string                     `json:"state_key"`
	Events    map[string]json.RawMessage // content by state key
	Memory    map[string]json.RawMessage // value by key
}

func (f fixture) options() []roomkv.Option {
	layout := roomkv.WithPerKeyState()
	if f.Layout == "single" {
		layout = roomkv.WithSingleStateKey(f.StateKey)
	}
	return []roomkv.Option{layout, roomkv.WithEventType(f.EventType)}
}

func fixtures(t *testing.T) []fixture {
	text, err := os.ReadFile("testdata/opsdroid.json")
	require.NoError(t, err)
	var all []fixture
	require.NoError(t, json.Unmarshal(text, &all))
	require.NotEmpty(t, all)
	return all
}

func TestReadsWhatOpsdroidWrites(t *testing.T) {
	hstest.Parallel(t)
	for _, fixture := range fixtures(t) {
		t.Run(fixture.Name, func(t *testing.T) {
			ctx := t.Context()
			client := hstest.Client(t)
			req := &mautrix.ReqCreateRoom{Preset: "private_chat"}
			for stateKey, content := range fixture.Events {
				evt := &event.Event{Type: event.Type{Type: fixture.EventType, Class: event.StateEventType}, StateKey: &stateKey}
				require.NoError(t, json.Unmarshal(content, &evt.Content))
				req.InitialState = append(req.InitialState, evt)
			}
			store := open(t, client, hstest.Room(t, client, req), fixture.options()...)

			var got map[string]string
			listed := func(n int) func() bool { // each listing can be behind
				return func() bool {
					got = memoryOf(t, store)
					return len(got) == n
				}
			}
			eventually(t, listed(len(fixture.Memory)), "opsdroid's writes are not listed")
			for key, value := range fixture.Memory {
				assert.JSONEq(t, string(value), got[key], key)
				var one json.RawMessage
				require.NoError(t, store.Get(ctx, key, &one))
				assert.JSONEq(t, string(value), string(one), key)
			}
			// And it goes on from there: one key changes, one goes, the others stay.
			require.NoError(t, store.Put(ctx, "new", "value"))
			for key := range fixture.Memory {
				require.NoError(t, store.Delete(ctx, key))
				delete(fixture.Memory, key)
				break
			}
			eventually(t, listed(len(fixture.Memory)+1), "the others stay")
			for key, value := range fixture.Memory {
				assert.JSONEq(t, string(value), got[key], key)
			}
		})
	}
}

func TestWritesWhatOpsdroidReads(t *testing.T) {
	hstest.Parallel(t)
	for _, fixture := range fixtures(t) {
		if fixture.EventType != "dev.opsdroid.database" {
			continue // opsdroid migrates the older type and reads it no more
		}
		t.Run(fixture.Name, func(t *testing.T) {
			client := hstest.Client(t)
			room := hstest.Room(t, client)
			store := open(t, client, room, fixture.options()...)
			for key, value := range fixture.Memory {
				require.NoError(t, store.Put(t.Context(), key, value))
			}
			for key, value := range fixture.Memory {
				got, ok := opsdroidGet(t, client, room, fixture, key)
				require.True(t, ok, key)
				assert.JSONEq(t, string(value), got)
			}
			for key := range fixture.Memory {
				require.NoError(t, store.Delete(t.Context(), key))
				_, ok := opsdroidGet(t, client, room, fixture, key)
				assert.False(t, ok, key)
			}
		})
	}
}

// opsdroidGet finds a value where opsdroid's get looks for it.
func opsdroidGet(t *testing.T, client *mautrix.Client, room id.RoomID, fixture fixture, key string) (string, bool) {
	stateKey := key
	if fixture.Layout == "single" {
		stateKey = fixture.StateKey
	}
	var content map[string]json.RawMessage
	err := client.StateEvent(t.Context(), room, event.Type{Type: fixture.EventType, Class: event.StateEventType}, stateKey, &content)
	require.NoError(t, err)
	value, ok := content[key]
	return string(value), ok
}
