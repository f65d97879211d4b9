// Package dump is the file format of an exported memory: JSON Lines, a header, a line for each entry and a closing line, which
// counts the lines before it and has a SHA-256 of their bytes. So a file that was cut, or in which a bit has changed, is never
// taken for a whole one.
//
// Everything here is pure: readers and writers in and out, and no panic on any input.
package dump

import (
	"encoding/json"
	"errors"
	"fmt"
	"time"
)

// Format and Version are in every header. A reader refuses other versions.
const (
	Format  = "roomkv"
	Version = 1
)

// ErrDamaged is in every error about a file that is not, byte for byte, what a [Writer] has closed.
var ErrDamaged = errors.New("damaged")

// Header is the first line: what was exported, and when.
type Header struct {
	Format    string    `json:"format"`
	Version   int       `json:"version"`
	Room      string    `json:"room"`
	EventType string    `json:"event_type"`
	History   bool      `json:"history"` // whether there are lines of the past
	Time      time.Time `json:"time"`
}

// Line is an entry, or a revision of one.
type Line struct {
	Key  string `json:"key"`
	Past bool   `json:"past,omitempty"` // a revision, not what is there now

	// Value is the value; nil where Absent says why there is none.
	Value  json.RawMessage `json:"value,omitempty"`
	Absent Reason          `json:"absent,omitempty"`

	Revision    string    `json:"revision"`
	Sender      string    `json:"sender"`
	Time        time.Time `json:"time"`
	Encrypted   bool      `json:"encrypted,omitempty"`
	EncryptedBy string    `json:"encrypted_by,omitempty"`
	Trust       string    `json:"trust,omitempty"`

	// Expires is until when the value counts, by the homeserver's clock, the zero time where that is for ever.
	Expires time.Time `json:"expires,omitzero"`
}

// Until is Expires in Unix milliseconds, and 0 where that is for ever.
func (l Line) Until() int64 {
	if l.Expires.IsZero() {
		return 0
	}
	return max(1, l.Expires.UnixMilli())
}

// Reason tells why a line has no value.
type Reason string

// The reasons.
const (
	Deleted    Reason = "deleted"    // a revision that removed the key
	Redacted   Reason = "redacted"   // the value is gone for all
	Unreadable Reason = "unreadable" // the exporting store could not read it
)

// nested is a line whose value is given as its text: one that nests as deep as JSON is read at all nests too deep inside a line.
type nested struct {
	Line
	Text string `json:"value_text"`
}

// valid tells whether the line says what one can say.
func (l Line) valid() bool {
	switch l.Absent {
	case "":
		return l.Value != nil
	case Deleted:
		return l.Value == nil && l.Past
	case Redacted, Unreadable:
		return l.Value == nil
	default:
		return false
	}
}

// closing is the last line, after so many entries, with the hash of all that is before it.
func closing(lines int, hash []byte) string {
	return fmt.Sprintf("{\"lines\":%d,\"sha256\":\"%x\"}\n", lines, hash)
}
