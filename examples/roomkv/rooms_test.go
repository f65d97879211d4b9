package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestRooms(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	got := sh.run("rooms")
	assert.Equal(t, result{"", "No room has such a memory.\n", exitOK}, got)
	sh.ok("put", "greeting", "Hello!")
	hstest.Room(t, sh.bot) // without a memory
	_, err := sh.bot.SendStateEvent(t.Context(), id.RoomID(sh.value(envRoom)), event.StateRoomName, "", &event.RoomNameEventContent{Name: "Lobby"})
	require.NoError(t, err)
	room := sh.value(envRoom)
	sh.set(envRoom, "")
	assert.Equal(t, room+"\n", sh.ok("rooms"))
	assert.Regexp(t, `^ROOM +NAME\n`+room+` +Lobby\n$`, sh.ok("rooms", "--long"))
	assert.JSONEq(t, `{"room": "`+room+`"}`, sh.ok("rooms", "--json"))
	assert.Empty(t, sh.ok("rooms", "--per-key", "--event-type", "com.example.other"))
}

func TestAccountData(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	owner := hstest.Client(t)
	room := hstest.Room(t, owner, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{sh.bot.UserID}})
	_, err := sh.bot.JoinRoomByID(t.Context(), room)
	require.NoError(t, err)
	sh.set(envRoom, room.String())
	assert.Equal(t, exitError, sh.run("put", "greeting", "Hello!").code)
	sh.ok("put", "greeting", "Hello!", "--account-data-fallback")
	assert.Equal(t, exitNotFound, sh.run("get", "greeting").code)
	assert.Equal(t, "Hello!\n", sh.ok("get", "greeting", "--account-data-fallback"))
	got := sh.run("ls", "--account-data-fallback")
	assert.Contains(t, got.out, "greeting")
	assert.Contains(t, got.err, "The memory is in account data")
	assert.Contains(t, sh.ok("ls", "--account-data-fallback", "--json"), `"place":"account data"`)
}
