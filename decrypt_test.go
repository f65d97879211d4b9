package roomkv_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// memoryType is the type inside the store's encrypted events.
var memoryType = event.Type{Type: roomkv.DefaultEventType, Class: event.MessageEventType}

func TestOtherDevicesAndBotsRead(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client, other := hstest.Client(t), hstest.Client(t)
	room := hstest.EncryptedRoom(t, client, other.UserID)
	_, err := other.JoinRoomByID(ctx, room)
	require.NoError(t, err)
	device := again(t, client)
	readers := map[string]*roomkv.Store{}
	for name, from := range map[string]*mautrix.Client{"device": device, "bot": other} {
		hstest.Crypto(t, from)
		readers[name] = open(t, from, room)
		require.NoError(t, readers[name].Follow())
		defer syncing(t, from)()
	}
	hstest.Crypto(t, client) // has seen none of them

	store := open(t, client, room)
	for i := range 10 {
		require.NoError(t, store.Put(ctx, fmt.Sprint(i), i))
	}
	for name, from := range map[string]*mautrix.Client{"device": device, "bot": other} {
		s := readers[name]
		eventually(t, func() bool { return s.Get(ctx, "9", new(int)) == nil }, "the sync brings the last of them")
		for i := range 10 {
			got, err := roomkv.Get[int](ctx, s, fmt.Sprint(i))
			require.NoError(t, err, name)
			assert.Equal(t, i, got)
		}
		entry, err := s.Entry(ctx, "0")
		require.NoError(t, err)
		assert.Equal(t, client.UserID, entry.EncryptedBy)
		assert.Equal(t, client.UserID, entry.Sender)
		assert.Less(t, entry.Trust, id.TrustStateVerified, name)
		strict := open(t, from, room, roomkv.WithMinTrust(id.TrustStateVerified))
		require.ErrorIs(t, strict.Get(ctx, "0", new(int)), roomkv.ErrUntrusted)
		require.ErrorContains(t, strict.Get(ctx, "0", new(int)), "event $")
	}
	trusting := open(t, client, room, roomkv.WithMinTrust(id.TrustStateVerified))
	require.NoError(t, trusting.Get(ctx, "0", new(int)))
	require.NoError(t, open(t, client, room, roomkv.WithEncryption(false)).Put(ctx, "clear", 1))
	require.ErrorIs(t, trusting.Get(ctx, "clear", new(int)), roomkv.ErrUntrusted)
}

// The bot's crypto store is lost, and with it every key; and then found again.
func TestLostKeys(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		room := hstest.EncryptedRoom(t, client)
		old := hstest.Crypto(t, client)
		store := open(t, client, room, layout)
		const values = 10
		for i := range values {
			require.NoError(t, store.Put(ctx, fmt.Sprint("key ", i), i))
		}
		before := references(t, client, room)

		device := again(t, client)
		now := hstest.Crypto(t, device)
		lost := open(t, device, room, layout, roomkv.WithKeyWait(50*time.Millisecond))
		keys, err := lost.Keys(ctx)
		require.NoError(t, err)
		assert.Len(t, keys, values)
		for i := range values {
			err := lost.Get(ctx, fmt.Sprint("key ", i), new(int))
			require.ErrorIs(t, err, roomkv.ErrUndecryptable)
			require.ErrorContains(t, err, "event $")
			require.ErrorContains(t, err, "session ")
		}
		seen := 0
		for entry, err := range lost.All(ctx) {
			require.ErrorIs(t, err, roomkv.ErrUndecryptable)
			assert.NotEmpty(t, entry.Key)
			seen++
		}
		assert.Equal(t, values, seen)
		require.ErrorIs(t, roomkv.Update(ctx, lost, "key 0", func(n int, _ bool) (int, error) { return n + 1, nil }), roomkv.ErrUndecryptable)
		require.ErrorIs(t, lost.Pop(ctx, "key 0", new(int)), roomkv.ErrUndecryptable)
		require.ErrorIs(t, lost.Create(ctx, "key 0", 7), roomkv.ErrExists)

		require.NoError(t, lost.Put(ctx, "another", "value"))
		require.NoError(t, lost.Put(ctx, "key 1", "overwritten"))
		require.NoError(t, lost.Delete(ctx, "key 2"))
		assert.Subset(t, references(t, client, room), slices.DeleteFunc(before, func(r string) bool {
			return strings.HasPrefix(r, "key 1:") || strings.HasPrefix(r, "key 2:")
		}))
		handOver(t, old, now, room)
		for i := 3; i < values; i++ {
			got, err := roomkv.Get[int](ctx, lost, fmt.Sprint("key ", i))
			require.NoError(t, err)
			assert.Equal(t, i, got)
		}
		require.NoError(t, roomkv.Update(ctx, lost, "key 0", func(n int, _ bool) (int, error) { return n + 1, nil }))
		text, err := roomkv.Get[string](ctx, lost, "key 1")
		require.NoError(t, err)
		assert.Equal(t, "overwritten", text)
	})
}

// references are the names in the room's memory with the events that they refer to.
func references(t testing.TB, client *mautrix.Client, room id.RoomID) (all []string) {
	t.Helper()
	for _, content := range memoryState(t, client, room) {
		var dict map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(content, &dict))
		for name, stored := range dict {
			if strings.Contains(string(stored), "encrypted_val") {
				all = append(all, name+": "+string(stored))
			}
		}
	}
	return all
}

// handOver gives one device the Megolm sessions of another, as a key export and import does.
func handOver(t testing.TB, from, to *cryptohelper.CryptoHelper, room id.RoomID) {
	t.Helper()
	exported, err := crypto.ExportKeysIter("of a test", from.Machine().CryptoStore.GetGroupSessionsForRoom(t.Context(), room))
	require.NoError(t, err)
	imported, _, err := to.Machine().ImportKeys(t.Context(), "of a test", exported)
	require.NoError(t, err)
	require.NotZero(t, imported)
}

// A key that comes while a read waits for it is as good as one that was there.
func TestReadWaitsForTheKey(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	room := hstest.EncryptedRoom(t, client)
	old := hstest.Crypto(t, client)
	require.NoError(t, open(t, client, room).Put(ctx, "key", 1))
	device := again(t, client)
	now := hstest.Crypto(t, device)
	store := open(t, device, room, roomkv.WithKeyWait(20*time.Second))
	done := make(chan error, 2)
	began := time.Now()
	for range 2 {
		go func() { done <- store.Get(ctx, "key", new(int)) }()
	}
	time.Sleep(500 * time.Millisecond)
	handOver(t, old, now, room)
	for range 2 {
		require.NoError(t, <-done)
	}
	assert.Less(t, time.Since(began), 15*time.Second)

	asking, cancel := context.WithCancel(ctx)
	defer cancel()
	third := again(t, client)
	hstest.Crypto(t, third)
	third.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/m.room_key_request/") {
			time.AfterFunc(50*time.Millisecond, cancel)
		}
		return http.DefaultTransport.RoundTrip(req)
	})
	err := open(t, third, room, roomkv.WithKeyWait(20*time.Second)).Get(asking, "key", new(int))
	require.ErrorIs(t, err, roomkv.ErrUndecryptable)
	require.ErrorIs(t, err, context.Canceled)
}

// Dendrite finds an event some time after it has acknowledged it.
func TestReadWaitsForTheEvent(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	room := hstest.EncryptedRoom(t, client)
	hstest.Crypto(t, client)
	require.NoError(t, open(t, client, room).Put(t.Context(), "key", 1))
	var missing atomic.Bool
	var asked atomic.Int64
	client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/event/") {
			if asked.Add(1); missing.Load() {
				body := io.NopCloser(strings.NewReader(`{"errcode": "M_NOT_FOUND", "error": "not yet"}`))
				return &http.Response{StatusCode: http.StatusNotFound, Header: http.Header{"Content-Type": {"application/json"}}, Body: body, Request: req}, nil
			}
		}
		return http.DefaultTransport.RoundTrip(req)
	})
	missing.Store(true)
	time.AfterFunc(time.Second, func() { missing.Store(false) })
	require.NoError(t, open(t, client, room, roomkv.WithKeyWait(20*time.Second)).Get(t.Context(), "key", new(int)))
	assert.Less(t, asked.Load(), int64(20))

	missing.Store(true)
	began := time.Now()
	require.ErrorIs(t, open(t, client, room, roomkv.WithKeyWait(0)).Get(t.Context(), "key", new(int)), roomkv.ErrUndecryptable)
	assert.Less(t, time.Since(began), 10*time.Second)
	store := open(t, client, room, roomkv.WithKeyWait(time.Second))
	for range 3 { // it is waited for once
		require.ErrorIs(t, store.Get(t.Context(), "key", new(int)), roomkv.ErrUndecryptable)
	}
	assert.Less(t, asked.Load(), int64(60))
}

// The state can name any event of any room.
func TestHostileReferences(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newEncrypted(t, layout)
		require.NoError(t, store.Put(ctx, "good", 1))
		encrypted := func(room id.RoomID, eventType event.Type, content any) id.EventID {
			inside, err := client.Crypto.Encrypt(ctx, room, eventType, content)
			require.NoError(t, err)
			sent, err := client.SendMessageEvent(ctx, room, event.EventEncrypted, inside, mautrix.ReqSendEvent{DontEncrypt: true})
			require.NoError(t, err)
			return sent.EventID
		}
		send := func(eventType event.Type, content any) id.EventID {
			sent, err := client.SendMessageEvent(ctx, room, eventType, content, mautrix.ReqSendEvent{DontEncrypt: true})
			require.NoError(t, err)
			return sent.EventID
		}
		elsewhere := hstest.EncryptedRoom(t, client)
		other := open(t, client, elsewhere)
		require.NoError(t, other.Put(ctx, "bad", 1))
		redacted := encrypted(room, memoryType, map[string]any{"bad": 1})
		_, err := client.RedactEvent(ctx, room, redacted)
		require.NoError(t, err)
		for name, test := range map[string]struct {
			event id.EventID
			err   error
		}{
			"another room":       {encrypted(elsewhere, memoryType, map[string]any{"bad": 1}), nil},
			"another type":       {encrypted(room, event.EventMessage, map[string]any{"bad": 1}), roomkv.ErrCorrupt},
			"another key":        {encrypted(room, memoryType, map[string]any{"good": 1}), roomkv.ErrCorrupt},
			"no dict":            {encrypted(room, memoryType, []int{1}), nil},
			"not encrypted":      {send(memoryType, map[string]any{"bad": 1}), roomkv.ErrCorrupt},
			"not Megolm":         {send(event.EventEncrypted, map[string]any{"algorithm": "m.olm.v1.curve25519-aes-sha2"}), roomkv.ErrCorrupt},
			"no ciphertext":      {send(event.EventEncrypted, map[string]any{"algorithm": "m.megolm.v1.aes-sha2"}), nil},
			"strange ciphertext": {send(event.EventEncrypted, map[string]any{"algorithm": "m.megolm.v1.aes-sha2", "ciphertext": []int{1}, "session_id": 7}), nil},
			"redacted":           {redacted, roomkv.ErrUndecryptable},
			"missing":            {"$missing", roomkv.ErrUndecryptable},
			"a path":             {"../../state", nil},
		} {
			t.Run(name, func(t *testing.T) {
				content := map[string]any{"bad": map[string]any{"encrypted_val": test.event}}
				_, err := client.SendStateEvent(ctx, room, database, stateKeyOf(t, client, room, "bad"), content)
				require.NoError(t, err)
				err = open(t, client, room, layout, roomkv.WithKeyWait(0)).Get(ctx, "bad", new(any))
				require.Error(t, err)
				if test.err != nil {
					require.ErrorIs(t, err, test.err)
				}
				assert.ErrorContains(t, err, test.event.String())
			})
		}
	})
}

// Beside the ciphertext an event can have m.relates_to, and whoever decrypts the event copies that into the content.
func TestHomeserverCannotAddToAnEvent(t *testing.T) {
	hstest.Parallel(t)
	const key = "m.relates_to"
	for name, opts := range map[string][]roomkv.Option{
		"plain": nil, "sealed": {roomkv.WithSealedKeys([]byte("a secret of some length"))},
	} {
		t.Run(name, func(t *testing.T) {
			store, client, room := newEncrypted(t, opts...)
			require.NoError(t, store.PutAll(t.Context(), map[string]any{key: "genuine", "other": 1}))
			client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
				resp, err := http.DefaultTransport.RoundTrip(req)
				if err != nil || !strings.Contains(req.URL.Path, "/event/") || resp.StatusCode != http.StatusOK {
					return resp, err
				}
				defer func() { _ = resp.Body.Close() }()
				var evt map[string]any
				if err := json.NewDecoder(resp.Body).Decode(&evt); err != nil {
					return nil, err
				}
				evt["content"].(map[string]any)[key] = map[string]any{"rel_type": "forged"}
				text, err := json.Marshal(evt)
				resp.Body, resp.ContentLength = readCloser(string(text)), int64(len(text))
				return resp, err
			})
			for range 10 { // a map is read in any order
				got, err := roomkv.Get[string](t.Context(), open(t, client, room, opts...), key)
				require.NoError(t, err)
				assert.Equal(t, "genuine", got)
			}
			if name == "sealed" {
				return
			}
			sent, err := client.Crypto.Encrypt(t.Context(), room, memoryType, map[string]any{"other": 2})
			require.NoError(t, err)
			evt, err := client.SendMessageEvent(t.Context(), room, event.EventEncrypted, sent, mautrix.ReqSendEvent{DontEncrypt: true})
			require.NoError(t, err)
			_, err = client.SendStateEvent(t.Context(), room, database, "", map[string]any{key: map[string]any{"encrypted_val": evt.EventID}})
			require.NoError(t, err)
			require.ErrorIs(t, open(t, client, room).Get(t.Context(), key, new(any)), roomkv.ErrCorrupt)
		})
	}
}
