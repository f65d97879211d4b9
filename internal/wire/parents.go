package wire

import (
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"slices"

	"maunium.net/go/mautrix/id"
)

// parentsName is the field of a content that names the events which its writer had merged.
const parentsName = prefix + "parents"

// Parents is what a content says of the events before it. opsdroid copies the field into what it writes next, where
// it is stale: only the digest of the keys and values beside it tells.
type Parents struct {
	// Events are the heads that the writer had merged. There are none where it had read that nothing was there. The field is missing where
	// it had read nothing: the event then replaces whatever was there.
	Events []id.EventID `json:"events,omitzero"`

	// Yields are changes that did not count in the merge, where it had to choose between conditional ones: by event, the
	// names. An event without names is an atomic one, of which nothing counts.
	Yields map[id.EventID][]string `json:"yields,omitempty"`

	// By differs in each write, so that two writers who write the same make two events. Without it the
	// homeserver would acknowledge the second and keep the first, and both would believe that they had been alone. It also tells
	// a request that was delivered twice: the second event has the By and the digest of the first, and changes nothing.
	By string `json:"by,omitempty"`

	// Conditional: the values were computed from those before. Between two such writes of one key the first
	// counts, and the other's writer computes again.
	Conditional bool `json:"conditional,omitempty"`

	// Atomic: what the writer changed counts as a whole or not at all. It is Conditional too.
	Atomic *Atomic `json:"atomic,omitempty"`

	// Swept are names whose values had expired, and that the writer took away beside what it changed. Such a change is Conditional in any case, so
	// that it takes nobody's value away.
	Swept []string `json:"swept,omitempty"`

	Digest string `json:"digest"`
}

// Atomic is what the writer of an atomic change has read beside the names that it changed: a change of those stored before, which it had
// not seen, makes it compute again.
type Atomic struct {
	Reads []string `json:"reads,omitempty"`
	All   bool     `json:"all,omitempty"` // all names
}

// parseParents reads the field of a content with the given digest. Text is the field, as canonical JSON. Parents is nil where another than the
// writer of the content wrote the field, or wrote it for another content.
func parseParents(text, digest string) (parents *Parents, _ string) {
	if json.Unmarshal([]byte(text), &parents) != nil || parents == nil || parents.Digest != digest || len(parents.Events) > maxParents ||
		len(parents.Yields) > maxParents || slices.Contains(parents.Events, "") {
		return nil, text
	}
	return parents, text
}

// digestOf is a digest of names and what stands behind them, as canonical JSON in two parts, of 128 bits: it must not repeat by accident,
// and whoever wants to fool it may write the state anyway.
func digestOf(parts ...[]byte) string {
	hash := sha256.New()
	for _, part := range parts {
		_, _ = hash.Write(part) // which never fails
	}
	return base64.RawURLEncoding.EncodeToString(hash.Sum(nil)[:16])
}
