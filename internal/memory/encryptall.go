package memory

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

// EncryptAll encrypts the values of a listing that stand in the state in the clear, and seals keys that are not sealed. It gives how many keys it has
// changed. What has expired there it removes, in the event of what it encrypts, and does not count. A value that cannot be read, or is too large,
// stays as it is, and its error is returned when all others are done.
func (h Handle) EncryptAll(ctx context.Context, list Listing) (changed int, err error) {
	sealer, err := h.Sealer(ctx, false)
	if err == nil && sealer == nil {
		err = fault.Of(fault.ErrNoCrypto, nil, "%s is not encrypted, or the store was made with WithEncryption(false)", h.ID)
	}
	if err != nil {
		return 0, err
	}
	records, err := h.Memory.All(ctx) // also what has expired
	if err != nil {
		return 0, err
	}
	var left error                  // why a value is left as it is
	moves := map[string]move{}      // by the name that each has now
	within := map[string][]string{} // by state key: what stays in its event, or has expired there
	for _, found := range records {
		if key, plain := wire.KeyOf(found.Name); plain && found.Err == nil && !list.Holds(key) {
			continue
		}
		over, err := h.Expired(ctx, found.Until())
		if err != nil {
			return 0, err
		}
		if over {
			if stateKey := h.Layout.StateKey(found.Name); h.inClear(found) {
				within[stateKey] = append(within[stateKey], found.Name)
			}
			continue
		}
		m, needed, err := h.move(ctx, found)
		left = cmp.Or(left, err)
		if needed && err == nil {
			err = sealer.Check(commit.ValueOf(m.to, m.key, string(m.stored)))
			left = cmp.Or(left, err)
		}
		if needed && err == nil {
			moves[found.Name] = m
		}
	}
	var elsewhere []string
	for _, name := range slices.Sorted(maps.Keys(moves)) {
		if stateKey := h.Layout.StateKey(name); h.Layout.StateKey(moves[name].to) == stateKey {
			within[stateKey] = append(within[stateKey], name)
		} else {
			elsewhere = append(elsewhere, name)
		}
	}
	for _, stateKey := range slices.Sorted(maps.Keys(within)) { // first, for any other write sweeps what has expired
		n, err := h.encryptWithin(ctx, within[stateKey], moves)
		if err != nil {
			return changed, err
		}
		changed += n
	}
	for _, name := range elsewhere {
		if err := h.encryptElsewhere(ctx, name, moves[name]); err != nil {
			return changed, err
		}
		changed++
	}
	return changed, left
}

// inClear tells whether a name stands in the clear, or the value behind it.
func (h Handle) inClear(found Record) bool {
	key, plain := wire.KeyOf(found.Name)
	if !plain {
		return false
	}
	read, err := wire.Decode(found.Stored)
	return h.NameOf(key) != found.Name || err != nil || read.Event == ""
}

// encryptWithin moves values that stay in their event, which is the same, and removes what has expired there. That is removed as a change of its own, for
// the field with the parents would show the names of what is swept.
func (h Handle) encryptWithin(ctx context.Context, names []string, moves map[string]move) (changed int, err error) {
	values := map[string]string{}
	to := make([]string, len(names))
	for i, name := range names {
		to[i] = name
		if m, moves := moves[name]; moves {
			to[i], values[m.to] = m.to, m.key
		}
	}
	err = h.Commit(ctx, Change{Names: to, Edit: func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Sweeps: true, Values: values, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			changed = 0
			changes := map[string]json.RawMessage{}
			for _, name := range names {
				m, moves := moves[name]
				switch now, there := base.Stored(name); {
				case !there: // or removed by somebody else
					changes[name] = nil
				case moves && string(now) == m.from:
					maps.Copy(changes, m.changes(base, name))
					changed++
				}
			}
			return changes, nil
		}}
	}})
	return changed, err
}

// move is a value that is to be encrypted, and stored under another name where that is sealed.
type move struct {
	key    string
	from   string // what is stored, as it was read
	to     string // the name
	stored json.RawMessage
}

// move says how a value is moved. It is not needed where the value is encrypted, and its name sealed, already.
func (h Handle) move(ctx context.Context, found Record) (m move, needed bool, err error) {
	if found.Err != nil {
		return move{}, false, found.Err
	}
	key, plain := wire.KeyOf(found.Name)
	if !plain {
		return move{}, false, nil
	}
	m = move{key: key, from: string(found.Stored), to: h.NameOf(key), stored: found.Stored}
	read, err := wire.Decode(found.Stored)
	switch {
	case err != nil || read.Event != "" && m.to == found.Name:
		return m, false, err
	case read.Event != "" || read.Fields != nil:
		var opened Value
		opened, err = h.Reader().Value(ctx, found.Name, found.Stored, found.Event)
		read.JSON = opened.JSON
	default: // the state has shown the attachment's key, so the value is uploaded again
		read.JSON, err = h.Reader().text(ctx, read, media.Of{Name: found.Name, Key: key, Event: found.Event})
	}
	if err == nil {
		m.stored, err = wire.Encode(read.JSON)
		m.stored = wire.WithExpiryOf(m.stored, found.Stored)
	}
	if err == nil {
		m.stored, err = h.Keep(ctx, m.to, key, m.stored)
	}
	return m, true, err
}

// changes moves the value. A value that is under the new name already was written later, and stays.
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

// encryptElsewhere moves a value from one event to another. The new one comes first: if the second write fails, the value is there twice, and the
// next EncryptAll removes the old one.
func (h Handle) encryptElsewhere(ctx context.Context, name string, m move) error {
	err := h.Commit(ctx, Change{Names: []string{m.to}, Edit: func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Values: map[string]string{m.to: m.key}, Apply: func(base commit.Base) (map[string]json.RawMessage, error) {
			if _, there := base.Stored(m.to); there { // somebody has written it since
				return nil, nil
			}
			return map[string]json.RawMessage{m.to: m.stored}, nil
		}}
	}})
	if err != nil {
		return err
	}
	return h.Commit(ctx, Change{Names: []string{name}, Edit: func([]string) commit.Edit {
		return commit.Edit{Conditional: true, Sweeps: true, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{name: nil}, nil
		}}
	}})
}
