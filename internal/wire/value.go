// Package wire is the format of roomkv's state events, and the only code that knows its names.
//
// It is compatible with opsdroid's Matrix database in both directions. In the single-state-key layout one
// state event holds the whole dict, name by name; in the per-key layout each key has a state event whose
// content has that one name. What stands behind a name is the JSON value itself or a marker, an object
// with exactly one of the names below.
//
// Everything here is pure: bytes in, values out, no network, and no panic on any input.
package wire

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"maunium.net/go/mautrix/crypto/canonicaljson"
	"maunium.net/go/mautrix/id"
)

// Limits of the Matrix specification, client-server API section "Size limits", in bytes.
const (
	MaxEvent    = 65536 // of a whole event, as canonical JSON with signatures
	MaxStateKey = 255
	MaxType     = 255
)

const (
	// MediaSize is about what a reference to an attachment takes of a content, in bytes.
	MediaSize = 360

	// maxDepth is how deep a value may nest in the plain: Synapse refuses an event whose JSON is more than 127
	// levels deep, and responses and federation wrap an event in some levels of their own.
	maxDepth = 100

	// maxParents bounds how many events [Parents] is believed to name. A writer names one, or the heads of a fork; more than
	// commit.maxHeads are merged in several steps.
	maxParents = 512
)

// The names of the markers. opsdroid knows the first alone.
const (
	encryptedMarker = "encrypted_val"   // behind it the ID of the room event that holds the value
	jsonMarker      = "json_val"        // behind it the value as JSON text
	mediaMarker     = "media_val"       // behind it an encrypted attachment that holds the value
	fieldsMarker    = prefix + "fields" // behind it a value of opsdroid's some of whose fields are elsewhere; see ParsePerKey
)

// ErrFormat is in every error about bytes that are not in this format.
var ErrFormat = errors.New("not in the store's format")

// Value is what a stored value says. Exactly one of the fields besides Expires is set.
type Value struct {
	Expires int64 // until when it counts, in Unix milliseconds, 0 where that is for ever; see [Expiring]

	JSON  json.RawMessage // the value itself
	Event id.EventID      // the room event that holds the value
	Media json.RawMessage // the attachment that holds the value

	// Fields are those of the value, an object, as they are stored: as they are, or as a reference to an event that holds the
	// field under its name.
	Fields map[string]json.RawMessage
}

// Encode gives the form in which value, any JSON text, is stored: as it is wherever a Matrix event can hold
// it and nobody would take it for a marker, else as its text. What is too large for any event is for an attachment, which
// can hold everything, and is given back without a copy. The error is ErrFormat, for bytes that are not JSON.
func Encode(value json.RawMessage) (stored json.RawMessage, err error) {
	if !validJSON(value) {
		return nil, fmt.Errorf("%w: not a JSON value", ErrFormat)
	}
	if value = bytes.TrimSpace(value); len(value) > MaxEvent {
		if _, _, marked := marker(value); !marked {
			return value, nil
		}
	}
	var compact bytes.Buffer
	_ = json.Compact(&compact, value) // cannot fail: it is valid
	if _, _, marked := marker(compact.Bytes()); marked || !portable(compact.Bytes()) {
		return marshal(map[string]string{jsonMarker: compact.String()}), nil
	}
	return compact.Bytes(), nil
}

// Decode is the inverse of Encode, and reads references to values that are elsewhere. The error is ErrFormat, for a
// marker with anything else behind it than its name promises.
func Decode(stored json.RawMessage) (Value, error) {
	if expires(stored) {
		if at, value := Expiry(string(stored)); at != 0 {
			read, err := Decode(json.RawMessage(value))
			read.Expires = at
			return read, err
		}
	}
	name, behind, marked := marker(stored)
	if !marked {
		return Value{JSON: stored}, nil
	}
	switch name {
	case mediaMarker:
		if len(behind) == 0 || behind[0] != '{' {
			return Value{}, fmt.Errorf("%w: %s is not an object", ErrFormat, mediaMarker)
		}
		return Value{Media: behind}, nil
	case fieldsMarker:
		var fields map[string]json.RawMessage
		if json.Unmarshal(behind, &fields) != nil || fields == nil {
			return Value{}, fmt.Errorf("%w: %s is not an object", ErrFormat, fieldsMarker)
		}
		return Value{Fields: fields}, nil
	default:
		var text *string
		if err := json.Unmarshal(behind, &text); err != nil || text == nil {
			return Value{}, fmt.Errorf("%w: %s is not a string", ErrFormat, name)
		}
		if name == encryptedMarker {
			if *text == "" {
				return Value{}, fmt.Errorf("%w: %s is empty", ErrFormat, name)
			}
			return Value{Event: id.EventID(*text)}, nil
		}
		if !validJSON(json.RawMessage(*text)) {
			return Value{}, fmt.Errorf("%w: %s does not hold JSON", ErrFormat, name)
		}
		return Value{JSON: json.RawMessage(*text)}, nil
	}
}

// Seal gives the form that a stored value has inside an encrypted event: the value as it is, for the homeserver does not
// see it, but for one that would read as a marker, and one over which whoever decrypts the event can stumble: with the
// values of all other keys in it. The error is ErrFormat.
func Seal(stored json.RawMessage) (inside json.RawMessage, err error) {
	value, err := Decode(stored)
	if err != nil || value.JSON == nil {
		return WithExpiry(stored, 0), err
	}
	if _, _, marked := marker(value.JSON); marked || !decodable(value.JSON) {
		return marshal(map[string]string{jsonMarker: string(value.JSON)}), nil
	}
	return value.JSON, nil
}

// Unseal is the inverse of Seal. What would be a reference to another event is a value that somebody else stored: nothing
// refers from inside an encrypted event to another. The error is ErrFormat.
func Unseal(inside json.RawMessage) (Value, error) {
	if name, _, marked := marker(inside); marked && (name == encryptedMarker || name == fieldsMarker) {
		return Value{JSON: inside}, nil
	}
	return Decode(inside)
}

// Reference is the stored form of a value that is in the event.
func Reference(event id.EventID) json.RawMessage {
	return marshal(map[string]id.EventID{encryptedMarker: event})
}

// References are the events that hold a stored value, or fields of it.
func References(stored json.RawMessage) []id.EventID {
	read, err := Decode(stored)
	if err != nil {
		return nil
	}
	if read.Event != "" {
		return []id.EventID{read.Event}
	}
	var events []id.EventID
	for _, field := range read.Fields {
		if event, ok := fieldEvent(field); ok {
			events = append(events, event)
		}
	}
	return events
}

// Refers tells whether there are any such events. It takes what is stored as [Canonical] gives it, and reads nothing else.
func Refers(stored string) bool {
	_, stored = Expiry(stored)
	marked := strings.HasPrefix(stored, `{"`+encryptedMarker+`":`) || strings.HasPrefix(stored, `{"`+fieldsMarker+`":`)
	return marked && len(References(json.RawMessage(stored))) > 0
}

// fieldEvent is the event that a field refers to.
func fieldEvent(field json.RawMessage) (id.EventID, bool) {
	read, err := Decode(field)
	return read.Event, err == nil && read.Event != ""
}

// marker tells whether stored is an object whose only member has the name of a marker.
func marker(stored json.RawMessage) (name string, behind json.RawMessage, ok bool) {
	if !canMark(stored) {
		return "", nil, false
	}
	var object map[string]json.RawMessage
	if json.Unmarshal(stored, &object) != nil || len(object) != 1 {
		return "", nil, false
	}
	for name, behind = range object {
	}
	return name, behind, isMarker(name)
}

// canMark is false where the first name shows that stored is no marker, so that large values need not be read for that.
func canMark(stored json.RawMessage) bool {
	const space, longest = " \t\r\n", len(`"` + encryptedMarker + `"`)
	text, isObject := bytes.CutPrefix(bytes.TrimLeft(stored, space), []byte("{"))
	text, isNamed := bytes.CutPrefix(bytes.TrimLeft(text, space), []byte(`"`))
	text = text[:min(len(text), longest)]
	end := bytes.IndexAny(text, `"\`)
	if !isObject || !isNamed || end < 0 {
		return false
	}
	return text[end] == '\\' || isMarker(string(text[:end]))
}

func isMarker(name string) bool {
	return name == encryptedMarker || name == jsonMarker || name == mediaMarker || name == fieldsMarker
}

// Size is the length of content as canonical JSON, in bytes: what it takes of MaxEvent.
func Size(content json.RawMessage) int { return len(canonical(content)) }

// Same tells whether two contents are one JSON value, whatever their order and spelling.
func Same(a, b json.RawMessage) bool { return bytes.Equal(canonical(a), canonical(b)) }

// canonical is the content as canonical JSON, or as it is where that would lose something: an unpaired surrogate and what follows it.
func canonical(content json.RawMessage) []byte {
	text, err := canonicaljson.Marshal(content)
	if err != nil || hasUnpairedSurrogate(content) {
		return content
	}
	return text
}

// marshal encodes what cannot fail to encode, and leaves <, > and & readable.
func marshal(v any) json.RawMessage {
	var text bytes.Buffer
	encoder := json.NewEncoder(&text)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(v); err != nil {
		panic(err) // a map of strings and of valid JSON always encodes
	}
	return bytes.TrimSuffix(text.Bytes(), []byte("\n"))
}
