package roomkv

import (
	"cmp"
	"context"
	"encoding/json"
	"maps"
	"slices"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/media"
	"github.com/roomkv/roomkv/internal/wire"
)

// EncryptAll encrypts the values that stand in the state of an encrypted room in the clear, because they were stored before
// it was encrypted, by a store without encryption, or by opsdroid. With [WithSealedKeys] it also seals keys that were stored
// without. It returns how many keys it has changed, and can be called again where it failed halfway. A value that cannot be
// read, or is too large, is left as it is, and its error returned when all others are done.
//
// A large value is uploaded again with another key, for the state has shown the first.
//
// What was in the clear stays in the history of the room's state, where the homeserver and the members can read it.
//
// It takes the requests of [Store.Keys], one to read each value whose key it seals that was not read before, and those of
// [Store.PutAll]; in the per-key layout each key that is sealed takes those of [Store.Delete] too. Writes of others in between
// are kept. But while keys are sealed no store without the secret may write: what it does to a key that has been read and
// not yet moved is lost.
//
// Errors: those of [Store.All] and [Store.PutAll]; [ErrNoCrypto] also where the room is not encrypted.
func (s *Store) EncryptAll(ctx context.Context) (changed int, err error) {
	err = s.write(ctx, nil, func(state roomState) error {
		var err error
		changed, err = state.encryptAll(ctx)
		return err
	})
	return changed, err
}

func (r roomState) encryptAll(ctx context.Context) (changed int, err error) {
	sealer, err := place{roomState: r}.Sealer(ctx, false)
	if err == nil && sealer == nil {
		err = fault.Of(ErrNoCrypto, nil, "%s is not encrypted, or the store was made with WithEncryption(false)", r.ID)
	}
	if err != nil {
		return 0, err
	}
	records, err := r.readAll(ctx)
	if err != nil {
		return 0, err
	}
	var left error             // why a value is left as it is
	moves := map[string]move{} // by the name that each has now
	for _, found := range records {
		m, needed, err := r.move(ctx, found)
		left = cmp.Or(left, err)
		if needed && err == nil {
			err = sealer.Check(commit.Value{Name: m.to, Key: m.key, Stored: string(m.stored)})
			left = cmp.Or(left, err)
		}
		if needed && err == nil {
			moves[found.name] = m
		}
	}
	if r.core.layout.oneKey() {
		for _, name := range slices.Sorted(maps.Keys(moves)) {
			if err := r.encryptOne(ctx, name, moves[name]); err != nil {
				return changed, err
			}
			changed++
		}
		return changed, left
	}
	values := map[string]string{}
	for _, m := range moves {
		values[m.to] = m.key
	}
	err = r.commit(ctx, slices.Collect(maps.Keys(values)), func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Values: values, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changed = 0
			changes := map[string]json.RawMessage{}
			for name, m := range moves {
				if now, there := base.Stored(name); there && string(now) == m.from {
					maps.Copy(changes, m.changes(base, name))
					changed++
				}
			}
			return changes, nil
		}}
	})
	if err != nil {
		return 0, err
	}
	return changed, left
}

// move is a value that is to be encrypted, and stored under another name where that is sealed.
type move struct {
	key    string
	from   string // what is stored, as it was read
	to     string // the name
	stored json.RawMessage
}

// move is not needed for what is as it would be stored today.
func (r roomState) move(ctx context.Context, found record) (m move, needed bool, err error) {
	if found.err != nil {
		return move{}, false, found.err
	}
	key, plain := wire.KeyOf(found.name)
	if !plain {
		return move{}, false, nil
	}
	m = move{key: key, from: string(found.stored), to: r.name(key), stored: found.stored}
	read, err := wire.Decode(found.stored)
	switch {
	case err != nil || read.Event != "" && m.to == found.name:
		return m, false, err
	case read.Event != "" || read.Fields != nil:
		var opened value
		opened, err = r.value(ctx, found.name, found.stored, found.event)
		read.JSON = opened.json
	default: // the state shows the keys to an attachment, so that it takes another
		read.JSON, err = r.text(ctx, read, media.Of{Name: found.name, Key: key, Event: found.event})
	}
	if err == nil {
		m.stored, err = wire.Encode(read.JSON)
	}
	if err == nil {
		m.stored, err = r.keep(ctx, m.to, key, m.stored)
	}
	return m, true, err
}

// changes moves the value. One that is under the new name already is later.
func (m move) changes(base commit.Base, name string) map[string]json.RawMessage {
	if m.to == name {
		return map[string]json.RawMessage{name: m.stored}
	}
	changes := map[string]json.RawMessage{name: nil}
	if _, there := base.Stored(m.to); !there {
		changes[m.to] = m.stored
	}
	return changes
}

// encryptOne moves a value in the per-key layout, from one event to another where its name changes. The new one comes
// first: if the second write fails, the value is there twice, and the next EncryptAll removes the old one.
func (r roomState) encryptOne(ctx context.Context, name string, m move) error {
	err := r.commit(ctx, []string{m.to}, func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Values: map[string]string{m.to: m.key}, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			now, there := base.Stored(m.to)
			if m.to == name && string(now) != m.from || m.to != name && there {
				return nil, nil // somebody has written or deleted it since
			}
			return map[string]json.RawMessage{m.to: m.stored}, nil
		}}
	})
	if err != nil || m.to == name {
		return err
	}
	return r.commit(ctx, []string{name}, func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{name: nil}, nil
		}}
	})
}
