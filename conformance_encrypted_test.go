package roomkv_test

import (
	"encoding/json"
	"errors"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// encryptedRows are about encrypted rooms.
var encryptedRows = []row{
	{name: "Encrypted values do not cross the wire", in: secretly + " single/encrypted/following", run: valuesAreSecret},
	{name: "Encrypted values are read by another device and another user", in: secretly, run: othersRead},
	{name: "Encrypted values notify nobody", in: secretly, alone: true, run: notifiesNobody},
	{name: "Encrypted values of a client without a Crypto", in: secretly, run: withoutCrypto},
	{name: "Encrypted values without their keys", in: secretly, run: withoutKeys},
	{name: "Encrypted values of a device that is not trusted", in: "single/encrypted", run: untrusted},
	{name: "Encrypted values in the account's key backup", in: "single/encrypted perkey/encrypted", run: keyBackup},
	{name: "Sealed keys do not cross the wire", in: secretly, run: keysAreSealed},
	{name: "Sealed keys need the secret", in: secretly, run: wrongSecret},
	{name: "Sealed keys need an encrypted room", in: each, run: sealedInClear},
	{name: "A room that becomes encrypted", in: each + " " + followed, run: becomesEncrypted},
	{name: "EncryptAll seals keys too", in: secretly, run: encryptAllSeals},
	{name: "EncryptAll removes what has expired", in: secretly + " custom/encrypted single/sealed custom/sealed shards/sealed perkey/sealed", run: encryptAllOfExpired},
	{name: "Redaction of what was overwritten", in: secretly, run: redactsOverwritten},
}

func valuesAreSecret(t *testing.T, e *env) {
	ctx := t.Context()
	e.requests.Reset()
	require.NoError(t, e.store.Put(ctx, "k", "a diagnosis"))
	require.NoError(t, e.store.PutAll(ctx, map[string]any{"k": "another diagnosis", "j": 1.5}))
	require.NoError(t, roomkv.Update(ctx, e.store, "k", func(old string, _ bool) (string, error) { return "no " + old, nil }))
	got, err := roomkv.Get[string](ctx, e.another(t), "k")
	require.NoError(t, err)
	assert.Equal(t, "no another diagnosis", got)
	for _, request := range e.requests.Requests() {
		for _, spelling := range spellings(t, "diagnosis") {
			assert.NotContains(t, string(request.Body), string(spelling))
		}
	}
	assert.Empty(t, clearNames(t, e.client, e.room))
	state := allState(t, e.client, e.room)
	assert.Contains(t, state, "encrypted_val")
	assert.Contains(t, state, `"k"`, "the names of keys are not hidden")
}

func othersRead(t *testing.T, e *env) {
	ctx := t.Context()
	user := e.member(t, 50)
	device, err := e.subject.NewDevice(ctx, e.client.UserID)
	require.NoError(t, err)
	hstest.Crypto(t, device)
	syncing(t, device)
	syncing(t, e.client)
	require.NoError(t, e.store.Put(ctx, "k", "value"))
	for _, client := range []*mautrix.Client{user, device} {
		store := open(t, client, e.room, e.opts(roomkv.WithKeyWait(20*time.Second))...)
		entry, err := store.Entry(ctx, "k")
		require.NoError(t, err)
		assert.Equal(t, `"value"`, string(entry.Value))
		assert.True(t, entry.Encrypted)
		assert.Equal(t, e.client.UserID, entry.EncryptedBy)
		assert.Less(t, entry.Trust, id.TrustStateVerified)
	}
	require.NoError(t, open(t, user, e.room, e.opts()...).Put(ctx, "theirs", 2))
	mine := open(t, e.client, e.room, e.opts(roomkv.WithKeyWait(20*time.Second))...)
	var entry roomkv.Entry
	eventually(t, func() bool { // a busy Dendrite gives an event only a while after it has acknowledged it
		entry, err = mine.Entry(ctx, "theirs")
		return !errors.Is(err, roomkv.ErrUndecryptable)
	}, "the value can be read")
	require.NoError(t, err)
	assert.Equal(t, user.UserID, entry.EncryptedBy)
}

// Push rules notify of encrypted events: .m.rule.encrypted_room_one_to_one in a room of two members, .m.rule.encrypted in others.
func notifiesNobody(t *testing.T, e *env) {
	ctx := t.Context()
	for _, others := range []int{1, 2} {
		encryption := &event.Event{Type: event.StateEncryption}
		encryption.Content.Parsed = &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}
		request := &mautrix.ReqCreateRoom{Preset: "public_chat", InitialState: []*event.Event{encryption}} // an invitation would notify too
		room := hstest.Room(t, e.client, request)
		var member *mautrix.Client
		for range others {
			member = e.user(t)
			_, err := member.JoinRoomByID(ctx, room)
			require.NoError(t, err)
		}
		store, err := e.store.WithRoom(ctx, room)
		require.NoError(t, err)
		for i := range 10 {
			require.NoError(t, store.Put(ctx, "k", i))
		}
		_, err = e.client.SendText(ctx, room, "a message of which the homeserver does notify")
		require.NoError(t, err)
		require.Equal(t, 1, e.unread(t, member, room, 1), "beside %d others", others)
		time.Sleep(300 * time.Millisecond) // for what the homeserver has not counted yet
		assert.Equal(t, 1, e.unread(t, member, room, 1), "beside %d others", others)
	}
}

func withoutCrypto(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "k", "secret"))
	client := e.twin(t)
	client.Crypto, client.StateStore = nil, nil
	recorder := hstest.Record(client)
	store := open(t, client, e.room, e.opts()...)
	require.ErrorIs(t, store.Put(ctx, "k", "in the clear"), roomkv.ErrNoCrypto)
	require.ErrorIs(t, store.PutAll(ctx, map[string]any{"j": 1}), roomkv.ErrNoCrypto)
	require.ErrorIs(t, store.Create(ctx, "j", 1), roomkv.ErrNoCrypto)
	assert.Zero(t, writes(recorder))
	require.ErrorIs(t, store.Get(ctx, "k", new(string)), roomkv.ErrUndecryptable)
	keys, err := store.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"k"}, keys)
	require.NoError(t, store.Delete(ctx, "k"), "a deletion adds no value")
	assert.Empty(t, memoryOf(t, e.another(t)))
}

func withoutKeys(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.store.Put(ctx, "kept", 1))
	require.NoError(t, e.store.Put(ctx, "replaced", 1))
	require.NoError(t, e.store.Put(ctx, "deleted", 1))
	device, err := e.subject.NewDevice(ctx, e.client.UserID)
	require.NoError(t, err)
	hstest.Crypto(t, device)
	lost := open(t, device, e.room, e.opts(roomkv.WithKeyWait(0))...)
	entry, err := lost.Entry(ctx, "kept")
	require.ErrorIs(t, err, roomkv.ErrUndecryptable)
	assert.ErrorContains(t, err, "event $")
	assert.ErrorContains(t, err, "session ")
	assert.Equal(t, "kept", entry.Key)
	assert.NotEmpty(t, entry.Revision)
	require.ErrorIs(t, roomkv.Update(ctx, lost, "kept", increment), roomkv.ErrUndecryptable)
	require.ErrorIs(t, lost.Pop(ctx, "kept", new(int)), roomkv.ErrUndecryptable)
	require.ErrorIs(t, lost.Create(ctx, "kept", 2), roomkv.ErrExists)
	for entry, err := range lost.All(ctx) {
		require.ErrorIs(t, err, roomkv.ErrUndecryptable)
		assert.NotEmpty(t, entry.Key)
	}
	require.NoError(t, lost.Put(ctx, "new", 2))
	require.NoError(t, lost.Put(ctx, "replaced", 2))
	require.NoError(t, lost.Delete(ctx, "deleted"))
	keys, err := lost.Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"kept", "new", "replaced"}, keys)
	got, err := roomkv.Get[int](ctx, e.another(t), "kept")
	require.NoError(t, err, "it is where it was")
	assert.Equal(t, 1, got)
}

func untrusted(t *testing.T, e *env) {
	ctx := t.Context()
	user := e.member(t, 50)
	require.NoError(t, e.store.Put(ctx, "k", 1))
	strict := open(t, user, e.room, e.opts(roomkv.WithMinTrust(id.TrustStateVerified), roomkv.WithKeyWait(20*time.Second))...)
	entry, err := strict.Entry(ctx, "k")
	require.ErrorIs(t, err, roomkv.ErrUntrusted)
	assert.Equal(t, "k", entry.Key)
	assert.Empty(t, entry.Value)
	mine := e.another(t, roomkv.WithMinTrust(id.TrustStateVerified))
	require.NoError(t, mine.Get(ctx, "k", new(int)), "one's own")
	require.NoError(t, e.another(t, roomkv.WithEncryption(false)).Put(ctx, "clear", 1))
	require.ErrorIs(t, mine.Get(ctx, "clear", new(int)), roomkv.ErrUntrusted, "what is in the clear can be anybody's")
}

func keyBackup(t *testing.T, e *env) {
	ctx := t.Context()
	recoveryKey, backup, err := keybackup.SetUp(ctx, e.crypto.Machine(), "")
	require.NoError(t, err)
	store := open(t, e.client, e.room, e.opts(roomkv.WithKeyBackup(backup))...)
	require.NoError(t, store.Put(ctx, "k", "value"))
	device, err := e.subject.NewDevice(ctx, e.client.UserID)
	require.NoError(t, err)
	there, err := keybackup.Open(ctx, hstest.Crypto(t, device).Machine(), recoveryKey)
	require.NoError(t, err)
	entry, err := open(t, device, e.room, e.opts(roomkv.WithKeyBackup(there), roomkv.WithKeyWait(0))...).Entry(ctx, "k")
	require.NoError(t, err)
	assert.Equal(t, `"value"`, string(entry.Value))
	assert.Equal(t, id.TrustStateBackup, entry.Trust)
}

func keysAreSealed(t *testing.T, e *env) {
	ctx := t.Context()
	store := open(t, e.client, e.room, e.opts(roomkv.WithSealedKeys(secret))...)
	e.requests.Reset()
	require.NoError(t, store.PutAll(ctx, map[string]any{"patient one": "diagnosis", "patient two": 2}))
	require.NoError(t, store.Put(ctx, "patient one", "none"))
	require.NoError(t, roomkv.Update(ctx, store, "patient two", increment))
	require.NoError(t, store.Create(ctx, "patient three", 3))
	require.NoError(t, store.Delete(ctx, "patient three", "patient four"))
	keys, err := e.another(t, roomkv.WithSealedKeys(secret)).Keys(ctx)
	require.NoError(t, err)
	assert.Equal(t, []string{"patient one", "patient two"}, keys)
	assert.Equal(t, map[string]string{"patient one": `"none"`, "patient two": "3"}, memoryOf(t, store))
	for _, request := range e.requests.Requests() {
		for _, spelling := range spellings(t, "patient") {
			assert.NotContains(t, request.Path+request.Query+string(request.Body)+string(request.Response), string(spelling))
		}
	}
	second := e.newRoom(t, e.client)
	elsewhere, err := store.WithRoom(ctx, second)
	require.NoError(t, err)
	require.NoError(t, elsewhere.Put(ctx, "patient one", 1))
	sealedNames := func(room id.RoomID) map[string]bool {
		names := map[string]bool{}
		for _, content := range memoryState(t, e.client, room) {
			assert.NotContains(t, string(content), "patient")
			var stored map[string]json.RawMessage
			require.NoError(t, json.Unmarshal(content, &stored))
			for name := range stored {
				if strings.HasPrefix(name, "roomkv.sealed.") {
					names[name] = true
				}
			}
		}
		return names
	}
	names := sealedNames(second)
	assert.Len(t, names, 1)
	for name := range sealedNames(e.room) {
		assert.NotContains(t, names, name, "names differ between rooms")
	}
}

func wrongSecret(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, open(t, e.client, e.room, e.opts(roomkv.WithSealedKeys(secret))...).Put(ctx, "k", 1))
	other := e.another(t, roomkv.WithSealedKeys(otherSecret))
	_, err := other.Keys(ctx)
	require.ErrorIs(t, err, roomkv.ErrWrongSecret)
	require.ErrorIs(t, other.Get(ctx, "k", new(int)), roomkv.ErrWrongSecret)
	require.ErrorIs(t, other.Put(ctx, "k", 2), roomkv.ErrWrongSecret)
	require.ErrorIs(t, other.Delete(ctx, "k"), roomkv.ErrWrongSecret)
	_, err = e.store.Keys(ctx)
	require.ErrorIs(t, err, roomkv.ErrWrongSecret, "without any")
	require.ErrorIs(t, e.store.Put(ctx, "k", 2), roomkv.ErrWrongSecret)
	assert.Equal(t, map[string]string{"k": "1"}, memoryOf(t, e.another(t, roomkv.WithSealedKeys(secret))))
}

func sealedInClear(t *testing.T, e *env) {
	hstest.Crypto(t, e.client)
	store := open(t, e.client, e.room, e.opts(roomkv.WithSealedKeys(secret))...)
	require.ErrorIs(t, store.Put(t.Context(), "k", 1), roomkv.ErrNoCrypto)
	require.ErrorIs(t, store.Create(t.Context(), "k", 1), roomkv.ErrNoCrypto)
	assert.Empty(t, memoryState(t, e.client, e.room))
}

func becomesEncrypted(t *testing.T, e *env) {
	ctx := t.Context()
	client := e.twin(t)
	hstest.Crypto(t, client)
	store := open(t, client, e.room, e.opts()...)
	if e.following {
		require.NoError(t, store.Follow())
		syncing(t, client)
	}
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2.5}))
	require.NoError(t, store.Get(ctx, "b", new(float64)), "from now on while following from memory")
	b := "2.5"
	_, err := store.EncryptAll(ctx)
	require.ErrorIs(t, err, roomkv.ErrNoCrypto, "the room is not encrypted")
	_, err = e.client.SendStateEvent(ctx, e.room, event.StateEncryption, "", &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1})
	require.NoError(t, err)
	if e.following { // until the sync has told, which another's write after that shows
		require.NoError(t, e.another(t, roomkv.WithEncryption(false)).Put(ctx, "b", 3.5))
		b = "3.5"
		eventually(t, func() bool { got, err := roomkv.Get[float64](ctx, store, "b"); return err == nil && got == 3.5 }, "the sync")
	}
	require.NoError(t, store.Put(ctx, "c", "secret"))
	assert.NotContains(t, allState(t, client, e.room), "secret")
	assert.ElementsMatch(t, []string{"a", "b"}, clearNames(t, client, e.room))
	changed, err := store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, changed)
	assert.Empty(t, clearNames(t, client, e.room))
	assert.Equal(t, map[string]string{"a": "1", "b": b, "c": `"secret"`}, memoryOf(t, store))
}

func encryptAllSeals(t *testing.T, e *env) {
	ctx := t.Context()
	require.NoError(t, e.another(t, roomkv.WithEncryption(false)).Put(ctx, "clear", 1))
	require.NoError(t, e.store.Put(ctx, "encrypted", "x"))
	sealed := open(t, e.client, e.room, e.opts(roomkv.WithSealedKeys(secret))...)
	assert.Empty(t, memoryOf(t, sealed), "keys that were stored without a secret are not seen")
	changed, err := sealed.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 2, changed)
	assert.Equal(t, map[string]string{"clear": "1", "encrypted": `"x"`}, memoryOf(t, e.another(t, roomkv.WithSealedKeys(secret))))
	assert.Empty(t, clearNames(t, e.client, e.room))
	if e.single() {
		assert.NotContains(t, allState(t, e.client, e.room), "clear")
	}
}

func encryptAllOfExpired(t *testing.T, e *env) {
	ctx := t.Context()
	clear := open(t, e.twin(t), e.room, layouts[e.layout], roomkv.WithEncryption(false))
	nothing := func() {
		state := allState(t, e.client, e.room)
		assert.NotContains(t, state, "a diagnosis")
		assert.NotContains(t, state, "expires")
		assert.Empty(t, clearNames(t, e.client, e.room))
		if !e.alone() { // else it is a state key too
			assert.NotContains(t, state, "brief")
		}
	}
	expired := func() {
		require.NoError(t, clear.Put(ctx, "brief", "a diagnosis", roomkv.ExpireAfter(time.Millisecond)))
		gone(t, clear, "brief")
		time.Sleep(1100 * time.Millisecond) // the other's time can be a second behind
		assert.Contains(t, allState(t, e.client, e.room), "a diagnosis")
	}
	expired()
	changed, err := e.store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Zero(t, changed)
	nothing()

	require.NoError(t, clear.Put(ctx, "stays", 1))
	expired()
	e.requests.Reset()
	changed, err = e.store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 1, changed)
	nothing()
	assert.Equal(t, map[string]string{"stays": "1"}, memoryOf(t, e.another(t)))
	if e.single() {
		states := 0
		for _, request := range e.requests.Requests() {
			if request.Method == http.MethodPut && strings.Contains(request.Path, "/state/") {
				states++
			}
		}
		assert.Equal(t, 1, states, "both at once")
	}
	e.requests.Reset()
	changed, err = e.store.EncryptAll(ctx)
	require.NoError(t, err)
	assert.Zero(t, changed)
	assert.Zero(t, writes(e.requests))
}

func redactsOverwritten(t *testing.T, e *env) {
	ctx := t.Context()
	store := open(t, e.client, e.room, e.opts(roomkv.WithRedaction())...)
	require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
	require.NoError(t, store.Put(ctx, "c", 3))
	require.NoError(t, store.Put(ctx, "c", 4))
	require.NoError(t, store.Delete(ctx, "a"))
	exactlyTheUnused(t, e.client, e.room)
	require.NoError(t, store.Put(ctx, "b", 5))
	exactlyTheUnused(t, e.client, e.room)
	assert.Equal(t, map[string]string{"b": "5", "c": "4"}, memoryOf(t, e.another(t)))
}
