package secure_test

import (
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/session/internal/secure"
)

// signIn makes a new device of the name, as a start without a folder does.
func (a *account) signIn(t *testing.T, name string, now time.Time) {
	client, _ := a.client(t)
	client.AccessToken, client.DeviceID = "", ""
	response, err := client.Login(t.Context(), &mautrix.ReqLogin{
		Type: mautrix.AuthTypePassword, Identifier: mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: a.user.String()},
		Password: a.password, DeviceID: secure.NewDeviceID(name, now), InitialDeviceDisplayName: name,
	})
	require.NoError(t, err)
	a.device, a.token = response.DeviceID, response.AccessToken
}

// devices are the IDs of the account's.
func (a *account) devices(t *testing.T) (all []id.DeviceID) {
	client, _ := a.client(t)
	info, err := client.GetDevicesInfo(t.Context())
	require.NoError(t, err)
	for _, device := range info.Devices {
		all = append(all, device.DeviceID)
	}
	return all
}

func TestStartsWithoutAFolderLeaveFewDevices(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		ctx := t.Context()
		bot := newAccount(t, server)
		bot.dir = ""
		others := []id.DeviceID{bot.device}
		key := secure.NewRecoveryKey()
		now := time.Now()
		for _, name := range []string{"another bot", "bot"} { // of other names; a person's device can be called as the bot's
			client, err := server.NewDevice(ctx, bot.user)
			require.NoError(t, err)
			require.NoError(t, client.SetDeviceInfo(ctx, client.DeviceID, &mautrix.ReqDeviceInfo{DisplayName: name}))
			others = append(others, client.DeviceID)
		}
		bot.signIn(t, "another bot", now.Add(-time.Hour))
		others = append(others, bot.device)

		var room id.RoomID
		var last id.DeviceID
		for i := range 20 {
			bot.signIn(t, "bot", now.Add(time.Duration(i)*time.Second))
			opened, _ := bot.open(t, key)
			client := opened.Machine().Client
			if i == 0 {
				room = hstest.EncryptedRoom(t, client)
			}
			store, err := roomkv.New(client, room.String(), roomkv.WithKeyBackup(opened.Backup()))
			require.NoError(t, err)
			require.NoError(t, store.Put(ctx, fmt.Sprint("k", i), i))
			for earlier := range i {
				got, err := roomkv.Get[int](ctx, store, fmt.Sprint("k", earlier))
				require.NoError(t, err, "start %d reads what start %d has put", i, earlier)
				assert.Equal(t, earlier, got)
			}
			require.NoError(t, secure.RemoveOldDevices(ctx, client, "bot", bot.password))
			want := append([]id.DeviceID{bot.device}, others...)
			if last != "" {
				want = append(want, last)
			}
			assert.ElementsMatch(t, want, bot.devices(t))
			last = bot.device
			require.NoError(t, opened.Close())
		}
		assert.Equal(t, id.TrustStateCrossSignedTOFU, bot.seenAs(t))
	})
}

func TestOldDevicesAreNotRemovedWithAWrongPassword(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot := newAccount(t, server)
		now := time.Now()
		for i := range 4 {
			bot.signIn(t, "bot", now.Add(time.Duration(i)*time.Millisecond))
		}
		client, _ := bot.client(t)
		err := secure.RemoveOldDevices(t.Context(), client, "bot", "another password")
		require.Error(t, err)
		assert.NotContains(t, err.Error(), "another password")
		assert.Len(t, bot.devices(t), 5)
		require.NoError(t, secure.RemoveOldDevices(t.Context(), client, "bot", bot.password))
		assert.Len(t, bot.devices(t), 3)
	})
}

func TestDeviceIDs(t *testing.T) {
	now := time.Now()
	seen := map[id.DeviceID]bool{}
	for i := range 100 {
		made := secure.NewDeviceID("bot", now)
		assert.False(t, seen[made])
		seen[made] = true
		assert.Regexp(t, "^ROOMKV[0-9A-V]{22}$", made.String())
		assert.Less(t, made, secure.NewDeviceID("bot", now.Add(time.Duration(i+1)*time.Millisecond)))
		assert.False(t, strings.HasPrefix(made.String(), secure.NewDeviceID("other", now).String()[:14]))
	}
}
