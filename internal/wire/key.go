package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/url"
	"strings"
)

// prefix begins every name and state key that is not a user's key as it stands: an escaped key, or a field
// of the store's own, such as roomkv.parents.
const prefix = "roomkv."

// relatesTo is the field that an encrypted event has in the clear, beside the ciphertext. Clients copy it into the content
// when they decrypt the event, so that the homeserver decides what stands there.
const relatesTo = "m.relates_to"

// meaningful are the names to which Synapse gives a meaning in the content of any event. To other values than that takes it
// answers HTTP 400, or HTTP 500 where it fails over them. Of 673 names that Synapse 1.160 and Dendrite 0.15.2 know, with 19 values each,
// no other was refused.
var meaningful = map[string]bool{relatesTo: true, "m.mentions": true, "redacts": true, "org.matrix.labels": true}

// Name is the name that stands for key in a content. It is the key itself but for keys that begin with the
// reserved prefix, hold a character that Dendrite mangles in names (see portable), or are [meaningful]; these are escaped.
func Name(key string) string {
	if strings.HasPrefix(key, prefix) || !plainName(key) || meaningful[key] {
		return escape(key)
	}
	return key
}

// KeyOf is the inverse of Name. It is not ok for names of the store's own.
func KeyOf(name string) (key string, ok bool) {
	escaped, found := strings.CutPrefix(name, prefix)
	if !found {
		return name, true
	}
	if key, err := url.PathUnescape(escaped); err == nil && Name(key) == name {
		return key, true
	}
	return "", false
}

// Inside finds the value of key in the content of an encrypted event: under its name, or under the key itself, as opsdroid
// sends it, which escapes nothing. [relatesTo] is no such key, for that would be to believe the homeserver.
func Inside(content map[string]json.RawMessage, key string) (inside json.RawMessage, found bool) {
	inside, found = content[Name(key)]
	if !found && key != relatesTo && !strings.HasPrefix(key, prefix) {
		inside, found = content[key]
	}
	return inside, found
}

// StateKey is the state key of key's event in the per-key layout. It is the key itself wherever that makes a
// state key, which lets opsdroid and people find it. Escaped are
//   - a leading @, which the specification reserves for the user of that ID,
//   - the empty key, whose state event is the dict of the single-state-key layout,
//   - NUL, which PostgreSQL cannot store, and . and .., which proxies take for folders,
//   - the reserved prefix.
//
// A key too long for a state key is hashed. That loses nothing, for the key stands in the content too.
func StateKey(key string) string {
	stateKey := key
	if key == "" || key == "." || key == ".." || strings.HasPrefix(key, "@") ||
		strings.HasPrefix(key, prefix) || strings.Contains(key, "\x00") {
		stateKey = escape(key)
	}
	if len(stateKey) > MaxStateKey {
		digest := sha256.Sum256([]byte(key))
		return prefix + "%%" + base64.RawURLEncoding.EncodeToString(digest[:]) // %% is in no escaped key
	}
	return stateKey
}

func escape(key string) string {
	var escaped strings.Builder
	escaped.WriteString(prefix)
	for i := range len(key) {
		if c := key[i]; c < ' ' || c == '"' || c == '\\' || c == '%' {
			fmt.Fprintf(&escaped, "%%%02X", c)
		} else {
			escaped.WriteByte(c)
		}
	}
	return escaped.String()
}
