package keybackup_test

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

func TestMain(m *testing.M) { hstest.Main(m) }

// The interface that a store takes.
var _ roomkv.KeyBackup = (*keybackup.Backup)(nil)

// device is a device of an account, with its requests.
type device struct {
	*mautrix.Client
	machine *crypto.OlmMachine
	wire    *hstest.Recorder
}

func newDevice(t *testing.T, client *mautrix.Client) device {
	wire := hstest.Record(client)
	client.DefaultHTTPBackoff = time.Millisecond
	d := device{client, hstest.Crypto(t, client).Machine(), wire}
	wire.Reset()
	return d
}

// newBot is the first device of an account without secret storage.
func newBot(t *testing.T) device { return newDevice(t, hstest.Client(t)) }

// another is a new device of the account, with empty stores.
func (d device) another(t *testing.T) device {
	client, err := hstest.Server(t).NewDevice(t.Context(), d.UserID)
	require.NoError(t, err)
	return newDevice(t, client)
}

// setUp makes a backup for an account that has none.
func (d device) setUp(t *testing.T) (recoveryKey string, opened *keybackup.Backup) {
	recoveryKey, opened, err := keybackup.SetUp(t.Context(), d.machine, "")
	require.NoError(t, err)
	return recoveryKey, opened
}

func (d device) open(t *testing.T, recoveryKey string) *keybackup.Backup {
	opened, err := keybackup.Open(t.Context(), d.machine, recoveryKey)
	require.NoError(t, err)
	return opened
}

// rawKey is the backup's private key, read past the package.
func (d device) rawKey(t *testing.T, recoveryKey string) []byte {
	keyID, description, err := d.machine.SSSS.GetDefaultKeyData(t.Context())
	require.NoError(t, err)
	key, err := description.VerifyRecoveryKey(keyID, recoveryKey)
	require.NoError(t, err)
	raw, err := d.machine.SSSS.GetDecryptedAccountData(t.Context(), event.AccountDataMegolmBackupKey, key)
	require.NoError(t, err)
	return raw
}

// send sends an encrypted message and returns its event and session.
func (d device) send(t *testing.T, room id.RoomID, body string) (id.EventID, id.SessionID) {
	encrypted, err := d.Crypto.Encrypt(t.Context(), room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: body})
	require.NoError(t, err)
	sent, err := d.SendMessageEvent(t.Context(), room, event.EventEncrypted, encrypted)
	require.NoError(t, err)
	return sent.EventID, encrypted.SessionID
}

// rotate makes the next message in the room begin a session.
func (d device) rotate(t *testing.T, room id.RoomID) {
	require.NoError(t, d.machine.CryptoStore.RemoveOutboundGroupSession(t.Context(), room))
}

// read fetches and decrypts a message.
func (d device) read(t *testing.T, room id.RoomID, message id.EventID) (string, error) {
	decrypted, err := d.Crypto.Decrypt(t.Context(), d.fetch(t, room, message))
	if err != nil {
		return "", err
	}
	return decrypted.Content.AsMessage().Body, nil
}

// fetch waits for an event that was sent a moment ago, which Dendrite may not find yet.
func (d device) fetch(t *testing.T, room id.RoomID, message id.EventID) *event.Event {
	evt, err := d.GetEvent(t.Context(), room, message)
	for try := 1; errors.Is(err, mautrix.MNotFound) && try < 100; try++ {
		time.Sleep(20 * time.Millisecond)
		evt, err = d.GetEvent(t.Context(), room, message)
	}
	require.NoError(t, err)
	require.NoError(t, evt.Content.ParseRaw(evt.Type))
	return evt
}

func (d device) stored(t *testing.T, room id.RoomID, session id.SessionID) *crypto.InboundGroupSession {
	found, err := d.machine.CryptoStore.GetGroupSession(t.Context(), room, session)
	require.NoError(t, err)
	return found
}

// uploads are the requests that put something into a backup.
func (d device) uploads() (requests []hstest.Request) {
	for _, request := range d.wire.Requests() {
		if request.Method == http.MethodPut && strings.Contains(request.Path, "/room_keys/keys") {
			requests = append(requests, request)
		}
	}
	return requests
}

func TestANewDeviceReadsWithNothingButTheRecoveryKey(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, saved := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	type message struct {
		event   id.EventID
		session id.SessionID
	}
	var messages []message
	for i := range 20 { // of whose session IDs half or so have a slash
		evt, session := bot.send(t, room, fmt.Sprint("value ", i))
		require.NoError(t, saved.Save(ctx, room, session))
		messages = append(messages, message{evt, session})
		bot.rotate(t, room)
	}
	_, err := bot.Logout(ctx)
	require.NoError(t, err)

	fresh := bot.another(t)
	opened := fresh.open(t, recoveryKey)
	assert.Equal(t, saved.Version(), opened.Version())
	assert.Equal(t, 4, fresh.wire.Count(), "requests of Open")
	for i, message := range messages {
		_, err := fresh.read(t, room, message.event)
		require.ErrorIs(t, err, crypto.ErrNoSessionFound)
		fresh.wire.Reset()
		found, err := opened.Restore(ctx, room, message.session)
		require.NoError(t, err)
		assert.True(t, found)
		assert.Equal(t, 1, fresh.wire.Count(), "requests of Restore")
		body, err := fresh.read(t, room, message.event)
		require.NoError(t, err)
		assert.Equal(t, fmt.Sprint("value ", i), body)
	}

	fresh.wire.Reset()
	for _, message := range messages {
		require.NoError(t, opened.Save(ctx, room, message.session))
	}
	assert.Zero(t, fresh.wire.Count(), "what was restored is in the backup")

	found, err := opened.Restore(ctx, room, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	require.NoError(t, err)
	assert.False(t, found)
	found, err = opened.Restore(ctx, "!other:example.org", messages[0].session)
	require.NoError(t, err)
	assert.False(t, found)
	assert.Equal(t, 4, fresh.wire.Count(), "requests of two Restores of what is not there")
}

// Another client, which knows nothing of this package.
func TestMautrixReadsTheBackup(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, saved := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	message, session := bot.send(t, room, "hello")
	bot.stored(t, room, session).ForwardingChains = nil
	require.NoError(t, saved.Save(ctx, room, session))

	other := bot.another(t)
	key, err := backup.MegolmBackupKeyFromBytes(other.rawKey(t, recoveryKey))
	require.NoError(t, err)
	version, err := other.machine.DownloadAndStoreLatestKeyBackup(ctx, key)
	require.NoError(t, err)
	assert.Equal(t, saved.Version(), version)
	body, err := other.read(t, room, message)
	require.NoError(t, err)
	assert.Equal(t, "hello", body)

	uploads := bot.uploads()
	require.Len(t, uploads, 1)
	var sent map[string]any
	require.NoError(t, json.Unmarshal(uploads[0].Body, &sent))
	assert.Equal(t, float64(0), sent["first_message_index"])
	assert.Equal(t, float64(0), sent["forwarded_count"])
	assert.Equal(t, true, sent["is_verified"])

	var sealed backup.EncryptedSessionData[map[string]any]
	data, err := json.Marshal(sent["session_data"])
	require.NoError(t, err)
	require.NoError(t, json.Unmarshal(data, &sealed))
	content, err := sealed.Decrypt(key)
	require.NoError(t, err)
	assert.Equal(t, "m.megolm.v1.aes-sha2", (*content)["algorithm"])
	assert.Equal(t, bot.machine.OwnIdentity().IdentityKey.String(), (*content)["sender_key"])
	assert.Equal(t, map[string]any{"ed25519": bot.machine.OwnIdentity().SigningKey.String()}, (*content)["sender_claimed_keys"])
	assert.Equal(t, []any{}, (*content)["forwarding_curve25519_key_chain"])
}

// And the other way round: what mautrix's functions put there.
func TestRestoreReadsWhatAnotherClientSaved(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, _ := bot.setUp(t)
	key, err := backup.MegolmBackupKeyFromBytes(bot.rawKey(t, recoveryKey))
	require.NoError(t, err)
	info, err := bot.machine.GetAndVerifyLatestKeyBackupVersion(ctx, key)
	require.NoError(t, err)
	room := hstest.EncryptedRoom(t, bot.Client)
	message, session := bot.send(t, room, "hello")
	_, err = bot.PutKeysInBackupForRoomAndSession(ctx, info.Version, room, session, sealWith(t, key, bot.stored(t, room, session), 0))
	require.NoError(t, err)

	other := bot.another(t)
	found, err := other.open(t, recoveryKey).Restore(ctx, room, session)
	require.NoError(t, err)
	assert.True(t, found)
	body, err := other.read(t, room, message)
	require.NoError(t, err)
	assert.Equal(t, "hello", body)
}

// sealWith seals a session from a message on, with mautrix's functions.
func sealWith(t *testing.T, key *backup.MegolmBackupKey, session *crypto.InboundGroupSession, from uint32) *mautrix.ReqKeyBackupData {
	exported, err := session.Internal.Export(from)
	require.NoError(t, err)
	return sealData(t, key, backup.MegolmSessionData{
		Algorithm:          id.AlgorithmMegolmV1,
		SenderClaimedKeys:  backup.SenderClaimedKeys{Ed25519: session.SigningKey},
		SenderKey:          session.SenderKey,
		ForwardingKeyChain: []string{},
		SessionKey:         string(exported),
	})
}

func sealData[T any](t *testing.T, key *backup.MegolmBackupKey, content T) *mautrix.ReqKeyBackupData {
	sealed, err := backup.EncryptSessionData(key, content)
	require.NoError(t, err)
	data, err := json.Marshal(sealed)
	require.NoError(t, err)
	return &mautrix.ReqKeyBackupData{SessionData: data}
}
