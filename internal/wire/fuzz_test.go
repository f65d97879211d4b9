package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

// FuzzWire feeds hostile keys, state keys and contents to everything in the package. It is one target, so that
// "go test -fuzz ." finds it; testdata/fuzz holds inputs that earlier runs found worth keeping.
func FuzzWire(f *testing.F) {
	for i, text := range []string{
		`null`, `1.5`, `{}`, `[]`, `{"a":1}`, `{"json_val":"1"}`, `{"encrypted_val":"$x"}`, `{"a":{"encrypted_val":5}}`,
		`{"a\\b":[1e9]}`, `"\ud800"`, `[[`, `{"roomkv.parents":1}`, `{"a\"b":1,"roomkv.a%22b":2}`, `{"a":1,"a":2}`, `{"a":`,
	} {
		f.Add(keys[i], keys[i]+"x", []byte(text))
	}
	f.Fuzz(func(t *testing.T, key, other string, text []byte) {
		checkValue(t, text)
		checkPerKey(t, key, text)
		checkDict(t, text)
		checkNames(t, text)
		checkParents(t, key, text)
		checkCanonical(t, text)
		if utf8.ValidString(key) && utf8.ValidString(other) {
			checkKey(t, key, other)
		}
	})
}

// checkValue: what can be encoded comes back as it was.
func checkValue(t *testing.T, text []byte) {
	_, _ = wire.Decode(text)
	stored, err := wire.Encode(text)
	if err != nil {
		if json.Valid(text) && utf8.Valid(text) {
			t.Fatalf("refused %q: %v", text, err)
		}
		return
	}
	value, err := wire.Decode(json.RawMessage(stored))
	if err != nil {
		t.Fatalf("cannot read back %q, stored as %q: %v", text, stored, err)
	}
	inside, err := wire.Seal(stored)
	if err != nil {
		t.Fatalf("cannot seal %q: %v", stored, err)
	}
	if json.Unmarshal(inside, new(any)) != nil {
		t.Fatalf("%q is sealed as %q, which not everybody can decode", text, inside)
	}
	if unsealed, err := wire.Unseal(inside); err != nil || !reflect.DeepEqual(generic(t, value.JSON), generic(t, unsealed.JSON)) {
		t.Fatalf("%q is sealed as %q, which reads as %q: %v", text, inside, unsealed.JSON, err)
	}
	if !reflect.DeepEqual(generic(t, text), generic(t, value.JSON)) {
		t.Fatalf("%q came back as %q", text, value.JSON)
	}
}

// checkKey: a key has a name and a state key of its own, from which it can be told again.
func checkKey(t *testing.T, key, other string) {
	if back, ok := wire.KeyOf(wire.Name(key)); !ok || back != key {
		t.Fatalf("%q is named %q, which is %q", key, wire.Name(key), back)
	}
	stateKey := wire.StateKey(key)
	if len(stateKey) == 0 || len(stateKey) > wire.MaxStateKey || stateKey[0] == '@' {
		t.Fatalf("%q has the state key %q", key, stateKey)
	}
	found, err := wire.ParsePerKey(stateKey, perKey(key, `{"a":1}`))
	if _, ok := found.Names[wire.Name(key)]; err != nil || !ok || len(found.Names) != 1 {
		t.Fatalf("%q under %q reads as %q, %v", key, stateKey, found.Names, err)
	}
	if key != other && (stateKey == wire.StateKey(other) || wire.Name(key) == wire.Name(other)) {
		t.Fatalf("%q and %q share a name or a state key", key, other)
	}
}

// checkPerKey: an event never reads as a key that is not looked for under its state key.
func checkPerKey(t *testing.T, stateKey string, content []byte) {
	dict, err := wire.ParsePerKey(stateKey, content)
	if err != nil {
		return
	}
	if len(dict.Names) > 1 {
		t.Fatalf("the event under %q reads as %d keys", stateKey, len(dict.Names))
	}
	for name, stored := range dict.Names {
		if wire.StateKeyOf(name) != stateKey {
			t.Fatalf("the event under %q has the name %q", stateKey, name)
		}
		_, _ = wire.Decode(json.RawMessage(stored))
	}
}

// checkDict: whatever a dict holds survives a rewrite.
func checkDict(t *testing.T, content []byte) {
	dict, err := wire.ParseDict(content)
	if err != nil {
		return
	}
	again, err := wire.ParseDict(dict.Content())
	if err != nil {
		t.Fatalf("%q was rewritten as %q: %v", content, dict.Content(), err)
	}
	if len(dict.Names) != len(again.Names) {
		t.Fatalf("%q was rewritten as %q", content, dict.Content())
	}
	for name, stored := range dict.Names {
		before, err := wire.Decode(json.RawMessage(stored))
		if err != nil {
			continue
		}
		after, err := wire.Decode(json.RawMessage(again.Names[name]))
		if err != nil || !reflect.DeepEqual(generic(t, before.JSON), generic(t, after.JSON)) {
			t.Fatalf("%q changed from %q to %q", name, stored, again.Names[name])
		}
	}
}

// checkNames: the names are all there is to a dict, and their sizes add up to its own.
func checkNames(t *testing.T, content []byte) {
	dict, err := wire.ParseDict(content)
	if err != nil {
		return
	}
	dict.Parents = nil
	names := dict.Names
	if back, err := wire.ParseDict(dict.Content()); err != nil || !reflect.DeepEqual(names, back.Names) {
		t.Fatalf("%q has the names %q, which are %q: %v", content, names, back.Names, err)
	}
	if size := sizeOf(names); utf8.Valid(content) && size != wire.Size(dict.Content()) {
		t.Fatalf("%q takes %d bytes, its entries %d", dict.Content(), wire.Size(dict.Content()), size)
	}
}

// checkParents: the field is believed in the content that it was written for, and in no other.
func checkParents(t *testing.T, key string, content []byte) {
	dict, err := wire.ParseDict(content)
	if err != nil {
		return
	}
	dict.Parents = &wire.Parents{Events: []id.EventID{"$a", "$b"}, By: "me", Conditional: true}
	written, err := wire.ParseDict(dict.Content())
	if err != nil || written.Parents == nil || !reflect.DeepEqual(written.Parents.Events, dict.Parents.Events) {
		t.Fatalf("%q does not name its parents: %v", dict.Content(), err)
	}
	changed := change(t, dict.Content(), "changed"+key, `"by another"`)
	if wire.Same(changed, dict.Content()) {
		return
	}
	copied, err := wire.ParseDict(changed)
	if err != nil || copied.Parents != nil || copied.ParentsText != written.ParentsText {
		t.Fatalf("%q with one key changed has %v and %q: %v", dict.Content(), copied.Parents, copied.ParentsText, err)
	}
}

// checkCanonical: equal values are equal strings, and others are not.
func checkCanonical(t *testing.T, text []byte) {
	if !json.Valid(text) || !utf8.Valid(text) {
		return
	}
	text = bytes.TrimSpace(text)
	canonical := wire.Canonical(text)
	if !wire.Same(text, json.RawMessage(canonical)) || len(canonical) != wire.Size(text) || wire.Canonical(json.RawMessage(canonical)) != canonical {
		t.Fatalf("%q is %q", text, canonical)
	}
	var spaced bytes.Buffer
	_ = json.Indent(&spaced, text, " ", "  ") // cannot fail: it is valid
	if wire.Canonical(spaced.Bytes()) != canonical {
		t.Fatalf("%q is %q, spaced %q", text, canonical, wire.Canonical(spaced.Bytes()))
	}
	if list := json.RawMessage("[" + string(text) + "]"); wire.Canonical(list) == canonical || wire.Same(list, text) {
		t.Fatalf("%q and %q are the same", text, list)
	}
}

// generic is what the text means, with numbers as they are spelled.
func generic(t *testing.T, text []byte) any {
	if len(text) == 0 {
		return nil
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil {
		t.Fatalf("not JSON: %q: %v", text, err)
	}
	return value
}
