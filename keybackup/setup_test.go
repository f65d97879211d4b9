package keybackup_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/signatures"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/keybackup"
)

func TestSetUpIsForAccountsWithoutABackup(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	stranger, err := ssss.NewKey("")
	require.NoError(t, err)
	_, _, err = keybackup.SetUp(ctx, bot.machine, stranger.RecoveryKey())
	require.ErrorIs(t, err, keybackup.ErrNoSecretStorage)
	bot.wire.Reset()
	recoveryKey, opened := bot.setUp(t)
	assert.Equal(t, 10, bot.wire.Count())

	bot.wire.Reset()
	for _, key := range []string{"", recoveryKey} {
		_, again, err := keybackup.SetUp(ctx, bot.machine, key)
		assert.ErrorIs(t, err, keybackup.ErrBackupExists)
		assert.Nil(t, again)
	}
	require.NoError(t, bot.DeleteKeyBackupVersion(ctx, opened.Version()))
	raw := bot.rawKey(t, recoveryKey)
	bot.wire.Reset()
	_, _, err = keybackup.SetUp(ctx, bot.machine, "")
	assert.ErrorIs(t, err, keybackup.ErrSecretStorageExists)
	_, _, err = keybackup.SetUp(ctx, bot.machine, stranger.RecoveryKey())
	assert.ErrorIs(t, err, keybackup.ErrWrongKey)
	_, _, err = keybackup.SetUp(ctx, bot.machine, "x")
	assert.ErrorIs(t, err, keybackup.ErrInvalidKey)
	for _, request := range bot.wire.Requests() {
		assert.Equal(t, http.MethodGet, request.Method, "nothing was written")
	}

	bot.wire.Reset()
	same, again, err := keybackup.SetUp(ctx, bot.machine, recoveryKey)
	require.NoError(t, err)
	assert.Equal(t, 9, bot.wire.Count())
	assert.Equal(t, recoveryKey, same)
	assert.NotEqual(t, opened.Version(), again.Version())
	assert.Equal(t, raw, bot.rawKey(t, recoveryKey), "the backup's key is used again")
}

// An account on which a person, or the bot itself, had set up cross-signing, with the private keys in secret storage.
func TestSetUpLeavesOtherSecretsAlone(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, _, err := bot.machine.GenerateAndUploadCrossSigningKeys(ctx, nil, "")
	require.NoError(t, err)
	secrets := func() (all []ssss.EncryptedAccountDataEventContent) {
		for _, secret := range []event.Type{event.AccountDataCrossSigningMaster, event.AccountDataCrossSigningSelf, event.AccountDataCrossSigningUser} {
			var content ssss.EncryptedAccountDataEventContent
			require.NoError(t, bot.GetAccountData(ctx, secret.Type, &content))
			all = append(all, content)
		}
		return all
	}
	before := secrets()
	keyBefore, err := bot.machine.SSSS.GetDefaultKeyID(ctx)
	require.NoError(t, err)

	_, _, err = keybackup.SetUp(ctx, bot.machine, "")
	require.ErrorIs(t, err, keybackup.ErrSecretStorageExists)
	bot.wire.Reset()
	same, opened, err := keybackup.SetUp(ctx, bot.machine, recoveryKey)
	require.NoError(t, err)
	assert.Equal(t, 10, bot.wire.Count())
	assert.Equal(t, recoveryKey, same)
	assert.Equal(t, before, secrets())
	keyAfter, err := bot.machine.SSSS.GetDefaultKeyID(ctx)
	require.NoError(t, err)
	assert.Equal(t, keyBefore, keyAfter)

	info, err := bot.GetKeyBackupVersion(ctx, opened.Version())
	require.NoError(t, err)
	master := bot.machine.CrossSigningKeys.MasterKey.PublicKey()
	for name, key := range map[string]id.Ed25519{master.String(): master, bot.DeviceID.String(): bot.machine.OwnIdentity().SigningKey} {
		valid, err := signatures.VerifySignatureJSON(info.AuthData, bot.UserID, name, key)
		require.NoError(t, err)
		assert.True(t, valid)
	}
	assert.Len(t, info.AuthData.Signatures[bot.UserID], 2)

	// A client that has no key yet trusts the backup by the signature.
	other := bot.another(t)
	_, err = other.machine.FetchKeys(ctx, []id.UserID{bot.UserID}, true)
	require.NoError(t, err)
	trusted, err := other.machine.GetAndVerifyLatestKeyBackupVersion(ctx, nil)
	require.NoError(t, err)
	assert.Equal(t, opened.Version(), trusted.Version)
}

func TestSetUpWithoutCrossSigningIsSignedByTheDevice(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	info, err := bot.GetKeyBackupVersion(ctx, opened.Version())
	require.NoError(t, err)
	assert.Equal(t, id.KeyBackupAlgorithmMegolmBackupV1, info.Algorithm)
	valid, err := signatures.VerifySignatureJSON(info.AuthData, bot.UserID, bot.DeviceID.String(), bot.machine.OwnIdentity().SigningKey)
	require.NoError(t, err)
	assert.True(t, valid)
	assert.Len(t, info.AuthData.Signatures[bot.UserID], 1)
}

// Whichever request fails, the next SetUp, or Open, goes through with what the first returned.
func TestSetUpThatStopsHalfWay(t *testing.T) {
	ctx := t.Context()
	for stop := range 10 {
		bot := newBot(t)
		count := 0
		restore := bot.through(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
			if count++; count > stop {
				return answer(http.StatusForbidden, `{"errcode":"M_FORBIDDEN"}`)(next, req)
			}
			return next.RoundTrip(req)
		})
		recoveryKey, opened, err := keybackup.SetUp(ctx, bot.machine, "")
		require.ErrorIs(t, err, mautrix.MForbidden, stop)
		require.Nil(t, opened)
		restore()
		assert.Equal(t, stop < 4, recoveryKey == "", stop)
		_, err = bot.machine.SSSS.GetDefaultKeyID(ctx)
		assert.Equal(t, stop < 5, err != nil, "secret storage is there once all that is in it is: %d", stop)

		_, _, err = keybackup.SetUp(ctx, bot.machine, recoveryKey)
		switch {
		case stop == 4: // that one request might have arrived
			require.ErrorIs(t, err, keybackup.ErrNoSecretStorage)
			_, _, err = keybackup.SetUp(ctx, bot.machine, "")
		case stop > 5:
			require.ErrorIs(t, err, keybackup.ErrBackupExists)
			_, err = keybackup.Open(ctx, bot.machine, recoveryKey)
		}
		require.NoError(t, err, stop)
	}
}

// Where nothing confirms a recovery key, nothing is encrypted with it.
func TestSetUpWithAKeyThatCannotBeChecked(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	key, err := ssss.NewKey("")
	require.NoError(t, err)
	require.NoError(t, bot.machine.SSSS.SetKeyData(ctx, key.ID, &ssss.KeyMetadata{Algorithm: ssss.AlgorithmAESHMACSHA2}))
	require.NoError(t, bot.machine.SSSS.SetDefaultKeyID(ctx, key.ID))
	_, _, err = keybackup.SetUp(ctx, bot.machine, key.RecoveryKey())
	require.ErrorIs(t, err, keybackup.ErrCorrupt)
}
