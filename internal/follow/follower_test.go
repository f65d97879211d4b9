package follow

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

type sink func(shows Shows)

func (sink) Missed(func(event.Type) bool) {}
func (sink) Left(id.RoomID)               {}
func (sink) Skipped(id.RoomID)            {}
func (sink) Noticed(*event.Event)         {}
func (s sink) Joined(_ id.RoomID, _ *mautrix.SyncJoinedRoom, shows Shows) []*matrix.Event {
	s(shows)
	return nil
}

// What a response does not have is only then not there when it has all, and its filter leaves nothing out.
func TestShows(t *testing.T) {
	types := func(names ...string) (all []event.Type) {
		for _, name := range names {
			all = append(all, event.Type{Type: name})
		}
		return all
	}
	part := func(types, notTypes []event.Type) *mautrix.FilterPart {
		return &mautrix.FilterPart{Types: types, NotTypes: notTypes}
	}
	yes := true
	for about, test := range map[string]struct {
		since  string
		filter *mautrix.RoomFilter
		shows  bool
	}{
		"no filter":                       {"", nil, true},
		"a token that was kept":           {"s1", nil, false},
		"all types":                       {"", &mautrix.RoomFilter{State: part(types("*"), nil)}, true},
		"the type":                        {"", &mautrix.RoomFilter{State: part(types("m.room.create", "m.room.encryption"), nil)}, true},
		"like the type":                   {"", &mautrix.RoomFilter{State: part(types("m.*.enc*on"), nil)}, true},
		"another type":                    {"", &mautrix.RoomFilter{State: part(types("m.room.create"), nil)}, false},
		"not the type":                    {"", &mautrix.RoomFilter{State: part(nil, types("m.room.encryption"))}, false},
		"nothing like the type":           {"", &mautrix.RoomFilter{State: part(nil, types("m.room.*"))}, false},
		"nothing like another type":       {"", &mautrix.RoomFilter{State: part(nil, types("m_room_*"))}, true},
		"nothing like it in the timeline": {"", &mautrix.RoomFilter{Timeline: part(nil, types("*.encryption"))}, false},
		"of somebody":                     {"", &mautrix.RoomFilter{State: &mautrix.FilterPart{Senders: []id.UserID{"@a:b"}}}, false},
		"not of somebody":                 {"", &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{NotSenders: []id.UserID{"@a:b"}}}, false},
		"of a room":                       {"", &mautrix.RoomFilter{State: &mautrix.FilterPart{Rooms: []id.RoomID{"!a"}}}, false},
		"with a URL":                      {"", &mautrix.RoomFilter{State: &mautrix.FilterPart{ContainsURL: &yes}}, false},
	} {
		client, err := mautrix.NewClient("http://localhost", "@bot:localhost", "")
		require.NoError(t, err)
		syncer := client.Syncer.(*mautrix.DefaultSyncer)
		syncer.FilterJSON = &mautrix.Filter{Room: test.filter}
		told := false
		f := &Follower{Client: client, EventType: event.Type{Type: "m.opsdroid.database"}, Sink: sink(func(shows Shows) {
			told = true
			assert.Equal(t, test.shows, shows(event.StateEncryption), about)
		})}
		require.NoError(t, f.Start())
		whole := &mautrix.SyncJoinedRoom{StateAfter: new(mautrix.SyncEventsList)}
		joined := mautrix.RespSyncRooms{Join: map[id.RoomID]*mautrix.SyncJoinedRoom{"!room": whole}}
		require.NoError(t, syncer.ProcessResponse(context.Background(), &mautrix.RespSync{Rooms: joined}, test.since))
		assert.True(t, told, about)
	}
}

// Synapse shows the state of branches, and what is on another one was sent at about the same time.
func TestIsSettled(t *testing.T) {
	empty := ""
	at := func(times ...int64) (joined *mautrix.SyncJoinedRoom) {
		joined = new(mautrix.SyncJoinedRoom)
		for _, at := range times {
			joined.Timeline.Events = append(joined.Timeline.Events, &event.Event{Type: event.EventMessage, Timestamp: at})
		}
		return joined
	}
	begins := at(5, 6)
	begins.Timeline.Events[0].Type, begins.Timeline.Events[0].StateKey = event.StateCreate, &empty
	after := at(5)
	after.StateAfter = new(mautrix.SyncEventsList)
	for about, test := range map[string]struct {
		joined  *mautrix.SyncJoinedRoom
		settled bool
	}{
		"nothing":               {at(), false},
		"one event":             {at(5), false},
		"within a moment":       {at(5, 10, 900), false},
		"over a while":          {at(5, 10, 2000), true},
		"the room's beginning":  {begins, true},
		"with what comes after": {after, true},
	} {
		assert.Equal(t, test.settled, IsSettled(test.joined, nil), about)
	}
}
