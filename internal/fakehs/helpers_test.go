package fakehs_test

import (
	"encoding/json"

	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// kind is a type of state that means nothing to the server.
var kind = event.Type{Type: "com.example.kind", Class: event.StateEventType}

type content map[string]any

// put sends state.
func put(t testing.TB, client *mautrix.Client, room id.RoomID, stateKey string, content any) id.EventID {
	t.Helper()
	sent, err := client.SendStateEvent(t.Context(), room, kind, stateKey, content)
	require.NoError(t, err)
	return sent.EventID
}

// current is the ID of the current event of the state key, "" where there is none.
func current(t testing.TB, client *mautrix.Client, room id.RoomID, stateKey string) id.EventID {
	t.Helper()
	evt, err := client.FullStateEvent(t.Context(), room, kind, stateKey)
	if err != nil {
		require.ErrorIs(t, err, mautrix.MNotFound)
		return ""
	}
	return evt.ID
}

// list gives a page of a room's events of the kind, the newest first.
func list(t testing.TB, client *mautrix.Client, room id.RoomID, from string, limit int) *mautrix.RespMessages {
	t.Helper()
	page, err := client.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, &mautrix.FilterPart{Types: []event.Type{kind}, Limit: limit}, limit)
	require.NoError(t, err)
	return page
}

func ids(events []*event.Event) (ids []id.EventID) {
	for _, evt := range events {
		ids = append(ids, evt.ID)
	}
	return ids
}

// ask makes any request, and gives what was answered.
func ask(t testing.TB, client *mautrix.Client, method string, body any, path ...any) (answer content, err error) {
	t.Helper()
	text, err := client.MakeFullRequest(mautrix.WithMaxRetries(t.Context(), 0), mautrix.FullRequest{
		Method: method, URL: client.BuildURL(mautrix.ClientURLPath(path)), RequestJSON: body,
	})
	_ = json.Unmarshal(text, &answer)
	return answer, err
}

// joined is a room that all the clients are in. The first has made it, and the others may send state.
func joined(t testing.TB, clients ...*mautrix.Client) id.RoomID {
	t.Helper()
	create := &mautrix.ReqCreateRoom{Preset: "private_chat", PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{}}}
	for i, client := range clients {
		create.PowerLevelOverride.Users[client.UserID] = 50
		if i > 0 {
			create.Invite = append(create.Invite, client.UserID)
		}
	}
	create.PowerLevelOverride.Users[clients[0].UserID] = 100
	room := hstest.Room(t, clients[0], create)
	for _, client := range clients[1:] {
		_, err := client.JoinRoomByID(t.Context(), room)
		require.NoError(t, err)
	}
	return room
}

// level gives a user a power level.
func level(t testing.TB, admin *mautrix.Client, room id.RoomID, user id.UserID, level int) {
	t.Helper()
	var levels event.PowerLevelsEventContent
	require.NoError(t, admin.StateEvent(t.Context(), room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(user, level)
	_, err := admin.SendStateEvent(t.Context(), room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
}

// status is the HTTP status of an error.
func status(t testing.TB, err error) int {
	t.Helper()
	var answer mautrix.HTTPError
	require.ErrorAs(t, err, &answer)
	return answer.Response.StatusCode
}

// pair is a server with two clients in one room.
func pair(t testing.TB, server *fakehs.Server) (one, two *mautrix.Client, room id.RoomID) {
	t.Helper()
	one, two = fakehstest.Client(t, server), fakehstest.Client(t, server)
	return one, two, joined(t, one, two)
}
