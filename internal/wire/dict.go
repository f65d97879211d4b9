package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// Dict is the content of a state event: all keys in the single-state-key layout, at most one in the per-key layout.
type Dict struct {
	// Stored has by name, see [Name], what is stored of each key, see [Decode]; and the store's own fields, which stay through a rewrite.
	Stored map[string]json.RawMessage

	// Parents is the field of that name: in a dict that was read, nil where there is none or where it is stale.
	Parents *Parents

	// ParentsText is the field as it was read, stale or not. It tells events apart.
	ParentsText string
}

// ParseDict reads the content of the single-state-key layout. Where a key stands under its escaped name and its plain
// one too, as after opsdroid wrote it, the escaped one counts. The error is ErrFormat, for a content that is no object.
func ParseDict(content json.RawMessage) (Dict, error) {
	dict, err := parse(content)
	for name, stored := range dict.Stored {
		if key, ok := KeyOf(name); ok && name != Name(key) {
			delete(dict.Stored, name)
			if _, escaped := dict.Stored[Name(key)]; !escaped {
				dict.Stored[Name(key)] = stored
			}
		}
	}
	return dict, err
}

// ParsePerKey reads the state event of one key in the per-key layout. There is no key in it where it was
// deleted or redacted, or where it is the dict of the other layout.
//
// The first version of opsdroid's database wrote the value, always a dict, as the whole content. It is read
// as that wherever the content is not one name that belongs to the state key; a dict whose only name is
// its own state key cannot be told from the format of today and is read as such. The version after that did so too, and in
// encrypted rooms had a reference to an event of its own in place of each field: that is read as Value.Fields.
//
// The error is ErrFormat.
func ParsePerKey(stateKey string, content json.RawMessage) (Dict, error) {
	dict, err := parse(content)
	if err != nil {
		return dict, err
	}
	names := dict.Stored
	dict.Stored = map[string]json.RawMessage{}
	if IsSealed(stateKey) {
		stored, found := names[stateKey]
		if !found && len(names) > 0 || len(names) > 1 {
			return dict, fmt.Errorf("%w: the name inside is not the state key's", ErrFormat)
		}
		if found {
			dict.Stored[stateKey] = stored
		}
		return dict, nil
	}
	maps.DeleteFunc(names, func(name string, _ json.RawMessage) bool {
		_, ok := KeyOf(name)
		return !ok && dict.ParentsText != "" // the first version had no field of ours beside its value
	})
	if len(names) == 0 || stateKey == "" {
		return dict, nil
	}
	if len(names) == 1 {
		for name, stored := range names {
			if key, ok := KeyOf(name); ok && StateKey(key) == stateKey {
				dict.Stored[Name(key)] = stored
				return dict, nil
			}
		}
	}
	if StateKey(stateKey) != stateKey {
		return dict, fmt.Errorf("%w: the key inside is not the state key's", ErrFormat)
	}
	for _, field := range names {
		if _, elsewhere := fieldEvent(field); elsewhere {
			dict.Stored[Name(stateKey)] = marshal(map[string]any{fieldsMarker: names})
			return dict, nil
		}
	}
	// Wrapped as a value that would read as a marker would be: the first version knew none.
	dict.Stored[Name(stateKey)], err = Encode(marshal(names))
	return dict, err
}

// parse reads a content as it is, but for the field that names parents.
func parse(content json.RawMessage) (dict Dict, err error) {
	if json.Unmarshal(content, &dict.Stored) != nil || dict.Stored == nil {
		return Dict{}, fmt.Errorf("%w: the content is not an object", ErrFormat)
	}
	if field := dict.Stored[parentsName]; field != nil {
		delete(dict.Stored, parentsName)
		dict.Parents, dict.ParentsText = parseParents(field, digestOf(dict.Stored))
	}
	return dict, nil
}

// Names is the dict by name, each value as canonical JSON, so that equal values are equal strings. Fields of the store's
// own are in it too, but Parents is not.
func (d Dict) Names() map[string]string {
	names := make(map[string]string, len(d.Stored))
	for name, stored := range d.Stored {
		names[name] = Canonical(sendable(name, stored))
	}
	return names
}

// OfNames is the inverse of [Dict.Names].
func OfNames(names map[string]string) Dict {
	dict := Dict{Stored: make(map[string]json.RawMessage, len(names))}
	for name, stored := range names {
		dict.Stored[name] = json.RawMessage(stored)
	}
	return dict
}

// Content is the dict as it is sent, with the digest of its keys and values in Parents.
func (d Dict) Content() json.RawMessage {
	names := make(map[string]json.RawMessage, len(d.Stored)+1)
	for name, stored := range d.Stored {
		names[name] = sendable(name, stored)
	}
	if d.Parents != nil {
		parents := *d.Parents
		parents.Digest = digestOf(names)
		names[parentsName] = marshal(parents)
	}
	return marshal(names)
}

// EntrySize is what a name and the stored value behind it take of a content, in bytes.
func EntrySize(name, stored string) int {
	return Size(marshal(name)) + len(":") + len(stored) + len(",")
}

// Canonical is a stored value as canonical JSON, so that equal values are equal strings.
func Canonical(stored json.RawMessage) string {
	text := string(stored)
	if len(text) < 16 && !strings.ContainsAny(text, "{[\\ \t\r\n.eE") { // already is, in all likelihood a number
		return text
	}
	return string(canonical(stored))
}

// sendable is what stands behind a name as it can be sent. That differs from what was read only in rooms of versions 1 to 5,
// where another client can have put a float into the content.
func sendable(name string, stored json.RawMessage) json.RawMessage {
	if _, isKey := KeyOf(name); !isKey || portable(stored) {
		return stored
	}
	if wrapped, err := Encode(stored); err == nil {
		return wrapped
	}
	return stored
}
