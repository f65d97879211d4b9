package session

import (
	"database/sql"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// damages are what happens to a file of a bot's folder. The error says which of the files to remove, and the bot works without these.
var damages = []struct {
	file   string
	says   string
	remove []string
}{
	{"token.json", "remove it", []string{"token.json"}},
	{"inbox", "remove it", []string{"inbox"}},
	{"crypto.db", "remove crypto.db and token.json", []string{"crypto.db", "token.json"}},
	{"pickle.key", "remove crypto.db and token.json", []string{"crypto.db", "token.json"}},
	{"recovery.key", "remove it", []string{"recovery.key"}},
}

func TestADamagedFileIsSaidAndCanBeMended(t *testing.T) {
	t.Parallel()
	for _, damage := range damages {
		t.Run(damage.file, func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t, fakehs.Forking), filepath.Join(t.TempDir(), "bot")
			secret, key := w.remembers(t, dir)
			file := filepath.Join(dir, damage.file)
			whole, err := os.ReadFile(file)
			require.NoError(t, err)
			for how, text := range map[string][]byte{"garbage": []byte(strings.Repeat("garbage ", len(whole)/8+1)), "cut": whole[:len(whole)/2]} {
				require.NoError(t, os.WriteFile(file, text, 0o600))
				err := w.starts(t, w.encrypted(dir, ""))
				require.ErrorIs(t, err, ErrDamaged, how)
				assert.ErrorContains(t, err, damage.file, how)
				assert.ErrorContains(t, err, damage.says, how)
				w.silent(t, err.Error())
			}
			for _, file := range damage.remove {
				require.NoError(t, os.Remove(filepath.Join(dir, file)))
			}
			config := w.encrypted(dir, "")
			if damage.file == "recovery.key" {
				config.RecoveryKey = key
			}
			require.NoError(t, w.starts(t, config))
			w.recalls(t, config, secret)
		})
	}
}

// What was removed is made anew, or the error says what cannot be.
func TestAFileIsMissing(t *testing.T) {
	t.Parallel()
	for file, kind := range map[string]error{
		"token.json": nil, "inbox": nil, "crypto.db": ErrNoDevice, "pickle.key": ErrDamaged, "recovery.key": ErrRecoveryKeyNeeded,
	} {
		t.Run(file, func(t *testing.T) {
			t.Parallel()
			w, dir := newWorld(t, fakehs.Forking), filepath.Join(t.TempDir(), "bot")
			secret, _ := w.remembers(t, dir)
			require.NoError(t, os.Remove(filepath.Join(dir, file)))
			err := w.starts(t, w.encrypted(dir, ""))
			if kind == nil {
				require.NoError(t, err)
				w.recalls(t, w.encrypted(dir, ""), secret)
				return
			}
			require.ErrorIs(t, err, kind)
			w.silent(t, err.Error())
			if file == "crypto.db" {
				assert.ErrorContains(t, err, "remove token.json")
				require.NoError(t, os.Remove(filepath.Join(dir, "token.json")))
				w.recalls(t, w.encrypted(dir, ""), secret)
			}
		})
	}
}

// The crypto store does not have the backup's key, and no key of a value.
func TestACryptoStoreWithoutKeys(t *testing.T) {
	t.Parallel()
	w, dir := newWorld(t, fakehs.Forking), filepath.Join(t.TempDir(), "bot")
	secret, key := w.remembers(t, dir)
	db, err := sql.Open("sqlite", filepath.Join(dir, "crypto.db"))
	require.NoError(t, err)
	for _, table := range []string{"crypto_secrets", "crypto_megolm_inbound_session"} {
		_, err := db.ExecContext(t.Context(), "DELETE FROM "+table)
		require.NoError(t, err)
	}
	require.NoError(t, db.Close())
	w.recalls(t, w.encrypted(dir, key), secret)
}

// remembers has a bot with that folder keep a value in an encrypted room. It gives the room, and the recovery key.
func (w *world) remembers(t *testing.T, dir string) (room, recoveryKey string) {
	t.Helper()
	r := w.run(t, w.encrypted(dir, ""))
	other := w.someone(t)
	send(t, other, w.room, text("x"))
	r.hears(t, "x")
	secret := hstest.EncryptedRoom(t, r.bot.Client)
	r.stop()
	require.NoError(t, <-r.over)
	r.over <- nil
	require.NoError(t, r.bot.Close())

	bot := w.open(t, w.encrypted(dir, ""))
	store, err := bot.Store(secret.String())
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "key", "value"))
	require.NoError(t, bot.Close())
	made, err := os.ReadFile(filepath.Join(dir, "recovery.key"))
	require.NoError(t, err)
	w.secrets[strings.TrimSpace(string(made))] = true
	return secret.String(), strings.TrimSpace(string(made))
}

// starts starts a bot up to its first sync.
func (w *world) starts(t *testing.T, config Config) error {
	t.Helper()
	bot, err := open(t.Context(), config, w.server)
	if err != nil {
		return err
	}
	failed := bot.inbox.Start(t.Context())
	if failed == nil {
		require.NoError(t, bot.inbox.Stop(t.Context()))
	}
	require.NoError(t, bot.Close())
	return failed
}

// recalls asserts that a bot reads the value.
func (w *world) recalls(t *testing.T, config Config, room string) {
	t.Helper()
	bot := w.open(t, config)
	defer func() { assert.NoError(t, bot.Close()) }()
	store, err := bot.Store(room)
	require.NoError(t, err)
	value, err := roomkv.Get[string](t.Context(), store, "key")
	require.NoError(t, err)
	assert.Equal(t, "value", value)
}
