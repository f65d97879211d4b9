package memory

import (
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// MinSecret is how short the secret of a store with sealed keys may be, in bytes. Whoever sees the state can try secrets and
// keys as fast as a hash goes.
const MinSecret = 16

// NameOf is what stands for the key in the room's state: with a secret a keyed hash, which differs from room to room and
// between event types, else the key itself.
func (r Room) NameOf(key string) string {
	if r.Secret == nil {
		return wire.Name(key)
	}
	return wire.SealedName(r.keyed("key", key))
}

// NamesOf are the names of keys, and which key each stands for.
func (r Room) NamesOf(keys []string) (names []string, keyOf map[string]string) {
	keyOf = make(map[string]string, len(keys))
	for _, key := range keys {
		name := r.NameOf(key)
		if _, ok := keyOf[name]; !ok {
			names = append(names, name)
		}
		keyOf[name] = key
	}
	return names, keyOf
}

// Seal tells one secret from another, and gives nothing away of it. It is as the state holds it.
func (r Room) Seal() json.RawMessage {
	digest := r.keyed("seal", "")
	text, err := json.Marshal(base64.RawURLEncoding.EncodeToString(digest[:16]))
	if err != nil {
		panic(err) // a string always encodes
	}
	return text
}

// keyed is a hash of the text with the secret, for this room and event type and one purpose. Lengths keep the parts apart.
func (r Room) keyed(purpose, text string) (digest [sha256.Size]byte) {
	hash := hmac.New(sha256.New, r.Secret)
	for _, part := range []string{"roomkv", purpose, r.ID.String(), r.Type.Type, text} {
		var length [8]byte
		binary.BigEndian.PutUint64(length[:], uint64(len(part)))
		hash.Write(length[:])
		hash.Write([]byte(part))
	}
	hash.Sum(digest[:0])
	return digest
}

// CheckSeal fails with fault.ErrWrongSecret where the dict's names were made with another secret than the store's.
func (r Room) CheckSeal(seal string, sealed bool) error {
	switch {
	case !sealed || r.Secret != nil && seal == string(r.Seal()):
		return nil
	case r.Secret == nil:
		return fault.Of(fault.ErrWrongSecret, nil, "the keys in %s are sealed, which takes WithSealedKeys", r.ID)
	default:
		return fault.Of(fault.ErrWrongSecret, nil, "the keys in %s are sealed with another secret", r.ID)
	}
}

// CheckNames is CheckSeal for a dict in the single-state-key layout.
func (r Room) CheckNames(names map[string]string) error {
	seal, sealed := names[wire.SealName]
	return r.CheckSeal(seal, sealed)
}

// Sealing makes an edit fail in a dict that was sealed with another secret, and seal one that is not sealed when it first
// stores something there.
func (r Room) Sealing(edit commit.Edit) commit.Edit {
	apply := edit.Apply
	edit.Apply = func(base commit.Base) (map[string]json.RawMessage, error) {
		seal, sealed := base.Stored(wire.SealName)
		if err := r.CheckSeal(string(seal), sealed); err != nil {
			return nil, err
		}
		changes, err := apply(base)
		if r.Secret == nil || err != nil || sealed {
			return changes, err
		}
		with := map[string]json.RawMessage{}
		stores := false
		for name, stored := range changes {
			with[name] = stored
			stores = stores || stored != nil
		}
		if stores {
			with[wire.SealName] = r.Seal()
		}
		return with, nil
	}
	return edit
}

// EnsureSeal is CheckSeal for the per-key layout, where a state event of its own has the seal. The seal is asked for until it is there. With
// writing it is stored before the first value is.
func (r Room) EnsureSeal(ctx context.Context, writing bool) error {
	if r.Layout.Together("") || r.Secret == nil && !writing {
		return nil
	}
	if _, checked := r.seals.Load(r.ID); checked {
		return nil
	}
	if writing {
		sealer, err := r.Sealer(ctx, true)
		if err != nil || sealer == nil { // only where values are encrypted can keys be sealed
			return err
		}
	}
	unlock, err := commit.Lock(ctx, r.Address(wire.SealName))
	if err != nil {
		return err
	}
	defer unlock()
	evt, err := r.Get(ctx, wire.SealName)
	if err != nil {
		return err
	}
	sealed := false
	if evt != nil {
		if sealed, err = r.CheckSealEvent(evt); err != nil {
			return err
		}
	}
	if !sealed && writing && r.Secret != nil {
		if err := r.PutSeal(ctx, wire.Dict{Names: map[string]string{wire.SealName: string(r.Seal())}}); err != nil {
			return err
		}
		sealed = true
	}
	if sealed || writing { // else somebody else can yet seal it
		r.seals.Store(r.ID, true)
	}
	return nil
}

// PutSeal stores the seal of the per-key layout. It is noted as written, so that a listing that does not have it yet asks for it by itself.
func (r Room) PutSeal(ctx context.Context, dict wire.Dict) error {
	sent, _, err := r.PutState(ctx, r.Type, wire.SealName, dict.Content())
	if err == nil {
		commit.ThisProcess.Written.Add(r.Address(wire.SealName), sent)
	}
	return err
}

// CheckSealEvent tells whether the event has a seal, and fails where that is another secret's.
func (r Room) CheckSealEvent(evt *matrix.Event) (sealed bool, err error) {
	dict, err := wire.ParseDict(evt.Content)
	if err != nil {
		return false, fault.Of(fault.ErrCorrupt, err, "event %s, state %q in %s: %v", evt.ID, *evt.StateKey, r.ID, err)
	}
	seal, sealed := dict.Names[wire.SealName]
	return sealed, r.CheckSeal(seal, sealed)
}
