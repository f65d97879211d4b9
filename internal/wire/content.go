package wire

import (
	"encoding/json"
	"fmt"
	"maps"
)

// Dict is the content of the state event of the single-state-key layout.
type Dict struct {
	Stored map[string]json.RawMessage // by key; see Decode

	reserved map[string]json.RawMessage // by name: fields of the store's own, kept through a rewrite
}

// ParseDict reads a dict's content. Where a key stands under its escaped name and its plain one too, as
// after opsdroid wrote it, the escaped one counts. The error is ErrFormat, for a content that is no object.
func ParseDict(content json.RawMessage) (Dict, error) {
	names, err := parseObject(content)
	if err != nil {
		return Dict{}, err
	}
	dict := Dict{Stored: make(map[string]json.RawMessage, len(names)), reserved: map[string]json.RawMessage{}}
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

// Content is the dict as it is sent.
func (d Dict) Content() json.RawMessage {
	names := maps.Clone(d.reserved)
	if names == nil {
		names = make(map[string]json.RawMessage, len(d.Stored))
	}
	for key, stored := range d.Stored {
		names[Name(key)] = sendable(stored)
	}
	return marshal(names)
}

// PerKeyContent is the content of key's own state event in the per-key layout.
func PerKeyContent(key string, stored json.RawMessage) json.RawMessage {
	return marshal(map[string]json.RawMessage{Name(key): sendable(stored)})
}

// Deleted is the content of a deleted key's state event in the per-key layout, and of a redacted one.
func Deleted() json.RawMessage { return json.RawMessage("{}") }

// ParsePerKey reads the state event of one key in the per-key layout. It is not found where the event holds
// no key: it was deleted or redacted, or it is the dict of the other layout.
//
// The first version of opsdroid's database wrote the value, always a dict, as the whole content. It is read
// as that wherever the content is not one name that belongs to the state key; a dict whose only name is
// its own state key cannot be told from the format of today and is read as such.
//
// The error is ErrFormat.
func ParsePerKey(stateKey string, content json.RawMessage) (key string, stored json.RawMessage, found bool, err error) {
	names, err := parseObject(content)
	if err != nil {
		return "", nil, false, err
	}
	if len(names) == 0 || stateKey == "" {
		return "", nil, false, nil
	}
	if len(names) == 1 {
		for name, stored := range names {
			if key, ok := KeyOf(name); ok && StateKey(key) == stateKey {
				return key, stored, true, nil
			}
		}
	}
	if StateKey(stateKey) != stateKey {
		return "", nil, false, fmt.Errorf("%w: the key inside is not the state key's", ErrFormat)
	}
	// Wrapped as a value that would read as a marker would be: the first version knew none.
	stored, err = Encode(content)
	return stateKey, stored, true, err
}

func parseObject(content json.RawMessage) (map[string]json.RawMessage, error) {
	var names map[string]json.RawMessage
	if err := json.Unmarshal(content, &names); err != nil || names == nil {
		return nil, fmt.Errorf("%w: the content is not an object", ErrFormat)
	}
	return names, nil
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
