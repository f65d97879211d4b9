package wire

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"unicode/utf8"
)

// Dict is the content of a state event: all keys in the single-state-key layout, at most one in the per-key layout.
type Dict struct {
	// Names has by name, see [Name], what is stored of each key, see [Decode]; and the store's own fields, which stay through a rewrite. In a dict
	// that was read, each value is as it can be sent, as canonical JSON, so that equal values are equal strings, and with the time until which it
	// counts, where there is one; see [Expiring].
	Names map[string]string

	// Parents is the field of that name: in a dict that was read, nil where there is none or where it is stale.
	Parents *Parents

	// ParentsText is the field as it was read, stale or not. It tells events apart.
	ParentsText string
}

// ParseDict reads the content of the single-state-key layout. Where a key stands under its escaped name and its plain one too, the plain one counts:
// opsdroid has written it over the other, which it does not see, and no writer of roomkv leaves it. The error is ErrFormat, for a content that is no object.
func ParseDict(content json.RawMessage) (Dict, error) {
	dict, expires, err := parse(content)
	for name, stored := range dict.Names {
		if key, ok := KeyOf(name); ok && name != Name(key) {
			delete(dict.Names, name)
			dict.Names[Name(key)] = stored
		}
	}
	dict.mend()
	dict.expire(expires)
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
	dict, expires, err := parse(content)
	if err != nil {
		return dict, err
	}
	err = dict.keep(stateKey)
	dict.mend()
	dict.expire(expires)
	return dict, err
}

// keep leaves in a dict what belongs to the state key.
func (d *Dict) keep(stateKey string) error {
	names := d.Names
	d.Names = map[string]string{}
	if IsSealed(stateKey) {
		stored, found := names[stateKey]
		if !found && len(names) > 0 || len(names) > 1 {
			return fmt.Errorf("%w: the name inside is not the state key's", ErrFormat)
		}
		if found {
			d.Names[stateKey] = stored
		}
		return nil
	}
	maps.DeleteFunc(names, func(name, _ string) bool {
		_, ok := KeyOf(name)
		return !ok && d.ParentsText != "" // the first version had no field of ours beside its value
	})
	if len(names) == 0 || stateKey == "" {
		return nil
	}
	if _, plain := names[stateKey]; plain && Name(stateKey) != stateKey {
		delete(names, Name(stateKey)) // as in ParseDict
	}
	if len(names) == 1 {
		for name, stored := range names {
			if key, ok := KeyOf(name); ok && StateKey(key) == stateKey {
				d.Names[Name(key)] = stored
				return nil
			}
		}
	}
	if StateKey(stateKey) != stateKey {
		return fmt.Errorf("%w: the key inside is not the state key's", ErrFormat)
	}
	value, _ := written(names)
	for _, field := range names {
		if _, elsewhere := fieldEvent(json.RawMessage(field)); elsewhere {
			d.Names[Name(stateKey)] = Canonical(marshal(map[string]json.RawMessage{fieldsMarker: value}))
			return nil
		}
	}
	// Wrapped as a value that would read as a marker would be: the first version knew none.
	stored, err := Encode(value)
	d.Names[Name(stateKey)] = Canonical(stored)
	return err
}

// parse reads a content as it is, but for the fields that name parents and times.
func parse(content json.RawMessage) (dict Dict, expires string, err error) {
	text, count := string(content), 0
	counted := func(string, string, int) { count++ }
	if !membersOf(text, counted) {
		spelled := canonical(content)
		text, count = string(spelled), 0
		if !membersOf(text, counted) {
			return parseAny(content)
		}
		content = spelled
	}
	dict.Names = make(map[string]string, count)
	field, end := "", 0
	membersOf(text, func(name, value string, at int) {
		switch name {
		case parentsName:
			field, end = value, at
		case expiresName:
			expires = value
		default:
			dict.Names[name] = value
		}
	})
	if end > 0 {
		begin := end - len(field) - len(`"":`+parentsName)
		if text[begin-1] == ',' {
			begin--
		} else if text[end] == ',' {
			end++
		}
		dict.Parents, dict.ParentsText = parseParents(field, digestOf(content[:begin], content[end:]))
	}
	return dict, expires, nil
}

// parseAny is parse for what somebody else has written.
func parseAny(content json.RawMessage) (dict Dict, expires string, err error) {
	var all map[string]json.RawMessage
	if json.Unmarshal(content, &all) != nil || all == nil {
		return Dict{}, "", fmt.Errorf("%w: the content is not an object", ErrFormat)
	}
	dict.Names = make(map[string]string, len(all))
	for name, value := range all {
		dict.Names[name] = Canonical(value)
	}
	if field, there := dict.Names[parentsName]; there {
		delete(dict.Names, parentsName)
		rest, _ := written(dict.Names)
		dict.Parents, dict.ParentsText = parseParents(field, digestOf(rest))
	}
	expires = dict.Names[expiresName]
	delete(dict.Names, expiresName)
	return dict, expires, nil
}

// mend makes each value one that can be sent. That differs from what was read only in rooms of versions 1 to 5, where another client can have put a
// float into the content.
func (d *Dict) mend() {
	for name, stored := range d.Names {
		if _, isKey := KeyOf(name); !isKey || isPlain(stored) {
			continue
		}
		if wrapped, err := Encode(json.RawMessage(stored)); err == nil {
			d.Names[name] = Canonical(wrapped)
		}
	}
}

// Content is the dict as it is sent, with the digest of its keys and values in Parents. It is canonical JSON where all values are.
func (d Dict) Content() json.RawMessage {
	text, at := written(apart(d.Names))
	if d.Parents == nil {
		return text
	}
	parents := *d.Parents
	parents.Digest = digestOf(text)
	field := `"` + parentsName + `":` + string(canonical(marshal(parents)))
	switch {
	case at > len("{"):
		field = "," + field
	case len(d.Names) > 0:
		field += ","
	}
	return slices.Insert(text, at, []byte(field)...)
}

// written is the content with these names, and where in it a field that names parents belongs.
func written(names map[string]string) (text json.RawMessage, at int) {
	size, at := len("{}"), len("{")
	for name, stored := range names {
		size += EntrySize(name, stored)
	}
	text = append(make([]byte, 0, size), '{')
	sorted := slices.AppendSeq(make([]string, 0, len(names)), maps.Keys(names))
	slices.Sort(sorted)
	for _, name := range sorted {
		if len(text) > len("{") {
			text = append(text, ',')
		}
		text = append(append(appendName(text, name), ':'), names[name]...)
		if name < parentsName {
			at = len(text)
		}
	}
	return append(text, '}'), at
}

// appendName adds a name as canonical JSON.
func appendName(text []byte, name string) []byte {
	if !plainName(name) || !utf8.ValidString(name) {
		return append(text, canonical(marshal(name))...)
	}
	return append(append(append(text, '"'), name...), '"')
}

// EntrySize is what a name and the stored value behind it take of a content, in bytes, but for the name of the field with the times.
func EntrySize(name, stored string) int {
	at, value := Expiry(stored)
	nameSize := len(name)
	if !plainName(name) || !utf8.ValidString(name) {
		nameSize = Size(marshal(name)) - len(`""`)
	}
	size := len(`"":,`) + nameSize + len(value)
	if at != 0 {
		size += expirySize + nameSize
	}
	return size
}

// Canonical is a stored value as canonical JSON, so that equal values are equal strings.
func Canonical(stored json.RawMessage) string {
	text := string(stored)
	if at, value := Expiry(text); at != 0 {
		return Expiring(Canonical(json.RawMessage(value)), at)
	}
	if isPlain(text) {
		return text
	}
	return string(canonical(stored))
}
