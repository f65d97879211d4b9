package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"strconv"
	"strings"
)

// expiresName is the field of a content that tells of some of its names until when what is stored there counts. It stands beside the values, so that
// opsdroid reads these as it reads all others.
const expiresName = prefix + "expires"

// expiry is what the field says of a name. opsdroid copies the field into what it writes next, and only the digest of the value tells that another
// value has taken the place of the one that was to expire.
type expiry struct {
	At int64  `json:"at"` // Unix milliseconds, by the homeserver's clock
	Of string `json:"of"` // see expiryDigest
}

// expiryMark begins what is stored for a time alone; no JSON text begins so.
const expiryMark = '@'

// Expiring is a stored value that counts until a time, in Unix milliseconds. A dict holds it as one text, so that a value and its time change and
// merge as one. It is the value alone where the time is 0. A time that the value had before is replaced.
func Expiring(stored string, at int64) string {
	_, value := Expiry(stored)
	if at == 0 {
		return value
	}
	return string(expiryMark) + strconv.FormatInt(at, 10) + " " + value
}

// Until is the time of a stored value, 0 where there is none.
func Until(stored json.RawMessage) int64 {
	if !expires(stored) {
		return 0
	}
	at, _ := Expiry(string(stored))
	return at
}

// Expiry takes apart what [Expiring] put together. The time is 0 where there is none.
func Expiry(stored string) (at int64, value string) {
	if stored == "" || stored[0] != expiryMark {
		return 0, stored
	}
	text, value, found := strings.Cut(stored[1:], " ")
	at, err := strconv.ParseInt(text, 10, 64)
	if !found || err != nil {
		return 0, stored
	}
	return at, value
}

// WithExpiry is Expiring without a copy where nothing changes, for values can be large.
func WithExpiry(stored json.RawMessage, at int64) json.RawMessage {
	if at == 0 && !expires(stored) {
		return stored
	}
	return json.RawMessage(Expiring(string(stored), at))
}

// WithExpiryOf is a stored value with the time of another one.
func WithExpiryOf(stored, other json.RawMessage) json.RawMessage {
	if !expires(other) {
		return WithExpiry(stored, 0)
	}
	at, _ := Expiry(string(other))
	return WithExpiry(stored, at)
}

func expires(stored json.RawMessage) bool { return len(stored) > 0 && stored[0] == expiryMark }

// expire puts the times of the field to the values that they are of.
func (d *Dict) expire(field string) {
	var expires map[string]json.RawMessage
	if field == "" || json.Unmarshal([]byte(field), &expires) != nil {
		return
	}
	for name, text := range expires {
		var e expiry
		if json.Unmarshal(text, &e) != nil {
			continue
		}
		if stored, there := d.Names[name]; there && !IsOwn(name) && e.At > 0 && e.At <= MaxTime && e.Of == expiryDigest(stored) {
			d.Names[name] = Expiring(stored, e.At)
		}
	}
}

// apart are the names as a content has them: what is stored, and the field with the times of that.
func apart(names map[string]string) map[string]string {
	var expires map[string]expiry
	var plain map[string]string
	for name, stored := range names {
		at, value := Expiry(stored)
		if at == 0 {
			continue
		}
		if expires == nil {
			expires, plain = map[string]expiry{}, make(map[string]string, len(names)+1)
			for name, stored := range names {
				plain[name] = stored
			}
		}
		expires[name], plain[name] = expiry{at, expiryDigest(value)}, value
	}
	if expires == nil {
		return names
	}
	plain[expiresName] = string(canonical(marshal(expires)))
	return plain
}

// expiryDigest is a digest of a stored value, of 48 bits: it tells whether somebody who knows no times has stored another value.
func expiryDigest(stored string) string {
	hash := sha256.Sum256([]byte(stored))
	return base64.RawURLEncoding.EncodeToString(hash[:6])
}

// expirySize is what a time takes of a content beside its name, in bytes.
const expirySize = len(`"":{"at":1700000000000,"of":"AAAAAAAA"},`)
