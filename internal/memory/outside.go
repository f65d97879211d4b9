package memory

import (
	"context"
	"encoding/json"
	"errors"
	"maps"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/seal"
	"github.com/roomkv/roomkv/internal/wire"
)

// maxInline is what a value and its name may take of the state, in bytes, before the value goes to the media repository.
const maxInline = 48 << 10

// Keep takes a value's stored form. If that is too large for an event, Keep uploads the value and gives a reference to the attachment; else it
// gives the form as it is. A reference stays as it is.
func (r Room) Keep(ctx context.Context, name, key string, stored json.RawMessage) (json.RawMessage, error) {
	text, encrypted, err := r.outside(ctx, name, key, stored)
	if err != nil || text == nil {
		return stored, err
	}
	reference, err := r.upload(ctx, media.Of{Name: name, Key: key, Encrypted: encrypted}, text)
	return wire.WithExpiryOf(reference, stored), err
}

// keepAll is Keep for values by key, none of which is uploaded where one is too large.
func (r Room) keepAll(ctx context.Context, stored map[string]json.RawMessage, names []string, keyOf map[string]string) (map[string]json.RawMessage, error) {
	type out struct {
		media.Of
		text json.RawMessage
	}
	var outs []out
	for _, name := range names {
		key := keyOf[name]
		if err := r.CheckLarge(ctx, name, key, stored[key]); err != nil {
			return nil, err
		}
		text, encrypted, err := r.outside(ctx, name, key, stored[key])
		if err != nil {
			return nil, err
		}
		if text != nil {
			outs = append(outs, out{media.Of{Name: name, Key: key, Encrypted: encrypted}, text})
		}
	}
	if len(outs) == 0 {
		return stored, nil
	}
	kept := maps.Clone(stored)
	for _, out := range outs {
		reference, err := r.upload(ctx, out.Of, out.text)
		if err != nil {
			return nil, err
		}
		kept[out.Key] = wire.WithExpiryOf(reference, stored[out.Key])
	}
	return kept, nil
}

// outside gives the text of a value that is too large for an event, nil where it is not, and whether the reference to it
// will be encrypted. Whether it really is, is decided when that is sent.
func (r Room) outside(ctx context.Context, name, key string, stored json.RawMessage) (text json.RawMessage, encrypted bool, err error) {
	const longest = len(`%41`) // one byte of a key becomes up to 3 in an encrypted event, and one of a value up to 2
	nameSize := wire.EntrySize(name, "") + len(key)
	if longest*(nameSize+len(stored)) < seal.MaxShared || nameSize+2*wire.MediaSize > maxInline { // a key as long as that does not fit, whatever the value
		return nil, false, nil
	}
	sealer, err := r.Sealer(ctx, true)
	if err != nil {
		return nil, false, err
	}
	if !r.isLarge(sealer != nil, name, key, stored) {
		return nil, false, nil
	}
	read, err := wire.Decode(stored)
	if err != nil || len(read.JSON) < 2*wire.MediaSize {
		return nil, false, nil // a reference, or nothing would be gained
	}
	return read.JSON, sealer != nil, nil
}

// isLarge tells whether a value is too large for the state or, where it is encrypted, for an event that others can share. Inside
// that it is spelled in another way.
func (r Room) isLarge(encrypted bool, name, key string, stored json.RawMessage) bool {
	if !encrypted {
		return wire.EntrySize(name, "")+len(stored) > maxInline
	}
	if len(stored) > maxInline { // as text of JSON that would be a little less, but for a value so large that does not matter
		return true
	}
	size, err := seal.Size(commit.ValueOf(name, key, string(stored)))
	return err == nil && size > seal.MaxShared
}

// CheckLarge fails where a value that is to be stored is larger than it may be. The homeserver's limit is of those that are uploaded.
func (r Room) CheckLarge(ctx context.Context, name, key string, stored json.RawMessage) error {
	if most := r.MaxValue; most > 0 && int64(len(stored)) > most {
		if read, err := wire.Decode(stored); err == nil && read.JSON != nil {
			return r.media.CheckSize(ctx, r.Room, key, int64(len(read.JSON)))
		}
	}
	text, _, err := r.outside(ctx, name, key, stored)
	if err == nil && text != nil {
		err = r.media.CheckSize(ctx, r.Room, key, int64(len(text)))
	}
	return err
}

// CheckBounds fails where no homeserver takes the value, or not under that key. It makes a request only for a value that is large, and does
// without where that fails.
func (r Room) CheckBounds(ctx context.Context, key string, stored json.RawMessage) error {
	name := r.NameOf(key)
	if len(stored) > maxInline || r.MaxValue > 0 {
		if read, err := wire.Decode(stored); err == nil {
			if err := r.media.CheckSize(ctx, r.Room, key, int64(len(read.JSON))); errors.Is(err, fault.ErrTooLarge) {
				return err
			}
		}
	}
	size := wire.EntrySize(name, "") + min(len(stored), wire.MediaSize)
	return fault.Advise(r.Fits(r.Layout.StateKey(name), len("{}")+size), adviceOneKey)
}

func (r Room) upload(ctx context.Context, of media.Of, text json.RawMessage) (json.RawMessage, error) {
	return r.media.Put(ctx, r.Room, of, text)
}
