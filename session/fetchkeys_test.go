package session

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestFetchKeys(t *testing.T) {
	t.Parallel()
	ctx := t.Context()
	w := newWorld(t, fakehs.Forking)
	config := w.encrypted(filepath.Join(t.TempDir(), "bot"), NewRecoveryKey())
	bot := w.open(t, config)
	alice, err := w.server.Register(ctx, "alice")
	require.NoError(t, err)
	crypto := hstest.Crypto(t, alice)
	room := hstest.EncryptedRoom(t, alice, w.user)
	_, err = bot.Client.JoinRoomByID(ctx, room)
	require.NoError(t, err)
	sealed, err := crypto.Encrypt(ctx, room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: "hello"})
	require.NoError(t, err)
	evt := &event.Event{ID: "$event", RoomID: room, Sender: alice.UserID, Type: event.EventEncrypted, Content: event.Content{Parsed: sealed}}

	_, err = bot.Client.Crypto.Decrypt(ctx, evt)
	require.Error(t, err)
	require.NoError(t, bot.FetchKeys(ctx))
	opened, err := bot.Client.Crypto.Decrypt(ctx, evt)
	require.NoError(t, err)
	assert.Equal(t, "hello", opened.Content.AsMessage().Body)

	// The next one goes on from there.
	w.all()
	require.NoError(t, bot.Close())
	require.ErrorIs(t, bot.FetchKeys(ctx), ErrClosed)
	bot = w.open(t, config)
	w.all()
	require.NoError(t, bot.FetchKeys(ctx))
	assert.Equal(t, 1, w.all())

	// What the homeserver does not understand does not keep it from fetching: it begins anew.
	require.NoError(t, os.WriteFile(filepath.Join(config.Dir, fetchFile), []byte("no token"), 0o600))
	require.NoError(t, bot.FetchKeys(ctx))
	w.all()
	require.NoError(t, bot.FetchKeys(ctx))
	assert.Equal(t, 1, w.all())
	require.NoError(t, bot.Close())
	w.private(t, config.Dir)

	plain := w.open(t, w.config(filepath.Join(t.TempDir(), "plain")))
	w.all()
	require.NoError(t, plain.FetchKeys(ctx))
	assert.Zero(t, w.all(), "without encryption there is nothing to fetch")
	require.NoError(t, plain.Close())
}
