package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"path"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

var opsdroidDatabase = event.Type{Type: "dev.opsdroid.database", Class: event.StateEventType}

// recorded is what opsdroid's database module (of opsdroid's commit 09348786) wrote into an encrypted room of Synapse
// 1.160, through matrix-nio 0.25.2 with libolm 3.2.16: testdata/opsdroid_encrypted.py made it. None of mautrix's code had
// a part in it.
type recorded struct {
	Name     string
	StateKey *string `json:"state_key"` // nil in the per-key layout
	Memory   map[string]json.RawMessage
	Room     id.RoomID
	State    []json.RawMessage
	Events   []json.RawMessage
}

// recordings also gives the device's Megolm sessions, in the specification's export format.
func recordings(t *testing.T) (all []recorded, keys string) {
	text, err := os.ReadFile("testdata/opsdroid_encrypted.json")
	require.NoError(t, err)
	var file struct {
		Keys    string
		Layouts []recorded
	}
	require.NoError(t, json.Unmarshal(text, &file))
	require.NotEmpty(t, file.Layouts)
	return file.Layouts, file.Keys
}

// RoundTrip answers as the homeserver would in whose room the events are.
func (r recorded) RoundTrip(req *http.Request) (*http.Response, error) {
	answer := func(status int, body any) (*http.Response, error) {
		text, err := json.Marshal(body)
		return &http.Response{StatusCode: status, Request: req, Body: readCloser(string(text))}, err
	}
	room := "/_matrix/client/v3/rooms/" + url.PathEscape(r.Room.String())
	rest, inRoom := strings.CutPrefix(req.URL.EscapedPath(), room)
	last, err := url.PathUnescape(path.Base(rest))
	switch {
	case err != nil || req.Method != http.MethodGet:
		return answer(http.StatusForbidden, map[string]string{"errcode": "M_FORBIDDEN"})
	case req.URL.Path == "/_matrix/client/v3/sync":
		return answer(http.StatusOK, map[string]any{"next_batch": "s", "rooms": map[string]any{
			"join": map[string]any{r.Room.String(): map[string]any{"state": map[string]any{"events": r.State}}},
		}})
	case inRoom && strings.HasPrefix(rest, "/event/"):
		for _, text := range r.Events {
			var evt event.Event
			if json.Unmarshal(text, &evt) == nil && evt.ID.String() == last {
				return answer(http.StatusOK, text)
			}
		}
	case inRoom && strings.HasPrefix(rest, "/state/"+opsdroidDatabase.Type+"/"):
		if strings.HasSuffix(rest, "/") {
			last = ""
		}
		for _, text := range r.State {
			var evt event.Event
			if json.Unmarshal(text, &evt) == nil && evt.GetStateKey() == last {
				return answer(http.StatusOK, text)
			}
		}
	}
	return answer(http.StatusNotFound, map[string]string{"errcode": "M_NOT_FOUND"})
}

// imported is a client's Crypto that has no sessions but those which were imported.
type imported struct{ *crypto.OlmMachine }

func importKeys(t *testing.T, client *mautrix.Client, keys string) imported {
	log := zerolog.Nop()
	machine := crypto.NewOlmMachine(client, &log, crypto.NewMemoryStore(nil), nil)
	require.NoError(t, machine.Load(t.Context()))
	if keys == "" {
		return imported{machine}
	}
	// matrix-nio leaves out the padding and the end of the last line, and mautrix wants both.
	const begin, end = "-----BEGIN MEGOLM SESSION DATA-----\n", "-----END MEGOLM SESSION DATA-----\n"
	body := strings.TrimPrefix(strings.TrimSuffix(keys+"\n", "\n"+end), begin)
	padding := strings.Repeat("=", (4-len(strings.ReplaceAll(body, "\n", ""))%4)%4)
	n, all, err := machine.ImportKeys(t.Context(), "passphrase", []byte(begin+body+padding+"\n"+end))
	require.NoError(t, err)
	require.Equal(t, all, n)
	return imported{machine}
}

func (imported) Init(context.Context) error { return nil }
func (i imported) Decrypt(ctx context.Context, evt *event.Event) (*event.Event, error) {
	return i.DecryptMegolmEvent(ctx, evt)
}
func (imported) Encrypt(context.Context, id.RoomID, event.Type, any) (*event.EncryptedEventContent, error) {
	return nil, fmt.Errorf("nothing is to be encrypted")
}
func (imported) RequestSession(context.Context, id.RoomID, id.SenderKey, id.SessionID, id.UserID, id.DeviceID) {
}

func TestReadsWhatOpsdroidEncrypts(t *testing.T) {
	hstest.Parallel(t)
	all, keys := recordings(t)
	for _, recorded := range all {
		t.Run(recorded.Name, func(t *testing.T) {
			client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:localhost", "token")
			require.NoError(t, err)
			client.Client = &http.Client{Transport: recorded}
			client.Crypto = importKeys(t, client, keys)
			layout := roomkv.WithPerKeyState()
			if recorded.StateKey != nil {
				layout = roomkv.WithSingleStateKey(*recorded.StateKey)
			}
			open := func(opts ...roomkv.Option) *roomkv.Store {
				return open(t, client, recorded.Room, append(opts, layout, roomkv.WithEventType(opsdroidDatabase.Type))...)
			}
			memory := memoryOf(t, open())
			assert.Len(t, memory, len(recorded.Memory))
			for key, value := range recorded.Memory {
				entry, err := open().Entry(t.Context(), key)
				require.NoError(t, err, key)
				assert.True(t, entry.Encrypted)
				assert.Equal(t, entry.Sender, entry.EncryptedBy)
				assert.Equal(t, id.TrustStateBackup, entry.Trust, "as mautrix calls what was imported")
				assert.JSONEq(t, string(value), string(entry.Value), key)
				assert.JSONEq(t, string(value), memory[key], key)
			}
			assert.Equal(t, string(recorded.Memory["large"]), memory["large"], "JSONEq does not see all of its digits")
			require.ErrorIs(t, open().Get(t.Context(), "gone", new(any)), roomkv.ErrNotFound)

			client.Crypto = importKeys(t, client, "")
			for key := range recorded.Memory {
				require.ErrorIs(t, open(roomkv.WithKeyWait(0)).Get(t.Context(), key, new(any)), roomkv.ErrUndecryptable, key)
			}
		})
	}
}

// Before opsdroid encrypted a value whole, in the per-key layout a dict was the whole content, with an encrypted event for each
// of its fields (opsdroid/opsdroid#1587, in _verify_and_get and put of opsdroid/database/matrix/__init__.py).
func TestReadsFieldsThatOpsdroidEncrypted(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	hstest.Crypto(t, client)
	room := hstest.EncryptedRoom(t, client)
	perKey := func() *roomkv.Store {
		return open(t, client, room, roomkv.WithPerKeyState(), roomkv.WithEventType(opsdroidDatabase.Type))
	}
	require.NoError(t, perKey().Put(ctx, "today's", 1.5))
	want := map[string]string{"today's": "1.5"}
	for key, fields := range map[string]map[string]any{
		"karma": {"alice": 3, "m.mentions": 0.5, "a<b": map[string]any{"encrypted_val": "$nothing"}}, "one": {"field": nil},
	} {
		text, err := json.Marshal(fields)
		require.NoError(t, err)
		want[key] = string(text)
		content := map[string]any{}
		for field, value := range fields {
			encrypted, err := client.Crypto.Encrypt(ctx, room, event.Type{Type: opsdroidDatabase.Type, Class: event.MessageEventType}, map[string]any{field: value})
			require.NoError(t, err)
			sent, err := client.SendMessageEvent(ctx, room, event.EventEncrypted, encrypted, mautrix.ReqSendEvent{DontEncrypt: true})
			require.NoError(t, err)
			content[field] = map[string]any{"encrypted_val": sent.EventID}
		}
		if key == "karma" {
			want[key] = strings.Replace(want[key], "{", `{"clear":"before",`, 1)
			content["clear"] = "before"
		}
		_, err = client.SendStateEvent(ctx, room, opsdroidDatabase, key, content)
		require.NoError(t, err)
	}
	eventually(t, func() bool { return len(memoryOf(t, perKey())) == len(want) }, "Dendrite's sync lags")
	sameMemory(t, want, perKey())
	entry, err := perKey().Entry(ctx, "karma")
	require.NoError(t, err)
	assert.True(t, entry.Encrypted)
	assert.Equal(t, client.UserID, entry.EncryptedBy)

	dst, _, _ := newStore(t)
	_, err = roomkv.Copy(ctx, dst, perKey(), roomkv.CopyRedactSource())
	require.NoError(t, err)
	sameMemory(t, want, dst)
	eventually(t, func() bool {
		for _, redacted := range encryptedEvents(t, client, room) {
			if !redacted {
				return false
			}
		}
		return true
	}, "each field's event is redacted")
}

func TestEncryptsWhatOpsdroidReads(t *testing.T) {
	hstest.Parallel(t)
	const custom = "bot.memory"
	values := map[string]string{
		"text": `"é <&> \" \\ \u2028 😀"`, "float": `1.5`, "large": `123456789012345678901234567890`, "null": `null`,
		"nested": `{"a\\b":[1e300,{"x":null}],"":true}`, "key with spaces/and slash": `["x"]`, "é😀": `-0.25`,
	}
	escaped := []string{`quote"d`, `back\slash`, "line\nbreak", "m.relates_to", "m.mentions", "redacts", "org.matrix.labels", "roomkv.x"}
	for name, layout := range map[string]struct {
		option   roomkv.Option
		stateKey func(key string) string
	}{
		"single_state_key: True":     {roomkv.WithSingleStateKey(""), func(string) string { return "" }},
		"single_state_key: a string": {roomkv.WithSingleStateKey(custom), func(string) string { return custom }},
		"single_state_key: False":    {roomkv.WithPerKeyState(), func(key string) string { return key }},
	} {
		t.Run(name, func(t *testing.T) {
			client, other := hstest.Client(t), hstest.Client(t)
			device := hstest.Device(t, client)
			readers := []*mautrix.Client{device, other}
			for _, reader := range append(readers, client) {
				hstest.Crypto(t, reader)
			}
			room := hstest.EncryptedRoom(t, client, other.UserID)
			_, err := other.JoinRoomByID(t.Context(), room)
			require.NoError(t, err)
			for _, reader := range readers {
				defer syncing(t, reader)()
			}

			store := open(t, client, room, layout.option, roomkv.WithEventType(opsdroidDatabase.Type))
			check := func(reader *mautrix.Client, key, value string) {
				got, found := opsdroidDecrypt(t, reader, room, layout.stateKey(key), key)
				require.True(t, found, key)
				assert.JSONEq(t, value, got, key)
			}
			require.NoError(t, store.Put(t.Context(), "float", 0.5))
			all := map[string]any{}
			for key, value := range values {
				all[key] = json.RawMessage(value)
			}
			for _, key := range escaped {
				all[key] = 1
			}
			check(device, "float", "0.5")
			require.NoError(t, store.PutAll(t.Context(), all)) // in a dict all of them refer to one event
			for key, value := range values {
				check(device, key, value)
			}
			check(other, "text", values["text"])
			for _, key := range escaped {
				_, found := opsdroidDecrypt(t, device, room, layout.stateKey(key), key)
				assert.False(t, found, "docs/opsdroid.md says that opsdroid does not find %q", key)
			}
			require.NoError(t, store.Delete(t.Context(), "text"))
			_, found := opsdroidDecrypt(t, device, room, layout.stateKey("text"), "text")
			assert.False(t, found)
		})
	}
}

// opsdroidDecrypt finds a value where opsdroid's get looks for it: in the state, and where that refers to an event, there
// under the same name. A reference is a dict with that one name, and all else is the value.
func opsdroidDecrypt(t *testing.T, client *mautrix.Client, room id.RoomID, stateKey, key string) (value string, found bool) {
	t.Helper()
	var state map[string]json.RawMessage
	err := client.StateEvent(t.Context(), room, opsdroidDatabase, stateKey, &state)
	if stateKey == key && err != nil { // the state key is escaped
		require.ErrorIs(t, err, mautrix.MNotFound)
		return "", false
	}
	require.NoError(t, err)
	if state[key] == nil {
		return "", false
	}
	var reference map[string]id.EventID
	require.NoError(t, json.Unmarshal(state[key], &reference), "%q is not encrypted", key)
	require.Len(t, reference, 1)
	listed(t, client, room, reference["encrypted_val"])
	evt, err := client.GetEvent(t.Context(), room, reference["encrypted_val"])
	require.NoError(t, err)
	require.NoError(t, evt.Content.ParseRaw(event.EventEncrypted))
	for _, field := range []string{"sender_key", "device_id"} { // deprecated, and matrix-nio wants them still
		assert.NotEmpty(t, evt.Content.Raw[field], field)
	}
	content := evt.Content.AsEncrypted()
	require.True(t, client.Crypto.WaitForSession(t.Context(), room, content.SenderKey, content.SessionID, 10*time.Second))
	decrypted, err := client.Crypto.Decrypt(t.Context(), evt)
	require.NoError(t, err)
	assert.Equal(t, opsdroidDatabase.Type, decrypted.Type.Type)
	var values map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(decrypted.Content.VeryRaw, &values))
	require.NotNil(t, values[key], key)
	return string(values[key]), true
}
