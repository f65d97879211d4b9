package session

import (
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
)

func TestSignOut(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	config := w.config(filepath.Join(t.TempDir(), "bot"))
	bot := w.open(t, config)
	before := bot.Client.DeviceID
	assert.Contains(t, w.server.Devices(w.user), before)
	require.NoError(t, bot.SignOut(t.Context()))
	assert.NotContains(t, w.server.Devices(w.user), before)
	kept, err := ReadDir(config.Dir)
	require.NoError(t, err)
	assert.Zero(t, kept)
	_, err = bot.Store(w.room.String())
	require.ErrorIs(t, err, ErrClosed)

	bot = w.open(t, config)
	assert.NotEqual(t, before, bot.Client.DeviceID)
	require.NoError(t, w.server.LogOut(w.user)) // from another client
	require.NoError(t, bot.Close())
	config.Password = ""
	bot = w.open(t, config)
	require.NoError(t, bot.SignOut(t.Context()), "what has ended already")
	_, err = open(t.Context(), config, w.server)
	require.ErrorIs(t, err, ErrSignedOut)
}

func TestSignOutOfOAuth(t *testing.T) {
	t.Parallel()
	a := newAuthority(t)
	config := a.config(filepath.Join(t.TempDir(), "bot"))
	bot, err := open(t.Context(), config, a)
	require.NoError(t, err)
	require.NoError(t, bot.SignOut(t.Context()))
	assert.Equal(t, 1, a.asked["/revoke"])
	kept, err := ReadDir(config.Dir)
	require.NoError(t, err)
	assert.Zero(t, kept)
}
