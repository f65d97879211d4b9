package memory

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"
	"strings"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

const (
	// fullDict is how large a dict may get before values are moved out of it, in bytes of its content.
	fullDict = wire.MaxEvent - 2500

	// roomyDict is what it is then brought down to by moving values of at least worthMoving bytes, so that the next write does
	// not find it full again.
	roomyDict   = 48 << 10
	worthMoving = 2 << 10

	// roomTries is how often a write makes room, while others fill it.
	roomTries = 5
)

// crowded is beneath the fault.ErrTooLarge of an edit for which values that are there must be moved out first.
type crowded struct{ names []string }

func (*crowded) Error() string { return "the memory is full" }

// inline is a value in a dict that can be moved out of it.
type inline struct {
	name  string
	text  json.RawMessage
	saves int
	fresh bool // whether it is not in the dict yet
}

// inlineOf finds what can be moved in what is stored by name.
func inlineOf(stored map[string]string, fresh bool) (found []inline) {
	for name, text := range stored {
		saves := len(text) - wire.MediaSize
		if _, plain := wire.KeyOf(name); !plain || saves <= 0 {
			continue
		}
		if read, err := wire.Decode(json.RawMessage(text)); err == nil && read.JSON != nil {
			found = append(found, inline{name, read.JSON, saves, fresh})
		}
	}
	return found
}

// choose picks what is moved out of a dict of that size: the largest values first, none where that would not be enough. It
// gives the dict's size without them.
func choose(size int, values []inline) (chosen []inline, after int) {
	slices.SortFunc(values, func(a, b inline) int {
		return cmp.Or(cmp.Compare(b.saves, a.saves), strings.Compare(a.name, b.name))
	})
	after = size
	for _, value := range values {
		if after <= roomyDict || after <= fullDict && value.saves < worthMoving {
			break
		}
		chosen = append(chosen, value)
		after -= value.saves
	}
	if after > fullDict {
		return nil, size
	}
	return chosen, after
}

// Fitting makes an edit move its values out where the dict would get full with them, the largest first. Where larger ones
// are in the dict already it fails with crowded.
//
// In an encrypted room the dict has references alone, but for values that somebody stored in the clear. They stay as they
// are: what this client encrypts, it vouches for.
func (r Room) Fitting(ctx context.Context, edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		changes, err := apply(base)
		if err != nil {
			return nil, err
		}
		changes = r.asBefore(ctx, base, changes)
		grows := growth(base, changes)
		// Without an Attempt nobody but the caller may make an edit again that was sent: it can count.
		if grows <= 0 || base.Size()+grows <= fullDict || edit.Conditional && edit.Attempt == nil && base.Again() {
			return changes, nil
		}
		if sealer, err := r.Sealer(ctx, true); err != nil || sealer != nil {
			return changes, err
		}
		there, own := base.Names(), map[string]string{}
		for name, stored := range changes {
			delete(there, name)
			if _, isValue := edit.Values[name]; isValue && stored != nil {
				own[name] = string(stored)
			}
		}
		chosen, _ := choose(base.Size()+grows, append(inlineOf(own, true), inlineOf(there, false)...))
		var others []string
		for _, value := range chosen {
			if !value.fresh {
				others = append(others, value.name)
			}
		}
		if len(others) > 0 {
			return nil, fault.Of(fault.ErrTooLarge, &crowded{others}, "the memory in %s is full, and gets full again as fast as its large values are moved out", r.ID)
		}
		for _, value := range chosen {
			if changes[value.name], err = r.upload(ctx, media.Of{Name: value.name, Key: edit.Values[value.name]}, value.text); err != nil {
				return nil, err
			}
		}
		return changes, nil
	}
	return edit
}

// asBefore is a copy of changes in which values that were moved out, and that have not changed, are as they are.
func (r Room) asBefore(ctx context.Context, base commit.Base, changes map[string]json.RawMessage) map[string]json.RawMessage {
	as := maps.Clone(changes)
	for name, stored := range changes {
		old, _ := base.Stored(name)
		if before, err := wire.Decode(old); err != nil || before.Media == nil || stored == nil {
			continue
		}
		if now, err := wire.Decode(stored); err == nil && now.JSON != nil {
			if r.media.Holds(ctx, r.Room, media.Of{Name: name}, now.JSON, old) {
				as[name] = old
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

// makeRoom is the edit that moves the values under the names out of the dict, or without names those that are in the way of a
// merge. It notes how many those are. It is conditional: a value that somebody writes at the same time is not replaced by
// what was there before.
func (r Room) makeRoom(ctx context.Context, names []string, moved *int) commit.Edit {
	return commit.Edit{Conditional: true, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
		*moved = 0
		if sealer, err := r.Sealer(ctx, true); err != nil || sealer != nil {
			return nil, err
		}
		chosen := inlineOf(base.Names(), false)
		if names != nil {
			chosen = slices.DeleteFunc(chosen, func(value inline) bool { return !slices.Contains(names, value.name) })
		} else {
			chosen, _ = choose(base.Size(), chosen)
		}
		changes := make(map[string]json.RawMessage, len(chosen))
		for _, value := range chosen {
			key, _ := wire.KeyOf(value.name)
			stored, err := r.upload(ctx, media.Of{Name: value.name, Key: key}, value.text)
			if err != nil {
				return nil, err
			}
			changes[value.name] = stored
		}
		*moved = len(chosen)
		return changes, nil
	}}
}
