package fakehs_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// each runs a test in both modes, each with a server of its own.
func each(t *testing.T, test func(t *testing.T, server *fakehs.Server)) {
	t.Parallel()
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			server := fakehs.New(fakehs.Options{Mode: mode, Seed: 1})
			test(t, server)
			assert.Empty(t, server.Complaints())
		})
	}
}

func register(t *testing.T, server *fakehs.Server) *mautrix.Client {
	t.Helper()
	client, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	return client
}

var kind = event.Type{Type: "x.test", Class: event.StateEventType}

func TestState(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server) {
		ctx, client := t.Context(), register(t, server)
		room, err := client.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat"})
		require.NoError(t, err)
		first, err := client.SendStateEvent(ctx, room.RoomID, kind, "k", map[string]any{"a": 1})
		require.NoError(t, err)
		again, err := client.SendStateEvent(ctx, room.RoomID, kind, "k", map[string]any{"a": 1})
		require.NoError(t, err)
		assert.Equal(t, first.EventID, again.EventID)
		var got map[string]any
		require.NoError(t, client.StateEvent(ctx, room.RoomID, kind, "k", &got))
		assert.Equal(t, map[string]any{"a": 1.0}, got)
		assert.ErrorIs(t, client.StateEvent(ctx, room.RoomID, kind, "none", &got), mautrix.MNotFound)
		server.Settle()
		resp, err := client.SyncRequest(ctx, 0, "", "", false, "")
		require.NoError(t, err)
		assert.Len(t, resp.Rooms.Join[room.RoomID].Timeline.Events, map[fakehs.Mode]int{fakehs.Linear: 7, fakehs.Forking: 7}[server.Mode()])
	})
}
