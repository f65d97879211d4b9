package wire

import (
	"encoding/base64"
	"strings"
)

const (
	// sealedPrefix begins the names that stand for keys which the state does not show.
	sealedPrefix = prefix + "sealed."

	// SealName is the name of the field that tells which secret the names were made with. In the per-key layout it is the state key of an
	// event that has the field.
	SealName = prefix + "seal"
)

// sealedText is how a digest is written in a name.
var sealedText = base64.RawURLEncoding.Strict()

// SealedName is the name that stands for a key of which it shows a keyed digest alone. In the per-key layout it is the
// state key too.
func SealedName(digest [32]byte) string { return sealedPrefix + sealedText.EncodeToString(digest[:]) }

// IsSealed tells whether a name, or a state key, can be one that SealedName made.
func IsSealed(name string) bool {
	text, ok := strings.CutPrefix(name, sealedPrefix)
	digest, err := sealedText.DecodeString(text)
	return ok && err == nil && len(digest) == 32 && len(text) == sealedText.EncodedLen(32) // DecodeString skips line breaks
}

// IsOwn tells whether a name stands for no key, plain or sealed: it is the store's own.
func IsOwn(name string) bool {
	_, plain := KeyOf(name)
	return !plain && !IsSealed(name)
}

// StateKeyOf is the state key of the event in the per-key layout that has the name.
func StateKeyOf(name string) string {
	if key, ok := KeyOf(name); ok {
		return StateKey(key)
	}
	return name
}
