package session

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
)

func TestReadDir(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	dir := filepath.Join(t.TempDir(), "bot")
	kept, err := ReadDir(dir)
	require.NoError(t, err)
	assert.Zero(t, kept)
	assert.NoDirExists(t, dir)

	bot := w.open(t, w.config(dir))
	kept, err = ReadDir(dir)
	require.NoError(t, err)
	assert.Equal(t, Kept{Homeserver: w.server.URL(), URL: w.server.URL(), User: w.user, Device: bot.Client.DeviceID, SignedIn: true}, kept)
	require.NoError(t, bot.Close())

	// It is all that the next start needs.
	bot = w.open(t, Config{Homeserver: kept.Homeserver, User: kept.User.String(), Dir: dir, NoEncryption: true})
	require.NoError(t, bot.Close())
	assert.Equal(t, 1, w.requests("login"))

	require.NoError(t, os.WriteFile(filepath.Join(dir, "token.json"), []byte("{"), 0o600))
	_, err = ReadDir(dir)
	require.ErrorIs(t, err, ErrDamaged)
	require.NoError(t, os.Chmod(dir, 0o755))
	_, err = ReadDir(dir)
	require.ErrorIs(t, err, ErrInvalidConfig)
}

func TestTheTokenSaysWhoseItIs(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	client, err := w.server.NewDevice(t.Context(), w.user)
	require.NoError(t, err)
	bot := w.open(t, Config{Homeserver: w.server.URL(), AccessToken: client.AccessToken, NoEncryption: true})
	assert.Equal(t, w.user, bot.Client.UserID)
	assert.Equal(t, client.DeviceID, bot.Client.DeviceID)
	require.NoError(t, bot.Close())
	assert.ErrorIs(t, Config{AccessToken: client.AccessToken, NoEncryption: true}.check(), ErrInvalidConfig, "where is it?")
}
