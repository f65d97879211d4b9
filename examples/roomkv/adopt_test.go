package main

import (
	"database/sql"
	"encoding/json"
	"net/url"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/dbutil"
	"maunium.net/go/mautrix/crypto/cryptohelper"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// The login and the keys of an earlier version go on, also where adopting them was interrupted.
func TestAnEarlierVersionsLoginGoesOn(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	room := hstest.EncryptedRoom(t, sh.bot)
	sh.set(envRoom, room.String())
	dir := filepath.Join(sh.value(envConfigDir), "default")
	require.NoError(t, os.MkdirAll(dir, 0o700))
	device := hstest.Device(t, sh.bot)

	// The crypto store as that version made it. Nobody else has the key of this value.
	raw, err := sql.Open("sqlite", (&url.URL{Scheme: "file", Path: filepath.Join(dir, "crypto-"+device.DeviceID.String()+".db"),
		RawQuery: url.Values{"_txlock": {"immediate"}, "_time_format": {"sqlite"}, "_pragma": {"foreign_keys(1)", "journal_mode(WAL)"}}.Encode()}).String())
	require.NoError(t, err)
	db, err := dbutil.NewWithDB(raw, "sqlite3")
	require.NoError(t, err)
	helper, err := cryptohelper.NewCryptoHelper(device, []byte("roomkv"), db)
	require.NoError(t, err)
	require.NoError(t, helper.Init(t.Context()))
	device.Crypto = helper
	store, err := roomkv.New(device, room.String())
	require.NoError(t, err)
	require.NoError(t, store.Put(t.Context(), "combination", "12-34-56"))
	require.NoError(t, helper.Close())
	login, err := json.Marshal(map[string]string{
		"homeserver": hstest.Server(t).URL, "user": device.UserID.String(), "device": device.DeviceID.String(), "access_token": device.AccessToken,
	})
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login.json"), login, 0o600))
	sh.set(envPassword, "")
	sh.set(envUser, "")
	sh.set(envHomeserver, "")

	assert.Equal(t, "12-34-56\n", sh.ok("get", "combination"))
	assert.NoFileExists(t, filepath.Join(dir, "login.json"))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login.json"), login, 0o600)) // as if killed before it was removed
	assert.Equal(t, "12-34-56\n", sh.ok("get", "combination"))
	assert.Contains(t, sh.run("login").err, "device "+device.DeviceID.String())
	sh.ok("logout")

	damaged := *sh
	require.NoError(t, os.MkdirAll(dir, 0o700))
	require.NoError(t, os.WriteFile(filepath.Join(dir, "login.json"), login[:len(login)-9], 0o600))
	got := damaged.run("ls")
	assert.Equal(t, exitError, got.code)
	assert.Contains(t, got.err, "login.json")
	assert.NotContains(t, got.err, device.AccessToken)
}
