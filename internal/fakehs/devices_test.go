package fakehs_test

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// Devices are removed by who knows the password.
func TestDevicesAreRemovedWithThePassword(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx := t.Context()
		client := fakehstest.Client(t, server)
		other := fakehstest.Device(t, server, client)
		before := time.Now().Add(-time.Second)
		password, err := server.Password(client.UserID)
		require.NoError(t, err)
		remove := func(auth any) error {
			return client.DeleteDevice(ctx, other.DeviceID, &mautrix.ReqDeleteDevice[any]{Auth: auth})
		}
		var refused mautrix.HTTPError
		require.True(t, errors.As(remove(nil), &refused))
		assert.True(t, refused.IsStatus(401))
		assert.Nil(t, refused.RespError)
		base := mautrix.BaseAuthData{Type: mautrix.AuthTypePassword, Session: "s"}
		require.ErrorIs(t, remove(mautrix.ReqUIAuthLogin{BaseAuthData: base, User: client.UserID.String(), Password: "wrong"}), mautrix.MForbidden)
		devices, err := client.GetDevicesInfo(ctx)
		require.NoError(t, err)
		assert.Len(t, devices.Devices, 2)
		for _, device := range devices.Devices {
			if device.DeviceID == client.DeviceID {
				assert.Greater(t, device.LastSeenTS, before.UnixMilli())
			}
		}
		require.NoError(t, remove(mautrix.ReqUIAuthLogin{BaseAuthData: base, User: client.UserID.Localpart(), Password: password}))
		devices, err = client.GetDevicesInfo(ctx)
		require.NoError(t, err)
		assert.Len(t, devices.Devices, 1)
	})
}
