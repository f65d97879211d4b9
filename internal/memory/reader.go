package memory

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// Reader reads values of a room. It is a small value; the zero value of until has each read wait for missing keys by itself.
type Reader struct {
	Room
	until    time.Time // when reads no longer wait for missing keys
	keysOnly bool      // whether values in the media repository are left there
}

// Reader reads values of the room.
func (r Room) Reader() Reader { return Reader{Room: r} }

// Together is for several reads that together wait for missing keys no longer than one does.
func (r Reader) Together() Reader {
	r.until = time.Now().Add(r.KeyWait)
	return r
}

// NotWaiting is for reads that do not wait for missing keys.
func (r Reader) NotWaiting() Reader {
	r.until = time.Now()
	return r
}

// KeysOnly is for reads of keys alone: values in the media repository are left there.
func (r Reader) KeysOnly() Reader {
	r.keysOnly = true
	return r
}

// sealed is the room as package seal takes it, which decrypts events.
func (r Reader) sealed() seal.Room {
	return seal.Room{Room: r.Room.Room, Megolm: &r.Megolm, WaitUntil: r.until}
}

// Open decrypts an event that the state refers to; see [seal.Room.Open].
func (r Reader) Open(ctx context.Context, at id.EventID) (*seal.Opened, error) {
	return r.sealed().Open(ctx, at)
}

// Event gets an event; see [seal.Room.Event].
func (r Reader) Event(ctx context.Context, at id.EventID) (*event.Event, error) {
	return r.sealed().Event(ctx, at)
}

// Trusts tells whether an encrypted event comes from a device that the store's options accept.
func (r Reader) Trusts(event *seal.Opened) bool { return r.sealed().Trusts(event) }

// Value is a value with what is known of where it was.
type Value struct {
	Key       string
	JSON      json.RawMessage
	Encrypted bool
	By        id.UserID     // the sender of the encrypted event
	Trust     id.TrustState // of the device that encrypted it
	Expires   int64         // until when it counts, in Unix milliseconds, 0 where that is for ever

	inState bool // whether all of it stands in the state
}

// Value reads what is stored under a name in the event from.
func (r Reader) Value(ctx context.Context, name string, stored json.RawMessage, from id.EventID) (Value, error) {
	read, err := wire.Decode(stored)
	value, err := r.decoded(ctx, name, read, err, from)
	value.Expires = read.Expires
	return value, err
}

// decoded is Value for what was decoded.
func (r Reader) decoded(ctx context.Context, name string, read wire.Value, err error, from id.EventID) (Value, error) {
	key, named := wire.KeyOf(name)
	switch {
	case err != nil:
		return Value{Key: key}, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, key, err)
	case read.Event != "":
		return r.inEvent(ctx, name, read.Event)
	case read.Fields != nil && named:
		return r.fields(ctx, key, read.Fields, from)
	case !named:
		return Value{}, fault.Of(fault.ErrCorrupt, nil, "event %s in %s: what stands under %s is not in an encrypted event", from, r.ID, name)
	}
	if err := r.trustsState(ctx); err != nil {
		return Value{Key: key}, fault.Of(fault.ErrUntrusted, err, "event %s in %s, key %q: the value is not encrypted", from, r.ID, key)
	}
	text, err := r.text(ctx, read, media.Of{Name: name, Key: key, Event: from})
	return Value{Key: key, JSON: text, inState: read.Media == nil}, err
}

// inEvent reads the value that an encrypted event holds for a name. A state event can refer to any event, so nothing about
// that one is taken for granted.
func (r Reader) inEvent(ctx context.Context, name string, from id.EventID) (Value, error) {
	key, _ := wire.KeyOf(name)
	read := Value{Key: key, Encrypted: true}
	event, err := r.sealed().Open(ctx, from)
	if err != nil {
		return read, fmt.Errorf("%w (key %s)", err, describe(key, name))
	}
	read.By, read.Trust = event.Sender, event.Trust
	inside, found := json.RawMessage(nil), false
	if read.Key, inside, found = r.Inside(event, name); !found {
		return read, fault.Of(fault.ErrCorrupt, nil, "event %s in %s is referred to and does not hold the key %s", from, r.ID, describe(read.Key, name))
	}
	if !r.sealed().Trusts(event) {
		return read, fault.Of(fault.ErrUntrusted, nil, "event %s in %s, key %q: %s sent it from a device whose trust is %s, below %s", from, r.ID, read.Key, event.Sender, event.Trust, r.MinTrust)
	}
	content, err := wire.Unseal(inside)
	if err != nil {
		return read, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q: %v", from, r.ID, read.Key, err)
	}
	read.JSON, err = r.text(ctx, content, media.Of{Name: name, Key: read.Key, Event: from, Encrypted: true})
	return read, err
}

// Inside is what an event holds for a name, as it stands there, and for which key, which is known of a plain name in any case.
func (r Room) Inside(event *seal.Opened, name string) (key string, inside json.RawMessage, found bool) {
	if key, named := wire.KeyOf(name); named {
		inside, found = wire.Inside(event.Values, key)
		return key, inside, found
	}
	for inner, text := range event.Values {
		if k, ok := wire.KeyOf(inner); ok && inner == wire.Name(k) && r.NameOf(k) == name {
			key, inside, found = k, text, true
		}
	}
	return key, inside, found
}

func keyOf(name string) string {
	key, _ := wire.KeyOf(name)
	return key
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
func (r Reader) trustsState(ctx context.Context) error {
	if r.MinTrust == nil {
		return nil
	}
	encrypted, err := r.IsEncrypted(ctx, true)
	if err == nil && encrypted {
		err = errors.New("the room is encrypted")
	}
	return err
}

// fields reads a value whose fields are in encrypted events, one or several in each, as opsdroid stored dicts in the per-key
// layout before it encrypted them whole. What is known of the value is what the least trusted event says.
func (r Reader) fields(ctx context.Context, key string, fields map[string]json.RawMessage, from id.EventID) (Value, error) {
	all := Value{Key: key}
	values := make(map[string]json.RawMessage, len(fields))
	for field, stored := range fields {
		read, err := wire.Decode(stored)
		if err != nil || read.Event == "" { // one that was stored before the room was encrypted
			if err := r.trustsState(ctx); err != nil {
				return all, fault.Of(fault.ErrUntrusted, err, "event %s in %s, key %q: a field of the value is not encrypted", from, r.ID, key)
			}
			values[field] = stored
			continue
		}
		inside, err := r.inEvent(ctx, wire.Name(field), read.Event)
		if !all.Encrypted || inside.Trust < all.Trust {
			all.Encrypted, all.By, all.Trust = true, inside.By, inside.Trust
		}
		if err != nil {
			return all, err
		}
		values[field] = inside.JSON
	}
	text, err := json.Marshal(values)
	if err != nil {
		return all, fault.Of(fault.ErrCorrupt, err, "event %s in %s, key %q", from, r.ID, key)
	}
	all.JSON = text
	return all, nil
}

// text is the JSON text of what was read, which may be elsewhere.
func (r Reader) text(ctx context.Context, read wire.Value, of media.Of) (json.RawMessage, error) {
	if read.Media == nil || r.keysOnly {
		return read.JSON, nil
	}
	return r.media.Get(ctx, r.Room.Room, read.Media, of)
}
