package keybackup_test

import (
	"bytes"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/ssss"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// lines collects what is logged.
type lines struct {
	mu  sync.Mutex
	buf bytes.Buffer
}

func (l *lines) Write(line []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.buf.Write(line)
}

// Everything that is logged, sent, received and returned as an error while keys are set up, used and mistaken.
func TestNoKeyIsLoggedOrSent(t *testing.T) {
	ctx := t.Context()
	var logged lines
	var said []string
	tracing := func(d device) device {
		log := zerolog.New(&logged).Level(zerolog.TraceLevel)
		d.Log, d.machine.Log = log, &log
		return d
	}
	note := func(value any, err error) {
		said = append(said, fmt.Sprintf("%v %+v %#v", err, err, value))
	}

	bot := tracing(newBot(t))
	room := hstest.EncryptedRoom(t, bot.Client)
	recoveryKey, opened := bot.setUp(t)
	_, session := bot.send(t, room, "hello")
	require.NoError(t, opened.Save(ctx, room, session))
	bot.rotate(t, room)
	encrypted, err := bot.Crypto.Encrypt(ctx, room, event.EventMessage, map[string]any{"body": "hello"})
	require.NoError(t, err)
	restore := bot.through(answer(http.StatusForbidden, `{"errcode":"M_FORBIDDEN"}`))
	note(nil, opened.Save(ctx, room, encrypted.SessionID))
	restore()
	_, err = opened.SaveAll(ctx)
	require.NoError(t, err)

	fresh := tracing(bot.another(t))
	toRead := fresh.open(t, recoveryKey)
	_, err = toRead.Restore(ctx, room, session)
	require.NoError(t, err)
	_, err = toRead.RestoreAll(ctx)
	require.NoError(t, err)
	raw := fresh.rawKey(t, recoveryKey)

	swapped := []rune(recoveryKey)
	swapped[0], swapped[1] = swapped[1], swapped[0]
	mistaken := string(swapped)
	note(keybackup.Open(ctx, fresh.machine, mistaken))
	stranger, err := ssss.NewKey("")
	require.NoError(t, err)
	note(keybackup.Open(ctx, fresh.machine, stranger.RecoveryKey()))
	note(keybackup.OpenWithKey(ctx, fresh.machine, raw[:31]))
	note(keybackup.ParseKey(base64.StdEncoding.EncodeToString(raw[:31])))
	note(keybackup.OpenWithKey(ctx, fresh.machine, bytes.Repeat([]byte{7}, 32)))
	_, again, err := keybackup.SetUp(ctx, fresh.machine, recoveryKey)
	note(again, err)
	note(opened, nil)
	panics := func() {
		defer func() { note(nil, fmt.Errorf("%v", recover())) }()
		panic(opened)
	}
	panics()

	// What must not appear, in whatever form.
	storage, err := keybackup.ParseKey(recoveryKey)
	require.NoError(t, err)
	secrets := map[string][]byte{"the recovery key": storage, "the backup's key": raw}
	secretText := map[string]string{
		"the recovery key's text":     recoveryKey,
		"the mistaken key":            mistaken,
		"another account's key":       stranger.RecoveryKey(),
		"the recovery key's compact":  strings.ReplaceAll(recoveryKey, " ", ""),
		"the recovery key's one part": recoveryKey[5:24],
	}
	for _, found := range []*crypto.InboundGroupSession{bot.stored(t, room, session), bot.stored(t, room, encrypted.SessionID)} {
		exported, err := found.Internal.Export(0)
		require.NoError(t, err)
		export, err := base64.RawStdEncoding.DecodeString(string(exported))
		require.NoError(t, err)
		secrets["the ratchet of "+found.Internal.ID().String()] = export[5:133]
		secretText["the session key of "+found.Internal.ID().String()] = string(exported)
	}
	for name, secret := range secrets {
		secretText[name+" as it is"] = string(secret)
		secretText[name+" in hex"] = hex.EncodeToString(secret)
		secretText[name+" in bytes"] = strings.Trim(fmt.Sprint(secret), "[]")
		secretText[name+" in Go"] = strings.TrimSuffix(strings.TrimPrefix(fmt.Sprintf("%#v", secret), "[]byte{"), "}")
		for shift := range 3 { // base64 of something that it is in the middle of
			for form, encoding := range map[string]*base64.Encoding{"base64": base64.RawStdEncoding, "base64url": base64.RawURLEncoding} {
				shifted := secret[shift:]
				shifted = shifted[:len(shifted)/3*3]
				secretText[fmt.Sprintf("%s in %s, shifted by %d", name, form, shift)] = encoding.EncodeToString(shifted)
			}
		}
	}
	where := map[string]string{"a log": logged.buf.String(), "an error": strings.Join(said, "\n")}
	requests := append(bot.wire.Requests(), fresh.wire.Requests()...)
	for i, request := range requests {
		where[fmt.Sprintf("request %d, %s %s", i, request.Method, request.Path)] = request.Path + "?" + request.Query + "\n" + string(request.Body)
		where[fmt.Sprintf("response %d, %s %s", i, request.Method, request.Path)] = string(request.Response)
	}
	require.Greater(t, len(requests), 20)
	require.Contains(t, logged.buf.String(), "room_keys/keys", "requests were logged")
	for place, text := range where {
		for name, secret := range secretText {
			quoted, err := json.Marshal(secret)
			require.NoError(t, err)
			for _, form := range []string{secret, strings.Trim(string(quoted), `"`)} {
				assert.False(t, strings.Contains(text, form), "%s is in %s", name, place)
			}
		}
	}
}
