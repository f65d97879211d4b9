package seal

import (
	"context"
	"errors"
	"reflect"
	"runtime"
	"runtime/debug"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
)

// fetcher is mautrix's crypto.OlmMachine. That package needs libolm or a build tag and so is not imported.
type fetcher interface {
	FetchKeys(ctx context.Context, users []id.UserID, includeUntracked bool) (map[id.UserID]map[id.DeviceID]*id.Device, error)
}

// machineOf is the machine of a client's encryption, nil where that is not mautrix's cryptohelper, nor made like it. It is not ready
// before the cryptohelper's Init was called: the method Machine says so by a panic, and others panic as they miss it.
func machineOf(crypto mautrix.CryptoHelper) (machine fetcher, ready bool) {
	if machine, ok := crypto.(fetcher); ok {
		return machine, true
	}
	// The result of Machine is of a type that cannot be named here.
	method := reflect.ValueOf(crypto).MethodByName("Machine")
	if !method.IsValid() || method.Type().NumIn() != 0 || method.Type().NumOut() != 1 {
		return nil, true
	}
	defer func() {
		if recover() != nil {
			machine, ready = nil, false
		}
	}()
	machine, _ = method.Call(nil)[0].Interface().(fetcher)
	return machine, true
}

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

// notReady is what a user is told whose client's Crypto is not.
const notReady = "the client's Crypto is not ready; call its Init first"

// encrypt encrypts the content of an event of the store's type. A sync that brings a new member or device can take a session away that
// was just shared, and mautrix shares another one when it is asked again.
func (r Room) encrypt(ctx context.Context, content any) (*event.EncryptedEventContent, error) {
	encrypt := func() (*event.EncryptedEventContent, error) {
		return r.Client.Crypto.Encrypt(ctx, r.ID, ContentType(r.Type), content)
	}
	encrypted, err := guarded(ctx, r.Room, "encrypt", encrypt)
	if err != nil && ctx.Err() == nil && !errors.As(err, new(mautrix.HTTPError)) && !errors.Is(err, errPanicked) {
		encrypted, err = guarded(ctx, r.Room, "encrypt", encrypt)
	}
	return encrypted, err
}

// decryptOnce decrypts an event with what the client has.
func (r Room) decryptOnce(ctx context.Context, evt *event.Event) (*event.Event, error) {
	return guarded(ctx, r.Room, "decrypt event "+evt.ID.String(), func() (*event.Event, error) { return r.Client.Crypto.Decrypt(ctx, evt) })
}

// errPanicked is beneath the error of a panic.
var errPanicked = errors.New("panic")

// guarded calls the client's Crypto and makes an error of its panic: a write goes on in a goroutine where nobody else could recover
// from it, and an event of a homeserver's could cause it. What it panics with can hold a value, and is left out but for Go's own errors.
func guarded[T any](ctx context.Context, r matrix.Room, what string, call func() (T, error)) (result T, err error) {
	defer func() {
		panicked := recover()
		if panicked == nil {
			return
		}
		why := ""
		if own, ok := panicked.(runtime.Error); ok {
			why = ": " + own.Error()
		}
		r.Log(ctx).Error().Stringer("room_id", r.ID).Bytes("stack", debug.Stack()).Msg("The client's Crypto panicked" + why)
		err = fault.Because(errPanicked, "cannot %s in %s: the client's Crypto panicked%s", what, r.ID, why)
	}()
	return call()
}
