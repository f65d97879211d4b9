package keybackup_test

import (
	"bytes"
	"encoding/base64"
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

func TestOpenSaysWhatIsMissing(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	stranger, err := ssss.NewKey("")
	require.NoError(t, err)
	open := func(recoveryKey string) error {
		opened, err := keybackup.Open(ctx, bot.machine, recoveryKey)
		assert.Equal(t, err != nil, opened == nil)
		return err
	}
	assert.ErrorIs(t, open(stranger.RecoveryKey()), keybackup.ErrNoSecretStorage)
	_, err = keybackup.OpenWithKey(ctx, bot.machine, stranger.Key)
	assert.ErrorIs(t, err, keybackup.ErrNoBackup)

	recoveryKey, opened := bot.setUp(t)
	for _, form := range []string{
		recoveryKey,
		strings.ReplaceAll(recoveryKey, " ", ""),
		"\n  " + strings.ReplaceAll(recoveryKey, " ", "\u00a0") + "\t\n",
	} {
		assert.NoError(t, open(form), "%q", form)
	}
	assert.ErrorIs(t, open(stranger.RecoveryKey()), keybackup.ErrWrongKey)
	for _, malformed := range []string{"", " ", "x", "ж", strings.Repeat("1", 1000), recoveryKey[:len(recoveryKey)-1], recoveryKey + "1", "a passphrase that was never set"} {
		err := open(malformed)
		assert.ErrorIs(t, err, keybackup.ErrInvalidKey, "%q", malformed)
	}
	raw := bot.rawKey(t, recoveryKey)
	_, err = keybackup.OpenWithKey(ctx, bot.machine, raw)
	assert.NoError(t, err)
	_, err = keybackup.OpenWithKey(ctx, bot.machine, stranger.Key)
	assert.ErrorIs(t, err, keybackup.ErrKeyMismatch)
	_, err = keybackup.OpenWithKey(ctx, bot.machine, raw[1:])
	assert.ErrorIs(t, err, keybackup.ErrInvalidKey)
	_, err = keybackup.OpenWithKey(ctx, bot.machine, nil)
	assert.ErrorIs(t, err, keybackup.ErrInvalidKey)

	require.NoError(t, bot.SetAccountData(ctx, event.AccountDataMegolmBackupKey.Type, struct{}{}))
	assert.ErrorIs(t, open(recoveryKey), keybackup.ErrNoSecret)
	keyID, description, err := bot.machine.SSSS.GetDefaultKeyData(ctx)
	require.NoError(t, err)
	key, err := description.VerifyRecoveryKey(keyID, recoveryKey)
	require.NoError(t, err)
	require.NoError(t, bot.machine.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, raw[1:], key))
	assert.ErrorIs(t, open(recoveryKey), keybackup.ErrCorrupt)
	require.NoError(t, bot.machine.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, stranger.Key, key))
	assert.ErrorIs(t, open(recoveryKey), keybackup.ErrKeyMismatch)
	require.NoError(t, bot.machine.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, raw, key))
	require.NoError(t, open(recoveryKey))

	require.NoError(t, bot.DeleteKeyBackupVersion(ctx, opened.Version()))
	assert.ErrorIs(t, open(recoveryKey), keybackup.ErrNoBackup)
	restore := bot.through(func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, http.ErrHandlerTimeout })
	assert.ErrorIs(t, open(recoveryKey), http.ErrHandlerTimeout)
	restore()
}

// mautrix trusts a backup that this device signed, whatever key it is for.
func TestASignedBackupForAnotherKeyIsRefused(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, _ := bot.setUp(t)
	other, err := backup.NewMegolmBackupKey()
	require.NoError(t, err)
	data := backup.MegolmAuthData{PublicKey: id.Ed25519(base64.RawStdEncoding.EncodeToString(other.PublicKey().Bytes()))}
	signature, err := bot.machine.GetAccount().SignJSON(data)
	require.NoError(t, err)
	data.Signatures = map[id.UserID]map[id.KeyID]string{bot.UserID: {id.NewKeyID(id.KeyAlgorithmEd25519, bot.DeviceID.String()): signature}}
	_, err = bot.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1,
		AuthData:  data,
	})
	require.NoError(t, err)
	_, err = keybackup.Open(ctx, bot.machine, recoveryKey)
	require.ErrorIs(t, err, keybackup.ErrKeyMismatch)
}

func TestOpenWithAPassphrase(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	const passphrase = "correct horse battery staple"
	derived := ssss.NewPassphraseMetadata()
	derived.Iterations = 1000 // which Element has 500,000 of
	raw, err := derived.GetKey(passphrase)
	require.NoError(t, err)
	key, err := ssss.WrapKey(raw, derived)
	require.NoError(t, err)
	require.NoError(t, bot.machine.SSSS.SetKeyData(ctx, key.ID, key.Metadata))
	require.NoError(t, bot.machine.SSSS.SetDefaultKeyID(ctx, key.ID))

	recoveryKey, _, err := keybackup.SetUp(ctx, bot.machine, passphrase)
	require.NoError(t, err)
	assert.Equal(t, key.RecoveryKey(), recoveryKey)
	_, err = keybackup.Open(ctx, bot.machine, passphrase)
	assert.NoError(t, err)
	_, err = keybackup.Open(ctx, bot.machine, recoveryKey)
	assert.NoError(t, err)
	_, err = keybackup.Open(ctx, bot.machine, "wrong horse")
	assert.ErrorIs(t, err, keybackup.ErrWrongKey)
	_, err = keybackup.Open(ctx, bot.machine, "")
	assert.ErrorIs(t, err, keybackup.ErrInvalidKey)

	for _, description := range []string{
		`"algorithm":"m.pbkdf2","salt":"a","iterations":2147483647`,
		`"algorithm":"m.pbkdf2","salt":"a","iterations":-1`,
		`"algorithm":"m.pbkdf2","salt":"a","iterations":1,"bits":-8`,
		`"algorithm":"m.pbkdf2","salt":"a","iterations":1,"bits":1099511627776`,
		`"algorithm":"m.argon2","salt":"a","iterations":1`,
	} {
		body := `{"algorithm":"m.secret_storage.v1.aes-hmac-sha2","passphrase":{` + description + `}}`
		restore := bot.through(replace("m.secret_storage.key."+key.ID, http.MethodGet, http.StatusOK, body))
		_, err := keybackup.Open(ctx, bot.machine, passphrase)
		assert.ErrorIs(t, err, keybackup.ErrUnsupported, description)
		restore()
	}
}

// Secret storage need not say how to tell a right key from a wrong one.
func TestOpenWithoutACheckOfTheKey(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, _ := bot.setUp(t)
	keyID, err := bot.machine.SSSS.GetDefaultKeyID(ctx)
	require.NoError(t, err)
	bare := &ssss.KeyMetadata{Algorithm: ssss.AlgorithmAESHMACSHA2}
	require.NoError(t, bot.machine.SSSS.SetKeyData(ctx, keyID, bare))
	_, err = keybackup.Open(ctx, bot.machine, recoveryKey)
	require.NoError(t, err)
	stranger, err := ssss.NewKey("")
	require.NoError(t, err)
	_, err = keybackup.Open(ctx, bot.machine, stranger.RecoveryKey())
	require.ErrorIs(t, err, keybackup.ErrWrongKey)
}

func TestOpenFromAHostileHomeserver(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, opened := bot.setUp(t)
	keyID, err := bot.machine.SSSS.GetDefaultKeyID(ctx)
	require.NoError(t, err)
	const (
		defaultKey = "m.secret_storage.default_key"
		secret     = "m.megolm_backup.v1"
		version    = "/room_keys/version"
	)
	description := "m.secret_storage.key." + keyID
	for _, test := range []struct {
		path, body string
		err        error
	}{
		{defaultKey, `null`, keybackup.ErrNoSecretStorage},
		{defaultKey, `{}`, keybackup.ErrNoSecretStorage},
		{defaultKey, `[]`, keybackup.ErrCorrupt},
		{defaultKey, `{"key":7}`, keybackup.ErrCorrupt},
		{defaultKey, `{"key":"../../../../x"}`, keybackup.ErrNoSecretStorage},
		{defaultKey, ``, keybackup.ErrCorrupt},
		{description, `null`, keybackup.ErrUnsupported},
		{description, `{}`, keybackup.ErrUnsupported},
		{description, `{"algorithm":"m.secret_storage.v1.curve25519-aes-sha2"}`, keybackup.ErrUnsupported},
		{description, `{"algorithm":"m.secret_storage.v1.aes-hmac-sha2","iv":"x","mac":"x"}`, keybackup.ErrCorrupt},
		{description, `{"algorithm":"m.secret_storage.v1.aes-hmac-sha2","iv":"======","mac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, keybackup.ErrCorrupt},
		{description, `{"algorithm":"m.secret_storage.v1.aes-hmac-sha2","iv":"!!!!!!!!!!!!!!!!!!!!!!","mac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, keybackup.ErrCorrupt},
		{description, `{"algorithm":"m.secret_storage.v1.aes-hmac-sha2","iv":"AAAAAAAAAAAAAAAAAAAAAA","mac":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"}`, keybackup.ErrWrongKey},
		{secret, `null`, keybackup.ErrNoSecret},
		{secret, `{"encrypted":null}`, keybackup.ErrNoSecret},
		{secret, `{"encrypted":7}`, keybackup.ErrCorrupt},
		{secret, fmt.Sprintf(`{"encrypted":{%q:{}}}`, keyID), keybackup.ErrCorrupt},
		{secret, fmt.Sprintf(`{"encrypted":{%q:{"ciphertext":"AAAA","iv":"!","mac":"AAAA"}}}`, keyID), keybackup.ErrCorrupt},
		{secret, fmt.Sprintf(`{"encrypted":{%q:{"ciphertext":"!","iv":"","mac":""}}}`, keyID), keybackup.ErrCorrupt},
		{version, `null`, keybackup.ErrCorrupt},
		{version, `{}`, keybackup.ErrCorrupt},
		{version, `[]`, keybackup.ErrCorrupt},
		{version, `{"version":"1","algorithm":"m.megolm_backup.v1.curve25519-aes-sha2"}`, keybackup.ErrKeyMismatch},
		{version, `{"version":"1","algorithm":"m.megolm_backup.v1.curve25519-aes-sha2","auth_data":{"public_key":"!"}}`, keybackup.ErrKeyMismatch},
		{version, `{"version":"1","algorithm":"org.matrix.msc3270.v1.aes-hmac-sha2","auth_data":{}}`, keybackup.ErrUnsupported},
	} {
		restore := bot.through(replace(test.path, http.MethodGet, http.StatusOK, test.body))
		_, err := keybackup.Open(ctx, bot.machine, recoveryKey)
		assert.ErrorIs(t, err, test.err, "%s: %s", test.path, test.body)
		restore()
	}
	_, err = keybackup.Open(ctx, bot.machine, recoveryKey)
	require.NoError(t, err)
	assert.NotEmpty(t, opened.Version())
}

func TestParseKey(t *testing.T) {
	raw := bytes.Repeat([]byte{0xfb}, 32) // whose base64 has both special characters
	for _, text := range []string{
		base64.StdEncoding.EncodeToString(raw),
		base64.RawStdEncoding.EncodeToString(raw),
		" " + base64.RawStdEncoding.EncodeToString(raw) + "\n",
		(&ssss.Key{Key: raw}).RecoveryKey(),
	} {
		key, err := keybackup.ParseKey(text)
		require.NoError(t, err, text)
		assert.Equal(t, raw, key, text)
	}
	for _, text := range []string{"", "=", "key", base64.StdEncoding.EncodeToString(raw[1:]), base64.URLEncoding.EncodeToString(raw), string(raw)} {
		_, err := keybackup.ParseKey(text)
		assert.ErrorIs(t, err, keybackup.ErrInvalidKey, "%q", text)
	}
}

// A process that begins again finds the backup's key in its crypto store.
func TestOpenWithTheKeyThatIsKept(t *testing.T) {
	ctx := t.Context()
	client := hstest.Client(t)
	store := hstest.NewCryptoStore()
	begin := func() device { // as a process does
		same, err := mautrix.NewClient(client.HomeserverURL.String(), client.UserID, client.AccessToken)
		require.NoError(t, err)
		same.DeviceID = client.DeviceID
		wire := hstest.Record(same)
		helper, err := hstest.NewCryptoIn(ctx, same, store)
		require.NoError(t, err)
		wire.Reset()
		return device{same, helper.Machine(), wire}
	}
	first := begin()
	recoveryKey, opened := first.setUp(t)
	raw := first.rawKey(t, recoveryKey)
	opens := func(about string, requests int) device {
		t.Helper()
		bot := begin()
		again := bot.open(t, recoveryKey)
		assert.Equal(t, requests, bot.wire.Count(), about)
		assert.Equal(t, opened.Version(), again.Version(), about)
		return bot
	}
	bot := opens("with the key that is kept", 1)
	bot.wire.Reset()
	bot.open(t, recoveryKey)
	assert.Equal(t, 4, bot.wire.Count(), "once more in the same process")

	for _, secret := range []id.Secret{"roomkv.backup_key", id.SecretMegolmBackupV1} {
		kept, err := store.GetSecret(ctx, secret)
		require.NoError(t, err)
		assert.NotContains(t, kept, base64.RawStdEncoding.EncodeToString(raw), "it is encrypted")
		assert.Equal(t, secret == "roomkv.backup_key", kept != "", secret)
	}
	stranger, err := ssss.NewKey("")
	require.NoError(t, err)
	_, err = keybackup.Open(ctx, begin().machine, stranger.RecoveryKey())
	require.ErrorIs(t, err, keybackup.ErrWrongKey, "the key is kept for the recovery key alone")
	for _, broken := range []string{"", "x", "null", "{}", `{"ciphertext":"AAAA","iv":"AAAA","mac":"AAAA"}`} {
		require.NoError(t, store.PutSecret(ctx, "roomkv.backup_key", broken))
		opens(broken, 4)
	}
	opens("it is kept again", 1)

	require.NoError(t, first.DeleteKeyBackupVersion(ctx, opened.Version()))
	_, err = keybackup.Open(ctx, begin().machine, recoveryKey)
	require.ErrorIs(t, err, keybackup.ErrNoBackup)
	other, err := backup.NewMegolmBackupKey()
	require.NoError(t, err)
	keyID, description, err := first.machine.SSSS.GetDefaultKeyData(ctx)
	require.NoError(t, err)
	key, err := description.VerifyRecoveryKey(keyID, recoveryKey)
	require.NoError(t, err)
	require.NoError(t, first.machine.SSSS.SetEncryptedAccountData(ctx, event.AccountDataMegolmBackupKey, other.Bytes(), key))
	_, err = first.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{
		Algorithm: id.KeyBackupAlgorithmMegolmBackupV1,
		AuthData:  backup.MegolmAuthData{PublicKey: id.Ed25519(base64.RawStdEncoding.EncodeToString(other.PublicKey().Bytes()))},
	})
	require.NoError(t, err)
	bot = begin()
	opened = bot.open(t, recoveryKey)
	assert.Equal(t, 5, bot.wire.Count(), "another client has made a backup with another key, and put that into secret storage")
	opens("with the new key", 1)
}
