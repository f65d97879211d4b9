package seal

import (
	"context"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
)

// learnDevices makes mautrix ask, once, which other devices the client's user has. A crypto store in memory takes the device
// that cryptohelper's Init puts there for all there are (v0.31.0), until the sync tells of another change; and one in SQL
// does not learn of those that were added while the bot was down and did not sync on from there. A Megolm session would
// then reach none of them. Devices of other users mautrix asks for by itself.
//
// It takes one request the first time. Where devices have appeared, mautrix begins new Megolm sessions.
func (r Room) learnDevices(ctx context.Context) error {
	if r.knowsDevices.Load() {
		return nil
	}
	if machine, _ := machineOf(r.Client.Crypto); machine != nil {
		err := matrix.Try(ctx, r.Client, func(ctx context.Context) error {
			_, err := machine.FetchKeys(ctx, []id.UserID{r.Client.UserID}, true)
			return err
		})
		if err != nil {
			return err
		}
	}
	r.knowsDevices.Store(true)
	return nil
}
