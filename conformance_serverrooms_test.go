package roomkv_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// serverRoomRows are about who may do what, and what else a homeserver keeps.
var serverRoomRows = []row{
	{name: "server: a redaction leaves an empty object", in: once, run: serverRedaction},
	{name: "server: a redaction of an earlier event leaves the state", in: once, run: serverRedactionOfEarlier},
	{name: "server: who may redact", in: once, run: serverWhoMayRedact},
	{name: "server: one transaction is one event", in: once, run: serverTransaction},
	{name: "server: a user who is not in the room", in: once, run: serverStranger},
	{name: "server: a room that is not there", in: once, run: serverNoRoom},
	{name: "server: a user without the power", in: once, run: serverWithoutPower},
	{name: "server: a user who has left", in: once, run: serverLeft},
	{name: "server: a user who was banned", in: once, run: serverBanned},
	{name: "server: joined rooms and members", in: once, run: serverJoined},
	{name: "server: aliases", in: once, run: serverAliases},
	{name: "server: a wrong access token", in: once, run: serverWrongToken},
	{name: "server: account data of a room", in: once, run: serverAccountData},
	{name: "server: the media repository", in: once, run: serverMedia},
	{name: "server: history from before a member joined", in: once, run: serverHistoryVisibility},
	{name: "server: a room's upgrade", in: once, run: serverUpgrade},
	{name: "server: encrypted events and unread counts", in: once, alone: true, run: serverUnreadCounts},
	{name: "server: messages to a device come once", in: once, run: serverToDevice},
	{name: "server: a device is removed with the password", in: once, run: serverRemovesDevices},
}

func (e *env) redact(t *testing.T, client *mautrix.Client, evt id.EventID) answer {
	t.Helper()
	return ask(t, client, http.MethodPut, client.BuildClientURL("v3", "rooms", e.room, "redact", evt, client.TxnID()), map[string]any{})
}

func serverRedaction(t *testing.T, e *env) {
	state := e.put(t, e.client, "k", `{"v":1}`).event(t)
	message := e.send(t, e.client, "txn", `{"v":1}`).event(t)
	e.listed(t, 2)
	redaction := e.redact(t, e.client, state).event(t)
	e.redact(t, e.client, message).event(t)
	eventually(t, func() bool {
		var evt serverEvent
		e.event(t, e.client, e.room, message).read(t, &evt)
		return string(evt.Content) == "{}"
	}, "the redaction")
	assert.JSONEq(t, `{}`, string(e.get(t, e.client, "k").body))
	current := e.asEvent(t, "k")
	assert.Equal(t, state, current.ID, "it is current")
	assert.JSONEq(t, `{}`, string(current.Content))
	for _, evt := range append(e.listed(t, 2), current) {
		assert.JSONEq(t, `{}`, string(evt.Content))
		require.NotNil(t, evt.Unsigned.Redacted, "it says that it was redacted")
	}
	var evt serverEvent
	e.event(t, e.client, e.room, state).read(t, &evt)
	require.NotNil(t, evt.Unsigned.Redacted)
	assert.Equal(t, redaction, evt.Unsigned.Redacted.ID)
	next := e.put(t, e.client, "k", `{"v":2}`).event(t)
	assert.NotEqual(t, state, next)
	assert.JSONEq(t, `{"v":2}`, string(e.get(t, e.client, "k").body))
}

func serverRedactionOfEarlier(t *testing.T, e *env) {
	first := e.put(t, e.client, "", `{"v":1}`).event(t)
	second := e.put(t, e.client, "", `{"v":2}`).event(t)
	e.listed(t, 2)
	e.redact(t, e.client, first).event(t)
	eventually(t, func() bool { return string(e.listed(t, 2)[1].Content) == "{}" }, "the redaction")
	current := e.asEvent(t, "")
	e.isEvent(t, current, second, "", `{"v":2}`)
	assert.Nil(t, current.Unsigned.Redacted)
	later := e.listed(t, 2)[0]
	assert.Equal(t, first, later.Unsigned.Replaces)
	if before := string(later.Unsigned.Before); e.subject.like == dendrite {
		assert.JSONEq(t, `{"v":1}`, before, "beside the next event stands what was redacted")
	} else {
		assert.Contains(t, []string{`{"v":1}`, `{}`}, before, "it does so while that event is in a cache")
	}
}

func serverWhoMayRedact(t *testing.T, e *env) {
	powerless := e.member(t, 0)
	mine := e.put(t, e.client, "k", `{"v":1}`).event(t)
	theirs := e.send(t, powerless, "txn", `{"v":1}`).event(t)
	e.listed(t, 2)
	assert.Equal(t, "403 M_FORBIDDEN", e.redact(t, powerless, mine).is())
	assert.Equal(t, "200", e.redact(t, powerless, theirs).is(), "one's own")
	assert.Equal(t, "200", e.redact(t, e.client, mine).is())
	assert.Equal(t, on(e, "400 M_NOT_FOUND", "200"), e.redact(t, e.client, "$nothing").is())
}

func serverTransaction(t *testing.T, e *env) {
	first := e.send(t, e.client, "txn", `{"v":1}`).event(t)
	assert.Equal(t, first, e.send(t, e.client, "txn", `{"v":1}`).event(t))
	assert.NotEqual(t, first, e.send(t, e.client, "txn2", `{"v":1}`).event(t), "the content does not count")
	e.listed(t, 2)
}

func serverStranger(t *testing.T, e *env) {
	stranger := e.user(t)
	evt := e.put(t, e.client, "k", `{"v":1}`).event(t)
	e.listed(t, 1)
	assert.Equal(t, "403 M_FORBIDDEN", e.get(t, stranger, "k").is())
	assert.Equal(t, "403 M_FORBIDDEN", e.get(t, stranger, "other").is())
	assert.Equal(t, "403 M_FORBIDDEN", e.put(t, stranger, "k", `{"v":2}`).is())
	assert.Equal(t, "403 M_FORBIDDEN", e.send(t, stranger, "txn", `{"v":2}`).is())
	assert.Equal(t, "403 M_FORBIDDEN", e.redact(t, stranger, evt).is())
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, stranger, http.MethodGet, stranger.BuildClientURL("v3", "rooms", e.room, "state"), nil).is())
	listed := ask(t, stranger, http.MethodGet, stranger.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "messages"}, map[string]string{"dir": "b"}), nil)
	assert.Equal(t, on(e, "200", "403 M_FORBIDDEN"), listed.is())
	assert.NotContains(t, string(listed.body), evt)
	joined := ask(t, stranger, http.MethodGet, stranger.BuildClientURL("v3", "joined_rooms"), nil)
	assert.JSONEq(t, `{"joined_rooms":[]}`, string(joined.body))
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, stranger, http.MethodPost, stranger.BuildClientURL("v3", "join", e.room), map[string]any{}).is())
}

func serverNoRoom(t *testing.T, e *env) {
	nowhere := *e
	nowhere.room = id.RoomID("!nowhere:" + e.client.UserID.Homeserver())
	assert.Equal(t, "403 M_FORBIDDEN", nowhere.get(t, e.client, "k").is())
	assert.Equal(t, on(e, "400 M_UNSUPPORTED_ROOM_VERSION", "403 M_FORBIDDEN"), nowhere.put(t, e.client, "k", `{"v":1}`).is())
	url := e.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", nowhere.room, "messages"}, map[string]string{"dir": "b"})
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, e.client, http.MethodGet, url, nil).is())
}

func serverWithoutPower(t *testing.T, e *env) {
	powerless := e.member(t, 0)
	e.put(t, e.client, "k", `{"v":1}`).event(t)
	assert.Equal(t, "403 M_FORBIDDEN", e.put(t, powerless, "k", `{"v":2}`).is())
	assert.Equal(t, "200", e.get(t, powerless, "k").is(), "reading takes none")
	assert.Equal(t, "200", e.send(t, powerless, "txn", `{"v":2}`).is(), "nor do messages")
	var levels event.PowerLevelsEventContent
	ask(t, powerless, http.MethodGet, powerless.BuildClientURL("v3", "rooms", e.room, "state", "m.room.power_levels", ""), nil).read(t, &levels)
	assert.Equal(t, 50, levels.GetEventLevel(database))
	assert.Equal(t, 0, levels.GetUserLevel(powerless.UserID))
	assert.Equal(t, 100, levels.GetUserLevel(e.client.UserID))
	e.setLevel(t, powerless.UserID, 50)
	assert.Equal(t, "200", e.put(t, powerless, "k", `{"v":2}`).is())
	e.setLevel(t, powerless.UserID, 49)
	assert.Equal(t, "403 M_FORBIDDEN", e.put(t, powerless, "k", `{"v":3}`).is())
}

func serverLeft(t *testing.T, e *env) {
	other := e.member(t, 100)
	e.put(t, e.client, "k", `{"v":1}`).event(t)
	e.listed(t, 1)
	since := e.sync(t, other, "", "", 0).Next
	_, err := e.client.KickUser(t.Context(), e.room, &mautrix.ReqKickUser{UserID: other.UserID})
	if err != nil { // of the same power
		_, err = other.LeaveRoom(t.Context(), e.room)
	}
	require.NoError(t, err)
	e.put(t, e.client, "k", `{"v":2}`).event(t)
	assert.Equal(t, "403 M_FORBIDDEN", e.put(t, other, "k", `{"v":3}`).is())
	assert.JSONEq(t, `{"v":1}`, string(e.get(t, other, "k").body), "as it was then")
	missing := e.get(t, other, "never")
	assert.Equal(t, on(e, "200", "404 M_NOT_FOUND"), missing.is(), "Dendrite gives another event in place of one that is not there")
	left := false
	for range 5 {
		response := e.sync(t, other, since, "", time.Second)
		if _, left = response.Rooms.Leave[e.room]; left {
			break
		}
		since = response.Next
	}
	assert.True(t, left, "the sync tells")
	joined := ask(t, other, http.MethodGet, other.BuildClientURL("v3", "joined_rooms"), nil)
	assert.JSONEq(t, `{"joined_rooms":[]}`, string(joined.body))
}

func serverBanned(t *testing.T, e *env) {
	other := e.member(t, 0)
	e.put(t, e.client, "k", `{"v":1}`).event(t)
	_, err := e.client.BanUser(t.Context(), e.room, &mautrix.ReqBanUser{UserID: other.UserID})
	require.NoError(t, err)
	assert.Equal(t, "403 M_FORBIDDEN", e.get(t, other, "k").is())
	assert.Equal(t, "403 M_FORBIDDEN", e.put(t, other, "k", `{"v":2}`).is())
	got := ask(t, other, http.MethodPost, other.BuildClientURL("v3", "join", e.room), map[string]any{})
	assert.Equal(t, http.StatusForbidden, got.status)
}

func serverJoined(t *testing.T, e *env) {
	other := e.member(t, 0)
	invited := e.user(t)
	_, err := e.client.InviteUser(t.Context(), e.room, &mautrix.ReqInviteUser{UserID: invited.UserID})
	require.NoError(t, err)
	e.put(t, e.client, "k", `{"v":"secret"}`).event(t)
	joined, err := other.JoinedRooms(t.Context())
	require.NoError(t, err)
	assert.Equal(t, []id.RoomID{e.room}, joined.JoinedRooms)
	want := map[string]event.Membership{e.client.UserID.String(): event.MembershipJoin, other.UserID.String(): event.MembershipJoin,
		invited.UserID.String(): event.MembershipInvite}
	memberships := map[string]event.Membership{}
	eventually(t, func() bool { // Dendrite acknowledges an invitation before the room has it
		members, err := other.Members(t.Context(), e.room)
		require.NoError(t, err)
		clear(memberships)
		for _, evt := range members.Chunk {
			memberships[evt.GetStateKey()] = evt.Content.AsMember().Membership
		}
		return maps.Equal(memberships, want)
	}, "the members")
	got := e.get(t, invited, "k")
	assert.Equal(t, on(e, "200", "403 M_FORBIDDEN"), got.is(), "Dendrite gives an event of what the invitation shows, whatever was asked for")
	assert.NotContains(t, string(got.body), "secret")
}

func serverAliases(t *testing.T, e *env) {
	local, server := strings.ToLower(e.client.UserID.Localpart()), e.client.UserID.Homeserver()
	room, err := e.client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", RoomAliasName: local})
	require.NoError(t, err)
	resolved, err := e.user(t).ResolveAlias(t.Context(), id.NewRoomAlias(local, server))
	require.NoError(t, err, "also for a stranger")
	assert.Equal(t, room.RoomID, resolved.RoomID)
	assert.Equal(t, "404 M_NOT_FOUND", ask(t, e.client, http.MethodGet, e.client.BuildClientURL("v3", "directory", "room", "#nowhere:"+server), nil).is())
}

func serverWrongToken(t *testing.T, e *env) {
	client := e.twin(t)
	client.AccessToken = "wrong"
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.get(t, client, "k").is())
	assert.Equal(t, "401 M_UNKNOWN_TOKEN", e.put(t, client, "k", `{"v":1}`).is())
}

func serverAccountData(t *testing.T, e *env) {
	url := e.client.BuildClientURL("v3", "user", e.client.UserID, "rooms", e.room, "account_data", database.Type)
	assert.Equal(t, "404 M_NOT_FOUND", ask(t, e.client, http.MethodGet, url, nil).is())
	content := json.RawMessage(`{"float":1.5,"large":9007199254740993,"nested":{"a":[null]}}`)
	require.Equal(t, "200", ask(t, e.client, http.MethodPut, url, content).is())
	assert.JSONEq(t, string(content), string(ask(t, e.client, http.MethodGet, url, nil).body), "any number is kept")
	large := map[string]any{"v": strings.Repeat("x", 100_000)}
	require.Equal(t, "200", ask(t, e.client, http.MethodPut, url, large).is(), "there is no limit of an event's")
	require.Equal(t, "200", ask(t, e.client, http.MethodPut, url, map[string]any{}).is())
	assert.JSONEq(t, `{}`, string(ask(t, e.client, http.MethodGet, url, nil).body))
	other := e.member(t, 0)
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, other, http.MethodGet, url, nil).is(), "it is private")
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, other, http.MethodPut, url, content).is())
}

func serverMedia(t *testing.T, e *env) {
	ctx := t.Context()
	config, err := e.client.GetMediaConfig(ctx)
	require.NoError(t, err)
	assert.Positive(t, config.UploadSize)
	text := strings.Repeat("attachment\x00", 10_000)
	first, err := e.client.UploadBytes(ctx, []byte(text), "application/octet-stream")
	require.NoError(t, err)
	second, err := e.client.UploadBytes(ctx, []byte(text+"!"), "application/octet-stream")
	require.NoError(t, err)
	assert.NotEqual(t, first.ContentURI, second.ContentURI)
	assert.Equal(t, e.client.UserID.Homeserver(), first.ContentURI.Homeserver)
	got, err := e.user(t).DownloadBytes(ctx, first.ContentURI)
	require.NoError(t, err, "anybody with the address")
	assert.Equal(t, text, string(got))
	url := e.client.BuildClientURL("v1", "media", "download", e.client.UserID.Homeserver(), "nothing")
	assert.Equal(t, "404 M_NOT_FOUND", ask(t, e.client, http.MethodGet, url, nil).is())
}

func serverHistoryVisibility(t *testing.T, e *env) {
	_, err := e.client.SendStateEvent(t.Context(), e.room, event.StateHistoryVisibility, "", map[string]any{"history_visibility": "joined"})
	require.NoError(t, err)
	hidden := e.put(t, e.client, "", `{"v":1}`).event(t)
	e.listed(t, 1)
	late := e.member(t, 0)
	assert.JSONEq(t, `{"v":1}`, string(e.get(t, late, "").body), "the state is there")
	shown := e.put(t, e.client, "", `{"v":2}`).event(t)
	e.listed(t, 2)
	assert.Equal(t, []id.EventID{shown}, eventIDs(e.messages(t, late, "", 50).Chunk))
	assert.Equal(t, "404 M_NOT_FOUND", e.event(t, late, e.room, hidden).is())
	assert.Equal(t, "200", e.event(t, late, e.room, shown).is())
}

func serverUpgrade(t *testing.T, e *env) {
	other := e.member(t, 50)
	e.put(t, e.client, "k", `{"v":1}`).event(t)
	e.listed(t, 1)
	var upgraded struct {
		Replacement id.RoomID `json:"replacement_room"`
	}
	url := func(room id.RoomID, what ...any) string {
		return e.client.BuildClientURL(append([]any{"v3", "rooms", room}, what...)...)
	}
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, other, http.MethodPost, url(e.room, "upgrade"), map[string]string{"new_version": "11"}).is())
	ask(t, e.client, http.MethodPost, url(e.room, "upgrade"), map[string]string{"new_version": "11"}).read(t, &upgraded)
	require.NotEqual(t, e.room, upgraded.Replacement)
	var tombstone event.TombstoneEventContent
	ask(t, e.client, http.MethodGet, url(e.room, "state", "m.room.tombstone", ""), nil).read(t, &tombstone)
	assert.Equal(t, upgraded.Replacement, tombstone.ReplacementRoom)
	var create event.CreateEventContent
	ask(t, e.client, http.MethodGet, url(upgraded.Replacement, "state", "m.room.create", ""), nil).read(t, &create)
	require.NotNil(t, create.Predecessor)
	assert.Equal(t, e.room, create.Predecessor.RoomID)
	copied := ask(t, e.client, http.MethodGet, url(upgraded.Replacement, "state", database.Type, "k"), nil)
	assert.Equal(t, on(e, "200", "404 M_NOT_FOUND"), copied.is(), "Dendrite copies the state of any type")
	if e.subject.like == dendrite { // at one time, by which the store tells what was copied from what somebody has written
		timeOf := func(room id.RoomID, eventType, stateKey string) int64 {
			var evt serverEvent
			path := mautrix.ClientURLPath{"v3", "rooms", room, "state", eventType, stateKey}
			ask(t, e.client, http.MethodGet, e.client.BuildURLWithQuery(path, map[string]string{"format": "event"}), nil).read(t, &evt)
			assert.Equal(t, e.client.UserID, evt.Sender)
			return evt.Time
		}
		at := timeOf(e.room, "m.room.tombstone", "")
		assert.Equal(t, at, timeOf(upgraded.Replacement, "m.room.create", ""))
		assert.Equal(t, at, timeOf(upgraded.Replacement, database.Type, "k"))
	}
	var levels event.PowerLevelsEventContent
	ask(t, e.client, http.MethodGet, url(upgraded.Replacement, "state", "m.room.power_levels", ""), nil).read(t, &levels)
	assert.Equal(t, 50, levels.GetUserLevel(other.UserID), "power goes along")
	assert.Equal(t, "200", e.put(t, e.client, "k", `{"v":2}`).is(), "the old room is still written")
	assert.Equal(t, "200", e.put(t, other, "k", `{"v":3}`).is())
	assert.Equal(t, "403 M_FORBIDDEN", ask(t, other, http.MethodPost, other.BuildClientURL("v3", "join", upgraded.Replacement), map[string]any{}).is(), "nobody is invited")
}

// A push rule counts each encrypted event as unread, and another one leaves out those whose content says in clear that it is a notice.
func serverUnreadCounts(t *testing.T, e *env) {
	other, room := e.user(t), hstest.Room(t, e.client, &mautrix.ReqCreateRoom{Preset: "public_chat"})
	_, err := other.JoinRoomByID(t.Context(), room) // an invitation counts too
	require.NoError(t, err)
	send := func(extra string) {
		content := json.RawMessage(`{"algorithm":"m.megolm.v1.aes-sha2","ciphertext":"x","session_id":"x"` + extra + `}`)
		url := e.client.BuildClientURL("v3", "rooms", room, "send", "m.room.encrypted", e.client.TxnID())
		ask(t, e.client, http.MethodPut, url, content).event(t)
	}
	for want := range 3 {
		require.Equal(t, want, e.unread(t, other, room, want))
		send(`,"msgtype":"m.notice"`)
		send("")
	}
}

// unread is how many events in a room a homeserver has notified a user of, once these are as many as are waited for: Dendrite counts them
// later, one after the other, and a busy one takes minutes.
func (e *env) unread(t *testing.T, user *mautrix.Client, room id.RoomID, wanted int) (count int) {
	t.Helper()
	for deadline := time.Now().Add(4 * time.Minute); time.Now().Before(deadline); time.Sleep(200 * time.Millisecond) {
		filter := fmt.Sprintf(`{"account_data":{"not_types":["%d"]}}`, time.Now().UnixNano()) // another one each time
		if count = e.sync(t, user, "", filter, 0).Rooms.Join[room].Unread.Notifications; count >= wanted {
			break
		}
	}
	return count
}

func serverToDevice(t *testing.T, e *env) {
	other := e.user(t)
	since := e.sync(t, other, "", "", 0).Next
	content := map[string]any{"messages": map[id.UserID]any{other.UserID: map[id.DeviceID]any{other.DeviceID: map[string]any{"v": 1}}}}
	url := e.client.BuildClientURL("v3", "sendToDevice", "com.example.test", e.client.TxnID())
	require.Equal(t, "200", ask(t, e.client, http.MethodPut, url, content).is())
	var brought []serverEvent
	for range 10 {
		response := e.sync(t, other, since, "", 300*time.Millisecond)
		brought = append(brought, response.ToDevice.Events...)
		since = response.Next
		if len(brought) > 0 {
			break
		}
	}
	require.Len(t, brought, 1)
	assert.Equal(t, e.client.UserID, brought[0].Sender)
	assert.JSONEq(t, `{"v":1}`, string(brought[0].Content))
	assert.Empty(t, e.sync(t, other, since, "", 100*time.Millisecond).ToDevice.Events)
}

func serverRemovesDevices(t *testing.T, e *env) {
	other, err := e.subject.NewDevice(t.Context(), e.client.UserID)
	require.NoError(t, err)
	password, err := e.subject.Password(e.client.UserID)
	require.NoError(t, err)
	request := mautrix.ReqDeleteDevices[any]{Devices: []id.DeviceID{other.DeviceID}}
	session := ""
	remove := func() int {
		content, err := e.client.MakeFullRequest(t.Context(), mautrix.FullRequest{
			Method: http.MethodPost, URL: e.client.BuildClientURL("v3", "delete_devices"), RequestJSON: &request,
		})
		var asked mautrix.RespUserInteractive
		require.NoError(t, json.Unmarshal(content, &asked))
		session = asked.Session
		var refused mautrix.HTTPError
		if errors.As(err, &refused) {
			return refused.Response.StatusCode
		}
		require.NoError(t, err)
		return http.StatusOK
	}
	count := func() int {
		all, err := e.client.GetDevicesInfo(t.Context())
		require.NoError(t, err)
		return len(all.Devices)
	}
	before := count()
	for _, given := range []string{"another password", password} {
		request.Auth = nil
		require.Equal(t, http.StatusUnauthorized, remove())
		require.NotEmpty(t, session)
		assert.Equal(t, before, count())
		request.Auth = map[string]any{
			"type": mautrix.AuthTypePassword, "session": session, "password": given,
			"identifier": map[string]any{"type": mautrix.IdentifierTypeUser, "user": e.client.UserID},
		}
		if given == password {
			assert.Equal(t, http.StatusOK, remove())
			assert.Equal(t, before-1, count())
		} else {
			assert.Contains(t, []int{http.StatusUnauthorized, http.StatusForbidden}, remove())
		}
	}
}
