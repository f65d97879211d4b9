package session

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// encrypted is the configuration of a bot with encryption.
func (w *world) encrypted(dir, recoveryKey string) Config {
	config := w.config(dir)
	config.NoEncryption, config.RecoveryKey = false, recoveryKey
	if recoveryKey != "" {
		w.secrets[recoveryKey] = true
	}
	return config
}

func TestAnEncryptedBotStartsAgainWithFewRequests(t *testing.T) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mode)
			dir := filepath.Join(t.TempDir(), "bot")
			bot := w.open(t, w.encrypted(dir, ""))
			version := bot.Backup().Version()
			require.NoError(t, bot.Close())
			text, err := os.ReadFile(filepath.Join(dir, "recovery.key"))
			require.NoError(t, err)
			key := strings.TrimSpace(string(text))

			w.all()
			bot = w.open(t, w.encrypted(dir, key))
			assert.Equal(t, version, bot.Backup().Version())
			assert.LessOrEqual(t, w.all(), 3) // and one more for the filter of the sync
			require.NoError(t, bot.Close())
			w.private(t, dir)
		})
	}
}

func TestABotWithoutAFolderKeepsTwoDevices(t *testing.T) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			t.Parallel()
			w := newWorld(t, mode)
			key := NewRecoveryKey()
			for range 4 {
				bot := w.open(t, w.encrypted("", key))
				devices, err := bot.Client.GetDevicesInfo(t.Context())
				require.NoError(t, err)
				assert.LessOrEqual(t, len(devices.Devices), 2)
				require.NoError(t, bot.Close())
			}
			w.silent(t)
			_, err := open(t.Context(), w.encrypted("", NewRecoveryKey()), w.server)
			require.ErrorIs(t, err, ErrWrongRecoveryKey)
			w.silent(t, err.Error())
		})
	}
}
