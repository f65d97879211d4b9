package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// roomyDict is how large a dict may get, in bytes of its content, before new values of at least worthMoving bytes go to the media
	// repository. What is above that stays for small values.
	roomyDict   = 48 << 10
	worthMoving = 2 << 10

	// fullDict is how large a dict may get before any new value goes there that gets smaller so.
	fullDict = wire.MaxEvent - 2500
)

// Fitting makes an edit bring its new values to the media repository where the dict gets full with them, the largest first.
//
// In an encrypted room the dict has references alone, but for values that somebody stored in the clear. They are not moved: they would be encrypted then, and this
// client would seem to vouch for them.
func (r Room) Fitting(ctx context.Context, edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		changes, err := apply(base)
		if err != nil {
			return nil, err
		}
		changes = r.asBefore(ctx, base, changes)
		grows := growth(base, changes)
		if grows <= 0 || base.Size()+grows <= roomyDict {
			return changes, nil
		}
		if sealer, err := r.Sealer(ctx, true); err != nil || sealer != nil {
			return changes, err
		}
		for _, value := range moved(base.Size()+grows, changes, edit.Values) {
			reference, err := r.upload(ctx, media.Of{Name: value.name, Key: edit.Values[value.name]}, value.text)
			if err != nil {
				return nil, err
			}
			changes[value.name] = wire.WithExpiryOf(reference, changes[value.name])
		}
		return changes, nil
	}
	return edit
}

// inline is a value that can go to the media repository.
type inline struct {
	name  string
	text  json.RawMessage
	saves int // bytes
}

// moved are those of the new values that go to the media repository where the dict would have that size with all of them: the largest first.
func moved(size int, changes map[string]json.RawMessage, isNew map[string]string) []inline {
	var values []inline
	for name, stored := range changes {
		saves := len(stored) - wire.MediaSize
		if _, ok := isNew[name]; !ok || saves <= 0 {
			continue
		}
		if read, err := wire.Decode(stored); err == nil && read.JSON != nil {
			values = append(values, inline{name, read.JSON, saves})
		}
	}
	slices.SortFunc(values, func(a, b inline) int {
		return cmp.Or(cmp.Compare(b.saves, a.saves), strings.Compare(a.name, b.name))
	})
	for i, value := range values {
		if size <= roomyDict || size <= fullDict && value.saves < worthMoving {
			return values[:i]
		}
		size -= value.saves
	}
	if size > fullDict { // moving all of them would not be enough
		return nil
	}
	return values
}

// asBefore is a copy of changes in which values that are in the media repository, and that have not changed, are as they are.
func (r Room) asBefore(ctx context.Context, base commit.Base, changes map[string]json.RawMessage) map[string]json.RawMessage {
	as := maps.Clone(changes)
	for name, stored := range changes {
		old, _ := base.Stored(name)
		if before, err := wire.Decode(old); err != nil || before.Media == nil || stored == nil {
			continue
		}
		if now, err := wire.Decode(stored); err == nil && now.JSON != nil {
			if _, reference := wire.Expiry(string(old)); r.media.Holds(ctx, r.Room, media.Of{Name: name}, now.JSON, json.RawMessage(reference)) {
				as[name] = wire.WithExpiryOf(old, stored)
			}
		}
	}
	return as
}

// growth is what changes add to the dict, in bytes.
func growth(base commit.Base, changes map[string]json.RawMessage) (grows int) {
	for name, stored := range changes {
		if old, there := base.Stored(name); there {
			grows -= wire.EntrySize(name, string(old))
		}
		if stored != nil {
			grows += wire.EntrySize(name, string(stored))
		}
	}
	return grows
}
