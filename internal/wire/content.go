package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"strings"
)

// Dict is the content of a state event: all keys in the single-state-key layout, at most one in the per-key layout.
type Dict struct {
	Stored map[string]json.RawMessage // by key; see Decode

	// Parents is the field of that name: in a dict that was read, nil where there is none or where it is stale.
	Parents *Parents

	// ParentsText is the field as it was read, stale or not. It tells events apart.
	ParentsText string

	reserved map[string]json.RawMessage // by name: other fields of the store's own, kept through a rewrite
}

// ParseDict reads the content of the single-state-key layout. Where a key stands under its escaped name and its plain
// one too, as after opsdroid wrote it, the escaped one counts. The error is ErrFormat, for a content that is no object.
func ParseDict(content json.RawMessage) (Dict, error) {
	dict, names, err := parse(content)
	if err != nil {
		return Dict{}, err
	}
	for name, stored := range names {
		key, ok := KeyOf(name)
		if !ok {
			dict.reserved[name] = stored
			continue
		}
		if _, escaped := names[Name(key)]; !escaped || name == Name(key) {
			dict.Stored[key] = stored
		}
	}
	return dict, nil
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
	dict, names, err := parse(content)
	if err != nil {
		return Dict{}, err
	}
	if IsSealed(stateKey) {
		stored, found := names[stateKey]
		if !found && len(names) > 0 || len(names) > 1 {
			return dict, fmt.Errorf("%w: the name inside is not the state key's", ErrFormat)
		}
		if found {
			dict.reserved[stateKey] = stored
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
				dict.Stored[key] = stored
				return dict, nil
			}
		}
	}
	if StateKey(stateKey) != stateKey {
		return dict, fmt.Errorf("%w: the key inside is not the state key's", ErrFormat)
	}
	for _, field := range names {
		if _, elsewhere := fieldEvent(field); elsewhere {
			dict.Stored[stateKey] = marshal(map[string]any{fieldsMarker: names})
			return dict, nil
		}
	}
	// Wrapped as a value that would read as a marker would be: the first version knew none.
	stored, err := Encode(marshal(names))
	dict.Stored[stateKey] = stored
	return dict, err
}

// parse reads a content into its names, without the field that names parents, and an empty dict that has it.
func parse(content json.RawMessage) (Dict, map[string]json.RawMessage, error) {
	var names map[string]json.RawMessage
	if err := json.Unmarshal(content, &names); err != nil || names == nil {
		return Dict{}, nil, fmt.Errorf("%w: the content is not an object", ErrFormat)
	}
	dict := Dict{Stored: make(map[string]json.RawMessage, len(names)), reserved: map[string]json.RawMessage{}}
	if field := names[parentsName]; field != nil {
		delete(names, parentsName)
		parents, text, ok := parseParents(field, digestOf(names))
		if dict.ParentsText = text; ok {
			dict.Parents = &parents
		}
	}
	return dict, names, nil
}

// Names is the dict by name, each value as canonical JSON, so that equal values are equal strings. Fields of the store's
// own are in it too, but Parents is not.
func (d Dict) Names() map[string]string {
	names := make(map[string]string, len(d.Stored)+len(d.reserved))
	for name, field := range d.reserved {
		names[name] = Canonical(field)
	}
	for key, stored := range d.Stored {
		names[Name(key)] = Canonical(sendable(stored))
	}
	return names
}

// OfNames is the inverse of [Dict.Names].
func OfNames(names map[string]string) Dict {
	dict := Dict{Stored: make(map[string]json.RawMessage, len(names)), reserved: map[string]json.RawMessage{}}
	for name, stored := range names {
		if key, ok := KeyOf(name); ok {
			dict.Stored[key] = json.RawMessage(stored)
		} else {
			dict.reserved[name] = json.RawMessage(stored)
		}
	}
	return dict
}

// Content is the dict as it is sent, with the digest of its keys and values in Parents.
func (d Dict) Content() json.RawMessage {
	names := maps.Clone(d.reserved)
	if names == nil {
		names = make(map[string]json.RawMessage, len(d.Stored))
	}
	for key, stored := range d.Stored {
		names[Name(key)] = sendable(stored)
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

// sendable is stored as it can be sent. That differs from what was read only in rooms of versions 1 to 5,
// where another client can have put a float into the content.
func sendable(stored json.RawMessage) json.RawMessage {
	if portable(stored) {
		return stored
	}
	wrapped, err := Encode(stored)
	if err != nil {
		return stored
	}
	return wrapped
}
