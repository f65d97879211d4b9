package roomkv

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// value is a value with what is known of where it was.
type value struct {
	key       string
	json      json.RawMessage
	encrypted bool
	sender    id.UserID     // of the encrypted event
	trust     id.TrustState // of the device that encrypted it
}

// value reads what is stored under a name in the event from.
func (r roomState) value(ctx context.Context, name string, stored json.RawMessage, from id.EventID) (value, error) {
	key, named := wire.KeyOf(name)
	read, err := wire.Decode(stored)
	switch {
	case err != nil:
		return value{key: key}, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, key, err)
	case read.Event != "":
		return r.sealed(ctx, name, read.Event)
	case read.Fields != nil && named:
		return r.fields(ctx, key, read.Fields, from)
	case !named:
		return value{}, fault.Of(ErrCorrupt, nil, "event %s in %s: what stands under %s is not in an encrypted event", from, r.ID, name)
	}
	if err := r.trustsState(ctx); err != nil {
		return value{key: key}, fault.Of(ErrUntrusted, err, "event %s in %s, key %q: the value is not encrypted", from, r.ID, key)
	}
	text, err := r.text(ctx, read, media.Of{Name: name, Key: key, Event: from})
	return value{key: key, json: text}, err
}

// sealed reads the value that an encrypted event holds for a name. A state event can refer to any event, so nothing about
// that one is taken for granted.
func (r roomState) sealed(ctx context.Context, name string, from id.EventID) (value, error) {
	key, _ := wire.KeyOf(name)
	read := value{key: key, encrypted: true}
	event, err := r.megolm().Open(ctx, from)
	if err != nil {
		return read, fmt.Errorf("%w (key %s)", err, describe(key, name))
	}
	read.sender, read.trust = event.Sender, event.Trust
	inside, found := json.RawMessage(nil), false
	if read.key, inside, found = r.inside(event, name); !found {
		return read, fault.Of(ErrCorrupt, nil, "event %s in %s is referred to and does not hold the key %s", from, r.ID, describe(read.key, name))
	}
	if !r.megolm().Trusts(event) {
		return read, fault.Of(ErrUntrusted, nil, "event %s in %s, key %q: %s sent it from a device whose trust is %s, below %s", from, r.ID, read.key, event.Sender, event.Trust, r.core.minTrust)
	}
	content, err := wire.Unseal(inside)
	if err != nil {
		return read, fault.Of(ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, read.key, err)
	}
	read.json, err = r.text(ctx, content, media.Of{Name: name, Key: read.key, Event: from, Encrypted: true})
	return read, err
}

// inside is what an event holds for a name, as it stands there, and for which key, which is known of a plain name in any case.
func (r roomState) inside(event *seal.Opened, name string) (key string, inside json.RawMessage, found bool) {
	if key, named := wire.KeyOf(name); named {
		inside, found = wire.Inside(event.Values, key)
		return key, inside, found
	}
	for inner, text := range event.Values {
		if k, ok := wire.KeyOf(inner); ok && inner == wire.Name(k) && r.name(k) == name {
			key, inside, found = k, text, true
		}
	}
	return key, inside, found
}

// describe names a key in an error, by what stands for it where that is all there is.
func describe(key, name string) string {
	if _, named := wire.KeyOf(name); !named && key == "" {
		return "of " + name
	}
	return fmt.Sprintf("%q", key)
}

// trustsState fails where values must come from a trusted device and so must not stand in the state, which anybody with
// the power to send it can write.
func (r roomState) trustsState(ctx context.Context) error {
	if r.core.minTrust == nil {
		return nil
	}
	encrypted, err := r.isEncrypted(ctx, true)
	if err == nil && encrypted {
		err = errors.New("the room is encrypted")
	}
	return err
}
