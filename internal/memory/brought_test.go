package memory

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// A response of an initial sync tells what a dict has, as far as it does.
func TestFirstResponse(t *testing.T) {
	const eventType, room = "m.opsdroid.database", id.RoomID("!room")
	state := func(at id.EventID, eventType, content string) *event.Event {
		key := ""
		evt := &event.Event{ID: at, Sender: "@bot:localhost", Type: event.Type{Type: eventType}, StateKey: &key, Timestamp: time.Now().Add(-time.Hour).UnixMilli()}
		require.NoError(t, evt.Content.UnmarshalJSON([]byte(content)))
		return evt
	}
	dict := func(at id.EventID, value string) *event.Event { return state(at, eventType, `{"k":`+value+`}`) }
	before := state("$create", "m.room.create", "{}")
	list := func(events ...*event.Event) mautrix.SyncEventsList { return mautrix.SyncEventsList{Events: events} }
	after := func(events ...*event.Event) *mautrix.SyncEventsList { return &mautrix.SyncEventsList{Events: events} }
	begins := mautrix.SyncTimeline{SyncEventsList: list(before)}
	redaction := &event.Event{ID: "$redaction", Type: event.EventRedaction, Redacts: "$a"}
	for about, test := range map[string]struct {
		joined mautrix.SyncJoinedRoom
		some   bool   // whether it is not an initial sync
		value  string // "?" where it is not known, and empty where nothing is there
	}{
		"in the state":                             {mautrix.SyncJoinedRoom{State: list(dict("$a", "1")), Timeline: begins}, false, "1"},
		"in the state of a later response":         {mautrix.SyncJoinedRoom{State: list(dict("$a", "1")), Timeline: begins}, true, "1"},
		"listed":                                   {mautrix.SyncJoinedRoom{Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, dict("$a", "1"))}}, false, "1"},
		"listed in a later response":               {mautrix.SyncJoinedRoom{Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, dict("$a", "1"))}}, true, "?"},
		"in the state of a branch":                 {mautrix.SyncJoinedRoom{State: list(dict("$a", "1"))}, true, "?"},
		"nothing":                                  {mautrix.SyncJoinedRoom{Timeline: begins}, false, ""},
		"nothing in a later response":              {mautrix.SyncJoinedRoom{Timeline: begins}, true, "?"},
		"another type":                             {mautrix.SyncJoinedRoom{State: list(state("$a", "m.room.topic", "{}")), Timeline: begins}, false, ""},
		"in the state after, and listed":           {mautrix.SyncJoinedRoom{StateAfter: after(dict("$a", "1")), Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, dict("$a", "1"))}}, false, "1"},
		"in the state after alone":                 {mautrix.SyncJoinedRoom{StateAfter: after(dict("$a", "1"))}, false, "1"},
		"listed, and not in the state":             {mautrix.SyncJoinedRoom{StateAfter: after(), Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, dict("$a", "1"))}}, false, "?"},
		"listed, and another in the state":         {mautrix.SyncJoinedRoom{StateAfter: after(dict("$b", "2")), Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, dict("$a", "1"))}}, false, "?"},
		"redacted in the same response":            {mautrix.SyncJoinedRoom{State: list(dict("$a", "1")), Timeline: mautrix.SyncTimeline{SyncEventsList: list(before, redaction)}}, false, "?"},
		"two events that nothing puts in an order": {mautrix.SyncJoinedRoom{State: list(dict("$a", "1"), dict("$b", "2")), Timeline: begins}, false, "?"},
	} {
		synctest.Test(t, func(t *testing.T) {
			client, err := mautrix.NewClient("http://localhost", "@bot:localhost", "")
			require.NoError(t, err)
			shared := NewShared(client, Settings{EventType: eventType, Layout: OneDict{}}, nil)
			feed := &Feed{Shared: shared}
			feed.Joined(room, &test.joined, func(event.Type) bool { return !test.some })
			time.Sleep(time.Second)
			view := shared.Room(room).Dict("").View()
			require.NoError(t, shared.Background.Close(t.Context()))
			if test.value == "?" {
				assert.Nil(t, view, about)
				return
			}
			require.NotNil(t, view, about)
			assert.Equal(t, test.value, view.Names["k"], about)
		})
	}
}
