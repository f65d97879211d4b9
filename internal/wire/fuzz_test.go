package wire_test

import (
	"bytes"
	"encoding/json"
	"reflect"
	"testing"
	"unicode/utf8"

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
	value, err := wire.Decode(stored)
	if err != nil {
		t.Fatalf("cannot read back %q, stored as %q: %v", text, stored, err)
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
	found, _, ok, err := wire.ParsePerKey(stateKey, wire.PerKeyContent(key, json.RawMessage(`{"a":1}`)))
	if err != nil || !ok || found != key {
		t.Fatalf("%q under %q reads as %q, %v, %v", key, stateKey, found, ok, err)
	}
	if key != other && (stateKey == wire.StateKey(other) || wire.Name(key) == wire.Name(other)) {
		t.Fatalf("%q and %q share a name or a state key", key, other)
	}
}

// checkPerKey: an event never reads as a key that is not looked for under its state key.
func checkPerKey(t *testing.T, stateKey string, content []byte) {
	key, stored, found, err := wire.ParsePerKey(stateKey, content)
	if !found || err != nil {
		return
	}
	if wire.StateKey(key) != stateKey {
		t.Fatalf("the event under %q reads as key %q", stateKey, key)
	}
	_, _ = wire.Decode(stored)
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
	if len(dict.Stored) != len(again.Stored) {
		t.Fatalf("%q was rewritten as %q", content, dict.Content())
	}
	for key, stored := range dict.Stored {
		before, err := wire.Decode(stored)
		if err != nil {
			continue
		}
		after, err := wire.Decode(again.Stored[key])
		if err != nil || !reflect.DeepEqual(generic(t, before.JSON), generic(t, after.JSON)) {
			t.Fatalf("%q changed from %q to %q", key, stored, again.Stored[key])
		}
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
