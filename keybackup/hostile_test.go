package keybackup_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/olm"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// forge changes the ratchet of an exported session, or its counter, and leaves its ID.
func forge(t *testing.T, session *crypto.InboundGroupSession, change func(export []byte)) string {
	exported, err := session.Internal.Export(session.Internal.FirstKnownIndex())
	require.NoError(t, err)
	raw, err := base64.RawStdEncoding.DecodeString(string(exported))
	require.NoError(t, err)
	change(raw)
	return base64.RawStdEncoding.EncodeToString(raw)
}

// The homeserver knows the backup's public key, and so can make whatever it likes.
func TestRestoreFromAHostileHomeserver(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, opened := bot.setUp(t)
	key, err := backup.MegolmBackupKeyFromBytes(bot.rawKey(t, recoveryKey))
	require.NoError(t, err)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, otherID := bot.send(t, room, "hello")
	other := bot.stored(t, room, otherID)
	bot.rotate(t, room)
	message, session := bot.send(t, room, "hello")
	right := bot.stored(t, room, session)
	require.NoError(t, opened.Save(ctx, room, session))

	content := func(change func(*backup.MegolmSessionData)) backup.MegolmSessionData {
		exported, err := right.Internal.Export(0)
		require.NoError(t, err)
		data := backup.MegolmSessionData{
			Algorithm:         id.AlgorithmMegolmV1,
			SenderClaimedKeys: backup.SenderClaimedKeys{Ed25519: right.SigningKey},
			SenderKey:         right.SenderKey,
			SessionKey:        string(exported),
		}
		change(&data)
		return data
	}
	sealed := func(content any) string {
		body, err := json.Marshal(sealData(t, key, content))
		require.NoError(t, err)
		return string(body)
	}
	withKey := func(sessionKey string) string {
		return sealed(content(func(data *backup.MegolmSessionData) { data.SessionKey = sessionKey }))
	}
	var entry struct {
		Data map[string]string `json:"session_data"`
	}
	require.NoError(t, json.Unmarshal([]byte(sealed(content(func(*backup.MegolmSessionData) {}))), &entry))
	changed := func(field, value string) string {
		data := map[string]string{}
		for name, was := range entry.Data {
			data[name] = was
		}
		if data[field] = value; value == "" {
			delete(data, field)
		}
		body, err := json.Marshal(map[string]any{"session_data": data})
		require.NoError(t, err)
		return string(body)
	}
	stranger, err := backup.NewMegolmBackupKey()
	require.NoError(t, err)
	forStranger, err := json.Marshal(sealData(t, stranger, content(func(*backup.MegolmSessionData) {})))
	require.NoError(t, err)
	otherKey, err := other.Internal.Export(0)
	require.NoError(t, err)

	malformed := map[string]string{
		"nothing":                      ``,
		"null":                         `null`,
		"a list":                       `[]`,
		"an empty object":              `{}`,
		"null data":                    `{"session_data":null}`,
		"empty data":                   `{"session_data":{}}`,
		"data of other types":          `{"first_message_index":"x","session_data":[7]}`,
		"null fields":                  `{"session_data":{"ephemeral":null,"ciphertext":null,"mac":null}}`,
		"fields that are numbers":      `{"session_data":{"ephemeral":1,"ciphertext":2,"mac":3}}`,
		"no ephemeral key":             changed("ephemeral", ""),
		"a short ephemeral key":        changed("ephemeral", "AAAA"),
		"an ephemeral key of order 1":  changed("ephemeral", strings.Repeat("A", 43)),
		"an ephemeral key in no form":  changed("ephemeral", "!!!"),
		"no MAC":                       changed("mac", ""),
		"another MAC":                  changed("mac", "AAAAAAAAAAA"),
		"no ciphertext":                changed("ciphertext", ""),
		"a cut ciphertext":             changed("ciphertext", entry.Data["ciphertext"][:10]),
		"half a ciphertext":            changed("ciphertext", entry.Data["ciphertext"][:64]), // three blocks
		"random ciphertext":            changed("ciphertext", strings.Repeat("Q", 128)),
		"for another backup key":       string(forStranger),
		"a plaintext that is null":     sealed(nil),
		"a plaintext that is a string": sealed("x"),
		"a plaintext without fields":   sealed(struct{}{}),
		"fields of other types":        sealed(map[string]any{"algorithm": "m.megolm.v1.aes-sha2", "session_key": 7}),
		"another algorithm":            sealed(content(func(data *backup.MegolmSessionData) { data.Algorithm = id.AlgorithmOlmV1 })),
		"no session key":               withKey(""),
		"no base64":                    withKey("!"),
		"too short a session key":      withKey("AQ"),
		"a session key of zeros":       withKey(strings.Repeat("A", 220)),
		"another format":               withKey(forge(t, right, func(export []byte) { export[0] = 2 })),
		"another session":              withKey(string(otherKey)),
		"another session's ID":         withKey(forge(t, right, func(export []byte) { copy(export[133:], forgedID(t, other)) })),
	}
	fresh := bot.another(t)
	freshBackup := fresh.open(t, recoveryKey)
	for name, body := range malformed {
		for d, from := range map[*device]*keybackup.Backup{&bot: opened, &fresh: freshBackup} {
			restore := d.through(replace(session.String(), http.MethodGet, http.StatusOK, body))
			found, err := from.Restore(ctx, room, session)
			assert.ErrorIs(t, err, keybackup.ErrCorrupt, name)
			assert.False(t, found, name)
			restore()
		}
		assert.Nil(t, fresh.stored(t, room, session), name)

		whole := fmt.Sprintf(`{"rooms":{%q:{"sessions":{%q:%s}}}}`, room, session, body)
		restore := fresh.through(replace("/room_keys/keys", http.MethodGet, http.StatusOK, whole))
		restored, err := freshBackup.RestoreAll(ctx)
		assert.ErrorIs(t, err, keybackup.ErrCorrupt, name)
		assert.Zero(t, restored, name)
		restore()
	}
	for _, body := range []string{``, `null`, `[]`, `{"rooms":7}`} {
		restore := fresh.through(replace("/room_keys/keys", http.MethodGet, http.StatusOK, body))
		_, err := freshBackup.RestoreAll(ctx)
		assert.ErrorIs(t, err, keybackup.ErrCorrupt, body)
		restore()
	}

	// What the homeserver cannot forge is a key that decrypts, so a store that has the session keeps it.
	partial := bot.another(t)
	partialBackup := partial.open(t, recoveryKey)
	late := func() { // the session from its sixth message on, as if it had been shared then
		exported, err := right.Internal.Export(5)
		require.NoError(t, err)
		internal, err := olm.InboundGroupSessionImport(exported)
		require.NoError(t, err)
		require.NoError(t, partial.machine.CryptoStore.PutGroupSession(ctx, &crypto.InboundGroupSession{
			Internal: internal, RoomID: room, SenderKey: right.SenderKey, SigningKey: right.SigningKey, KeySource: id.KeySourceDirect,
		}))
	}
	ratchet := func(t *testing.T, d device) string {
		found := d.stored(t, room, session)
		require.NotNil(t, found)
		exported, err := found.Internal.Export(max(5, found.Internal.FirstKnownIndex()))
		require.NoError(t, err)
		return fmt.Sprint(found.Internal.FirstKnownIndex(), found.KeySource, string(exported))
	}
	for name, body := range map[string]string{
		"a forged ratchet":               withKey(forge(t, right, func(export []byte) { export[20] ^= 1 })),
		"a forged end of the ratchet":    withKey(forge(t, right, func(export []byte) { export[132] ^= 1 })),
		"a forged ratchet for later":     withKey(forge(t, right, func(export []byte) { export[4] = 9 })),
		"a forged ratchet for the end":   withKey(forge(t, right, func(export []byte) { copy(export[1:5], "\xff\xff\xff\xff") })),
		"a forged ratchet for one later": withKey(forge(t, right, func(export []byte) { export[4] = 1 })),
	} {
		late()
		for d, from := range map[*device]*keybackup.Backup{&bot: opened, &partial: partialBackup} {
			before := ratchet(t, *d)
			restore := d.through(replace(session.String(), http.MethodGet, http.StatusOK, body))
			_, err := from.Restore(ctx, room, session)
			assert.ErrorIs(t, err, keybackup.ErrCorrupt, name)
			restore()
			assert.Equal(t, before, ratchet(t, *d), name)
		}
	}

	// A right session that begins later is no reason to lose one that begins earlier, and takes its place the other way round.
	exported, err := right.Internal.Export(3)
	require.NoError(t, err)
	restore := bot.through(replace(session.String(), http.MethodGet, http.StatusOK, withKey(string(exported))))
	found, err := opened.Restore(ctx, room, session)
	require.NoError(t, err)
	assert.True(t, found)
	assert.Zero(t, bot.stored(t, room, session).Internal.FirstKnownIndex())
	restore()
	late()
	restore = partial.through(replace(session.String(), http.MethodGet, http.StatusOK, withKey(string(exported))))
	_, err = partialBackup.Restore(ctx, room, session)
	require.NoError(t, err)
	assert.EqualValues(t, 3, partial.stored(t, room, session).Internal.FirstKnownIndex())
	restore()
	_, err = partialBackup.Restore(ctx, room, session)
	require.NoError(t, err)
	body, err := partial.read(t, room, message)
	require.NoError(t, err)
	assert.Equal(t, "hello", body)

	// The session of one room does not become another's.
	restore = bot.through(replace(session.String(), http.MethodGet, http.StatusOK, sealed(content(func(*backup.MegolmSessionData) {}))))
	_, err = opened.Restore(ctx, "!other:example.org", session)
	assert.ErrorIs(t, err, keybackup.ErrCorrupt)
	assert.Nil(t, bot.stored(t, "!other:example.org", session))
	restore()

	// A session that was withheld is restored all the same.
	require.NoError(t, fresh.machine.CryptoStore.PutWithheldGroupSession(ctx, event.RoomKeyWithheldEventContent{
		RoomID: room, SessionID: session, Algorithm: id.AlgorithmMegolmV1, Code: event.RoomKeyWithheldUnverified,
	}))
	_, err = fresh.read(t, room, message)
	require.ErrorIs(t, err, crypto.ErrGroupSessionWithheld)
	_, err = freshBackup.Restore(ctx, room, session)
	require.NoError(t, err)
	_, err = fresh.read(t, room, message)
	require.NoError(t, err)
}

func forgedID(t *testing.T, session *crypto.InboundGroupSession) []byte {
	raw, err := base64.RawStdEncoding.DecodeString(session.Internal.ID().String())
	require.NoError(t, err)
	return raw
}

// Answers to an upload that are no yes.
func TestSaveToAHostileHomeserver(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, session := bot.send(t, room, "hello")
	for _, test := range []struct {
		status int
		body   string
	}{
		{http.StatusOK, ``},
		{http.StatusOK, `[]`},
		{http.StatusOK, `<html>captive portal</html>`},
		{http.StatusForbidden, `{"errcode":"M_WRONG_ROOM_KEYS_VERSION"}`},
		{http.StatusForbidden, `{"errcode":"M_WRONG_ROOM_KEYS_VERSION","current_version":{}}`},
		{http.StatusNotFound, `null`},
		{http.StatusTeapot, ``},
	} {
		restore := bot.through(replace(session.String(), http.MethodPut, test.status, test.body))
		bot.wire.Reset()
		assert.Error(t, opened.Save(ctx, room, session), "%d %s", test.status, test.body)
		assert.LessOrEqual(t, bot.wire.Count(), 1, "the question for the reason")
		restore()
	}
	// A homeserver whose versions change all the time does not keep Save busy.
	info, err := bot.GetKeyBackupLatestVersion(ctx)
	require.NoError(t, err)
	count := 0
	restore := bot.through(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if count++; req.Method == http.MethodPut {
			return answer(http.StatusForbidden, `{"errcode":"M_WRONG_ROOM_KEYS_VERSION"}`)(next, req)
		}
		info.Version = id.KeyBackupVersion(fmt.Sprint(1000 + count))
		body, err := json.Marshal(info)
		require.NoError(t, err)
		return answer(http.StatusOK, string(body))(next, req)
	})
	assert.ErrorIs(t, opened.Save(ctx, room, session), mautrix.MWrongRoomKeysVersion)
	assert.Equal(t, 3, count)
	restore()
	require.NoError(t, opened.Save(ctx, room, session), "what the homeserver says now counts")
	assert.True(t, slices.ContainsFunc(bot.uploads(), func(upload hstest.Request) bool { return upload.Status == http.StatusOK }))
}
