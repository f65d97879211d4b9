package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestKeyBackup(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	sh.set(envRoom, hstest.EncryptedRoom(t, sh.bot).String())
	assert.Equal(t, exitUsage, sh.run("keybackup").code)
	assert.Equal(t, exitUsage, sh.run("keybackup", "bogus").code)

	status := sh.ok("keybackup", "status")
	assert.Regexp(t, `KEY BACKUP +none`, status)
	assert.Regexp(t, `SECRET STORAGE +no\n`, status)
	assert.Regexp(t, `KEY BACKUP +none`, sh.ok("keybackup", "status"), "the status has changed nothing")

	got := sh.run("keybackup", "setup")
	require.Zero(t, got.code, got.err)
	key := strings.TrimSpace(got.out)
	assert.Len(t, strings.Fields(key), 12)
	sh.ok("put", "combination", "12-34-56")
	status = sh.ok("keybackup", "status")
	assert.Regexp(t, `KEYS +1\n`, status)
	assert.Regexp(t, `RECOVERY KEY +opens the backup\n`, status)
	assert.Equal(t, "Saved 0 keys.\n", sh.run("keybackup", "save-all").err)

	// Without the key, with a wrong one, and with it in another login.
	other := *sh
	other.set(envProfile, "other")
	assert.Regexp(t, `RECOVERY KEY +not given\n`, other.ok("keybackup", "status"))
	got = other.run("keybackup", "save-all")
	assert.Equal(t, exitError, got.code)
	assert.Contains(t, got.err, "--recovery-key-file")
	other.set(envRecoveryKey, "EsTc LW2K PGiF wKEA 3As5 g5c4 BXwk qeeJ ZJV8 Q9fu gUMN UE4d")
	assert.Regexp(t, `RECOVERY KEY +is not that of this account\n`, other.ok("keybackup", "status"))
	other.set(envRecoveryKey, key)
	var line backupStatus
	require.NoError(t, json.Unmarshal([]byte(other.ok("keybackup", "status", "--json")), &line))
	assert.True(t, line.Opens != nil && *line.Opens)
	assert.Equal(t, 1, line.Keys)
	assert.Equal(t, "12-34-56\n", other.ok("get", "combination"))
	assert.Empty(t, other.ok("keybackup", "setup"), "there is no new key")

	// The recovery key can be the only copy, so that it outlives the login.
	got = sh.run("logout")
	require.Zero(t, got.code, got.err)
	files, err := filepath.Glob(filepath.Join(sh.value(envConfigDir), "recovery-key-1-of-*"))
	require.NoError(t, err)
	require.Len(t, files, 1)
	assert.Contains(t, got.err, files[0])
	again := *sh
	assert.Equal(t, "12-34-56\n", again.ok("get", "combination", "--recovery-key-file", files[0]))
	info, err := os.Stat(files[0])
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
}

// Who writes to an encrypted room without a backup gets one, and is told.
func TestEncryptionIsSetUpByTheFirstWrite(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	sh.set(envRoom, hstest.EncryptedRoom(t, sh.bot).String())
	got := sh.run("put", "combination", "12-34-56")
	require.Zero(t, got.code, got.err)
	assert.Contains(t, got.err, filepath.Join(sh.value(envConfigDir), "default", "recovery.key"))
	again := sh.run("put", "combination", "12-34-57")
	assert.Equal(t, result{}, again)

	t.Run("with an access token", func(t *testing.T) {
		token := *sh
		device := hstest.Device(t, sh.bot)
		token.set(envToken, device.AccessToken)
		got := token.run("get", "combination")
		assert.Equal(t, exitError, got.code)
		assert.Contains(t, got.err, "--recovery-key-file")
		key, err := os.ReadFile(filepath.Join(sh.value(envConfigDir), "default", "recovery.key"))
		require.NoError(t, err)
		token.set(envRecoveryKey, string(key))
		for range 2 { // its keys are kept
			assert.Equal(t, "12-34-57\n", token.ok("get", "combination"))
		}
	})
}
