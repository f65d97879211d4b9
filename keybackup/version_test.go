package keybackup_test

import (
	"net/http"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// backups of one account, seen from a device that had opened the first.
func TestTheBackupIsReplacedOrDeleted(t *testing.T) {
	type account struct {
		bot         device
		recoveryKey string
		opened      *keybackup.Backup
	}
	remove := func(t *testing.T, a account) {
		require.NoError(t, a.bot.DeleteKeyBackupVersion(t.Context(), a.opened.Version()))
	}
	withKey := func(t *testing.T, a account, recoveryKey string) {
		// Another client of the account, to which Matrix allows a new version over an old one.
		other := a.bot.another(t)
		hidden := other.through(hide("/room_keys/version", http.MethodGet))
		defer hidden()
		_, _, err := keybackup.SetUp(t.Context(), other.machine, recoveryKey)
		require.ErrorIs(t, err, keybackup.ErrNoBackup, "of the Open at the end, from which it is hidden")
	}
	forget := func(t *testing.T, a account) {
		require.NoError(t, a.bot.SetAccountData(t.Context(), "m.secret_storage.default_key", struct{}{}))
	}
	for name, test := range map[string]struct {
		change func(*testing.T, account)
		err    error
	}{
		"deleted": {remove, keybackup.ErrNoBackup},
		"replaced by one with another key": {func(t *testing.T, a account) {
			forget(t, a)
			withKey(t, a, "")
		}, keybackup.ErrKeyMismatch},
		"deleted and replaced by one with another key": {func(t *testing.T, a account) {
			remove(t, a)
			forget(t, a)
			withKey(t, a, "")
		}, keybackup.ErrKeyMismatch},
		"replaced by one with the same key": {func(t *testing.T, a account) { withKey(t, a, a.recoveryKey) }, nil},
		"deleted and replaced by one with the same key": {func(t *testing.T, a account) {
			remove(t, a)
			withKey(t, a, a.recoveryKey)
		}, nil},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx := t.Context()
			bot := newBot(t)
			recoveryKey, opened := bot.setUp(t)
			before := opened.Version()
			room := hstest.EncryptedRoom(t, bot.Client)
			first, firstSession := bot.send(t, room, "first")
			require.NoError(t, opened.Save(ctx, room, firstSession))
			toRead := bot.another(t)
			reads := toRead.open(t, recoveryKey)

			test.change(t, account{bot, recoveryKey, opened})
			bot.rotate(t, room)
			second, secondSession := bot.send(t, room, "second")
			bot.wire.Reset()
			err := opened.Save(ctx, room, secondSession)
			if test.err != nil {
				require.ErrorIs(t, err, test.err)
				assert.Equal(t, 2, bot.wire.Count(), "the upload, and the reason")
				assert.Empty(t, bot.stored(t, room, secondSession).KeyBackupVersion)
				assert.Equal(t, before, opened.Version())
				_, err = opened.SaveAll(ctx)
				require.ErrorIs(t, err, test.err)
				_, err = reads.Restore(ctx, room, secondSession)
				require.ErrorIs(t, err, test.err)
				return
			}
			require.NoError(t, err)
			assert.NotEqual(t, before, opened.Version())
			bot.wire.Reset()
			require.NoError(t, opened.Save(ctx, room, firstSession))
			require.NoError(t, opened.Save(ctx, room, secondSession))
			assert.Zero(t, bot.wire.Count(), "what was in the old version has moved")

			for _, restored := range []struct {
				event   func() (string, error)
				session func() (bool, error)
				body    string
			}{
				{func() (string, error) { return toRead.read(t, room, second) }, func() (bool, error) { return reads.Restore(ctx, room, secondSession) }, "second"},
				{func() (string, error) { return toRead.read(t, room, first) }, func() (bool, error) { return reads.Restore(ctx, room, firstSession) }, "first"},
			} {
				found, err := restored.session()
				require.NoError(t, err)
				require.True(t, found)
				body, err := restored.event()
				require.NoError(t, err)
				assert.Equal(t, restored.body, body)
			}
			assert.Equal(t, opened.Version(), reads.Version())
		})
	}
}

// A backup that cannot be asked for is not one that lacks the session.
func TestNotFoundIsCertain(t *testing.T) {
	bot := newBot(t)
	_, opened := bot.setUp(t)
	defer bot.through(func(next http.RoundTripper, req *http.Request) (*http.Response, error) {
		if req.URL.Path == "/_matrix/client/v3/room_keys/version" {
			return answer(http.StatusInternalServerError, `{"errcode":"M_UNKNOWN"}`)(next, req)
		}
		return next.RoundTrip(req)
	})()
	found, err := opened.Restore(t.Context(), "!room:example.org", "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA")
	require.Error(t, err)
	assert.False(t, found)
}
