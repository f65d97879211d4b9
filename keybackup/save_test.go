package keybackup_test

import (
	"context"
	"errors"
	"net/http"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/backup"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

// through puts a transport under the device's requests; f gets the one that was there.
func (d device) through(f func(next http.RoundTripper, req *http.Request) (*http.Response, error)) (remove func()) {
	was := d.Client.Client
	changed, next := *was, was.Transport
	changed.Transport = roundTripper(func(req *http.Request) (*http.Response, error) { return f(next, req) })
	d.Client.Client = &changed
	return func() { d.Client.Client = was }
}

func TestOneUploadASession(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, first := bot.send(t, room, "hello")
	bot.wire.Reset()
	for range 100 {
		require.NoError(t, opened.Save(ctx, room, first))
	}
	assert.Equal(t, 1, bot.wire.Count())

	bot.rotate(t, room)
	_, second := bot.send(t, room, "hello")
	require.NotEqual(t, first, second)
	bot.wire.Reset()
	var all sync.WaitGroup
	for range 100 {
		all.Go(func() { assert.NoError(t, opened.Save(ctx, room, second)) })
	}
	all.Wait()
	assert.Equal(t, 1, bot.wire.Count(), "100 at once")

	bot.wire.Reset()
	require.NoError(t, opened.Save(ctx, room, first))
	require.NoError(t, opened.Save(ctx, room, second))
	assert.Zero(t, bot.wire.Count(), "the room's last session is not the only one that is known")

	other := hstest.EncryptedRoom(t, bot.Client)
	_, third := bot.send(t, other, "hello")
	require.NoError(t, opened.Save(ctx, other, third))
	assert.Len(t, bot.uploads(), 1, "another room's")
}

// A crypto store in a file, as bots have it.
func TestARestartUploadsNothing(t *testing.T) {
	ctx := t.Context()
	client := hstest.Client(t)
	file := filepath.Join(t.TempDir(), "crypto.db")
	start := func() (device, func()) {
		restarted, err := mautrix.NewClient(client.HomeserverURL.String(), client.UserID, client.AccessToken)
		require.NoError(t, err)
		restarted.DeviceID = client.DeviceID
		wire := hstest.Record(restarted)
		helper, err := cryptohelper.NewCryptoHelper(restarted, []byte("of a test"), file)
		require.NoError(t, err)
		require.NoError(t, helper.Init(ctx))
		restarted.Crypto = helper
		return device{restarted, helper.Machine(), wire}, func() { require.NoError(t, helper.Close()) }
	}

	bot, stop := start()
	recoveryKey, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	state, err := bot.State(ctx, room)
	require.NoError(t, err)
	require.NotEmpty(t, state) // the state store knows the room's members and its encryption
	message, session := bot.send(t, room, "hello")
	require.NoError(t, opened.Save(ctx, room, session))
	stop()

	bot, stop = start()
	opened = bot.open(t, recoveryKey)
	bot.wire.Reset()
	require.NoError(t, opened.Save(ctx, room, session))
	saved, err := opened.SaveAll(ctx)
	require.NoError(t, err)
	assert.Zero(t, saved)
	assert.Zero(t, bot.wire.Count())
	_, same := bot.send(t, room, "hello again")
	require.Equal(t, session, same)
	body, err := bot.read(t, room, message)
	require.NoError(t, err)
	assert.Equal(t, "hello", body, "noting the version changed nothing else")
	stop()

	// A session of this store moves to no other room, whatever the homeserver says.
	bot, stop = start()
	defer stop()
	opened = bot.open(t, recoveryKey)
	info, err := bot.GetKeyBackupForRoomAndSession(ctx, opened.Version(), room, session)
	require.NoError(t, err)
	key, err := backup.MegolmBackupKeyFromBytes(bot.rawKey(t, recoveryKey))
	require.NoError(t, err)
	data, err := info.SessionData.Decrypt(key)
	require.NoError(t, err)
	_, err = bot.PutKeysInBackupForRoomAndSession(ctx, opened.Version(), "!other:example.org", session, sealData(t, key, data))
	require.NoError(t, err)
	_, err = opened.Restore(ctx, "!other:example.org", session)
	require.ErrorIs(t, err, keybackup.ErrCorrupt)
	_, err = opened.RestoreAll(ctx)
	require.ErrorIs(t, err, keybackup.ErrCorrupt)
	_, err = bot.read(t, room, message)
	require.NoError(t, err)
}

func TestAFailedUploadIsAnErrorAndTheNextSaveUploads(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, session := bot.send(t, room, "hello")

	broken := errors.New("the wire is cut")
	restore := bot.through(func(http.RoundTripper, *http.Request) (*http.Response, error) { return nil, broken })
	require.ErrorIs(t, opened.Save(ctx, room, session), broken)
	restore()
	restore = bot.through(answer(http.StatusBadGateway, "<html>"))
	require.Error(t, opened.Save(ctx, room, session))
	restore()
	restore = bot.through(answer(http.StatusTooManyRequests, `{"errcode":"M_LIMIT_EXCEEDED"}`))
	require.ErrorIs(t, opened.Save(ctx, room, session), mautrix.MLimitExceeded)
	restore()
	assert.Empty(t, bot.uploads())
	assert.Empty(t, bot.stored(t, room, session).KeyBackupVersion)

	require.NoError(t, opened.Save(ctx, room, session))
	assert.Len(t, bot.uploads(), 1)
}

// A crypto store, not in memory, that cannot note what was saved.
type forgetful struct{ crypto.Store }

func (f forgetful) GetGroupSession(ctx context.Context, room id.RoomID, session id.SessionID) (*crypto.InboundGroupSession, error) {
	found, err := f.Store.GetGroupSession(ctx, room, session)
	if found != nil {
		read := *found
		found = &read
	}
	return found, err
}

func (forgetful) PutGroupSession(context.Context, *crypto.InboundGroupSession) error {
	return errors.New("disk full")
}

func TestAStoreThatCannotNoteItFailsNothing(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, session := bot.send(t, room, "hello")
	bot.machine.CryptoStore = forgetful{bot.machine.CryptoStore}
	require.NoError(t, opened.Save(ctx, room, session))
	require.NoError(t, opened.Save(ctx, room, session))
	assert.Len(t, bot.uploads(), 1)

	// What is known of one version is not known of the next.
	info, err := bot.GetKeyBackupLatestVersion(ctx)
	require.NoError(t, err)
	_, err = bot.CreateKeyBackupVersion(ctx, &mautrix.ReqRoomKeysVersionCreate[backup.MegolmAuthData]{Algorithm: info.Algorithm, AuthData: info.AuthData})
	require.NoError(t, err)
	other := hstest.EncryptedRoom(t, bot.Client)
	bot.machine.CryptoStore = bot.machine.CryptoStore.(forgetful).Store
	_, second := bot.send(t, other, "hello")
	require.NoError(t, opened.Save(ctx, other, second))
	assert.NotEqual(t, info.Version, opened.Version())
	bot.wire.Reset()
	require.NoError(t, opened.Save(ctx, room, session))
	assert.Len(t, bot.uploads(), 1)
}

func TestACallerThatGivesUpFailsNobodyElse(t *testing.T) {
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	_, session := bot.send(t, room, "hello")

	arrived, release := make(chan struct{}), make(chan struct{})
	ended := make(chan error, 1)
	restore := bot.through(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		close(arrived)
		select {
		case <-release:
			return next.RoundTrip(req)
		case <-req.Context().Done():
			ended <- req.Context().Err()
			return nil, req.Context().Err()
		}
	})
	giveUp, cancel := context.WithCancel(t.Context())
	results := make(chan error, 2)
	go func() { results <- opened.Save(giveUp, room, session) }()
	<-arrived
	patient := make(chan error, 1)
	go func() { patient <- opened.Save(t.Context(), room, session) }()
	time.Sleep(50 * time.Millisecond) // until it waits
	cancel()
	require.ErrorIs(t, <-results, context.Canceled)
	close(release)
	require.NoError(t, <-patient)
	assert.Len(t, bot.uploads(), 1)
	restore()

	// And the last one that gives up ends the request. Who comes next starts anew, also while that is still ending.
	bot.rotate(t, room)
	_, session = bot.send(t, room, "hello")
	arrived, release = make(chan struct{}), make(chan struct{})
	restore = bot.through(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		close(arrived)
		select {
		case <-req.Context().Done():
		case <-time.After(10 * time.Second):
		}
		ended <- req.Context().Err()
		<-release
		return nil, req.Context().Err()
	})
	giveUp, cancel = context.WithCancel(t.Context())
	go func() { results <- opened.Save(giveUp, room, session) }()
	<-arrived
	cancel()
	require.ErrorIs(t, <-results, context.Canceled)
	require.ErrorIs(t, <-ended, context.Canceled)
	restore()
	anew, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	require.NoError(t, opened.Save(anew, room, session))
	close(release)
}

func TestSaveNeedsTheWholeSession(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	_, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	assert.ErrorIs(t, opened.Save(ctx, room, ""), keybackup.ErrNoSession)
	assert.ErrorIs(t, opened.Save(ctx, room, "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"), keybackup.ErrNoSession)

	bot.machine.DontStoreOutboundKeys = true
	_, session := bot.send(t, room, "hello")
	err := opened.Save(ctx, room, session)
	require.ErrorIs(t, err, keybackup.ErrNoSession)
	assert.ErrorContains(t, err, "DontStoreOutboundKeys")
	bot.machine.DontStoreOutboundKeys = false

	bot.rotate(t, room)
	bot.machine.RatchetKeysOnDecrypt = true
	message, session := bot.send(t, room, "hello")
	_, err = bot.read(t, room, message)
	require.NoError(t, err)
	require.NotZero(t, bot.stored(t, room, session).Internal.FirstKnownIndex())
	assert.ErrorIs(t, opened.Save(ctx, room, session), keybackup.ErrPartialSession)
	assert.Empty(t, bot.uploads())
}

// In a store in memory the session that is saved is the one that the machine decrypts with, and that changes it.
func TestSaveWhileTheMachineDecrypts(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, opened := bot.setUp(t)
	room := hstest.EncryptedRoom(t, bot.Client)
	other := bot.another(t)
	toRead := other.open(t, recoveryKey)
	for range 20 {
		bot.rotate(t, room)
		var messages []*event.Event
		var session id.SessionID
		for range 5 {
			var message id.EventID
			message, session = bot.send(t, room, "hello")
			messages = append(messages, bot.fetch(t, room, message))
		}
		var all sync.WaitGroup
		all.Go(func() {
			for _, message := range messages {
				_, err := bot.Crypto.Decrypt(ctx, message)
				assert.NoError(t, err)
			}
		})
		for range 5 {
			all.Go(func() { assert.NoError(t, opened.Save(ctx, room, session)) })
		}
		all.Wait()
		_, err := toRead.Restore(ctx, room, session)
		require.NoError(t, err)
		for _, message := range messages {
			_, err := other.Crypto.Decrypt(ctx, message)
			require.NoError(t, err)
		}
	}
}

// A device that was given the session later saves it too, before and after; the homeserver keeps what reads everything.
func TestAnotherDevicesUploadTakesNothingAway(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	recoveryKey, opened := bot.setUp(t)
	key, err := backup.MegolmBackupKeyFromBytes(bot.rawKey(t, recoveryKey))
	require.NoError(t, err)
	room := hstest.EncryptedRoom(t, bot.Client)
	message, session := bot.send(t, room, "hello")
	for _, verified := range []bool{false, true} {
		later := sealWith(t, key, bot.stored(t, room, session), 7)
		later.FirstMessageIndex, later.IsVerified = 7, verified
		_, err := bot.PutKeysInBackupForRoomAndSession(ctx, opened.Version(), room, session, later)
		require.NoError(t, err)
		require.NoError(t, opened.Save(ctx, room, session))
		_, err = bot.PutKeysInBackupForRoomAndSession(ctx, opened.Version(), room, session, later)
		require.NoError(t, err)

		other := bot.another(t)
		_, err = other.open(t, recoveryKey).Restore(ctx, room, session)
		require.NoError(t, err)
		body, err := other.read(t, room, message)
		require.NoError(t, err)
		assert.Equal(t, "hello", body)

		bot.rotate(t, room)
		message, session = bot.send(t, room, "hello")
	}
}

func TestSaveAllAndRestoreAll(t *testing.T) {
	ctx := t.Context()
	bot := newBot(t)
	room, other := hstest.EncryptedRoom(t, bot.Client), hstest.EncryptedRoom(t, bot.Client)
	messages := map[id.EventID]id.RoomID{}
	for range 51 { // values from before the backup, more than go into one request
		for _, room := range []id.RoomID{room, other} {
			bot.rotate(t, room)
			message, _ := bot.send(t, room, "hello")
			messages[message] = room
		}
	}
	recoveryKey, opened := bot.setUp(t)
	bot.wire.Reset()
	saved, err := opened.SaveAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 102, saved)
	assert.Equal(t, 2, bot.wire.Count())
	saved, err = opened.SaveAll(ctx)
	require.NoError(t, err)
	assert.Zero(t, saved)
	assert.Equal(t, 2, bot.wire.Count())

	fresh := bot.another(t)
	toRead := fresh.open(t, recoveryKey)
	fresh.wire.Reset()
	restored, err := toRead.RestoreAll(ctx)
	require.NoError(t, err)
	assert.Equal(t, 102, restored)
	assert.Equal(t, 1, fresh.wire.Count())
	for message, room := range messages {
		body, err := fresh.read(t, room, message)
		require.NoError(t, err)
		assert.Equal(t, "hello", body)
	}
}
