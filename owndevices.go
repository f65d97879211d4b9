package roomkv

import (
	"context"
	"reflect"
	"sync/atomic"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

// ownDevices makes mautrix ask, once, which other devices the client's user has. A crypto store in memory takes the device
// that cryptohelper's Init puts there for all there are (v0.31.0), until the sync tells of another change; and one in SQL
// does not learn of those that were added while the bot was down and did not sync on from there. A Megolm session would
// then reach none of them. Devices of other users mautrix asks for by itself.
type ownDevices struct{ known atomic.Bool }

// fetcher is mautrix's crypto.OlmMachine. That package needs libolm or a build tag and so is not imported.
type fetcher interface {
	FetchKeys(ctx context.Context, users []id.UserID, includeUntracked bool) (map[id.UserID]map[id.DeviceID]*id.Device, error)
}

// refresh takes one request the first time. Where devices have appeared, mautrix begins new Megolm sessions.
func (d *ownDevices) refresh(ctx context.Context, client *mautrix.Client) error {
	if d.known.Load() {
		return nil
	}
	if machine := fetcherOf(client.Crypto); machine != nil {
		err := matrix.Try(ctx, client, func(ctx context.Context) error {
			_, err := machine.FetchKeys(ctx, []id.UserID{client.UserID}, true)
			return err
		})
		if err != nil {
			return err
		}
	}
	d.known.Store(true)
	return nil
}

// fetcherOf is nil where the client's encryption is not mautrix's cryptohelper, nor made like it.
func fetcherOf(crypto mautrix.CryptoHelper) fetcher {
	if machine, ok := crypto.(fetcher); ok {
		return machine
	}
	// The result of Machine is of a type that cannot be named here.
	method := reflect.ValueOf(crypto).MethodByName("Machine")
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return nil
	}
	machine, _ := method.Call(nil)[0].Interface().(fetcher)
	return machine
}
