package memory

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/json"

	"github.com/roomkv/roomkv/internal/fault"
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
	return wire.SealedName(r.Layout.Digest(key, r.keyed))
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
