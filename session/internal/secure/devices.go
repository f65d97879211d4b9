package secure

import (
	"context"
	"crypto/sha256"
	"encoding/base32"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// The ID of a device that one start makes: a prefix, a hash of the device's name, the time of the start in milliseconds, so that later IDs are greater,
// and some random letters.
const (
	idPrefix   = "ROOMKV"
	hashLength = 8
	timeLength = 10
	tailLength = 4
)

// digits keep the order of what they encode.
var digits = base32.HexEncoding.WithPadding(base32.NoPadding)

// NewDeviceID makes the ID of the device with which a bot without a folder signs in. [RemoveOldDevices] knows it again.
func NewDeviceID(name string, now time.Time) id.DeviceID {
	var at [8]byte
	binary.BigEndian.PutUint64(at[:], uint64(now.UnixMilli()))
	return id.DeviceID(ownPrefix(name) + digits.EncodeToString(at[2:]) + digits.EncodeToString(random(3))[:tailLength])
}

// ownPrefix is how the IDs of a bot's devices begin.
func ownPrefix(name string) string {
	hash := sha256.Sum256([]byte(name))
	return idPrefix + digits.EncodeToString(hash[:])[:hashLength]
}

// RemoveOldDevices removes the devices that earlier starts have made under the name, but for the client's own and the newest other one, which may
// be that of a process that this one replaces. It removes no other device. The homeserver asks for the password.
func RemoveOldDevices(ctx context.Context, client *mautrix.Client, name, password string) error {
	all, err := client.GetDevicesInfo(ctx)
	if err == nil && all == nil {
		err = errNull
	}
	if err != nil {
		return fmt.Errorf("listing the account's devices: %w", err)
	}
	old := oldDevices(all.Devices, ownPrefix(name), client.DeviceID)
	if len(old) == 0 {
		return nil
	}
	if err := deleteDevices(ctx, client, old, password); err != nil {
		return fmt.Errorf("removing %d devices of earlier starts: %w", len(old), err)
	}
	return nil
}

// oldDevices are the devices to remove.
func oldDevices(all []mautrix.RespDeviceInfo, prefix string, own id.DeviceID) []id.DeviceID {
	var others []id.DeviceID
	for _, device := range all {
		name := device.DeviceID.String()
		if device.DeviceID != own && strings.HasPrefix(name, prefix) && len(name) == len(prefix)+timeLength+tailLength {
			others = append(others, device.DeviceID)
		}
	}
	if len(others) < 2 {
		return nil
	}
	slices.Sort(others)
	return others[:len(others)-1]
}

// deleteDevices does not use mautrix's DeleteDevices, which logs the password.
func deleteDevices(ctx context.Context, client *mautrix.Client, devices []id.DeviceID, password string) error {
	request := mautrix.ReqDeleteDevices[any]{Devices: devices}
	send := func() ([]byte, error) {
		return client.MakeFullRequest(ctx, mautrix.FullRequest{
			Method: http.MethodPost, URL: client.BuildClientURL("v3", "delete_devices"), RequestJSON: &request, SensitiveContent: true,
		})
	}
	answer, err := send()
	var failed mautrix.HTTPError
	if !errors.As(err, &failed) || !failed.IsStatus(http.StatusUnauthorized) || errors.Is(err, mautrix.MUnknownToken) {
		return err
	}
	var asked mautrix.RespUserInteractive
	if json.Unmarshal(answer, &asked) != nil || asked.Session == "" {
		return err
	}
	request.Auth = passwordAuth(client.UserID, password, asked.Session)
	_, err = send()
	return err
}
