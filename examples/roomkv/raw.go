package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"unicode/utf8"
)

// rawBytes is the form of a file that is not text. JSON has no bytes.
type rawBytes struct {
	Base64 []byte `json:"base64"`
}

// valueOfRaw is a file as a value: text as it is, other bytes in base64. NUL is a character that some homeservers do not store.
func valueOfRaw(file string) any {
	if utf8.ValidString(file) && !strings.ContainsRune(file, 0) {
		return file
	}
	return rawBytes{[]byte(file)}
}

// rawOf is the file that [valueOfRaw] was given. What others have stored is text as it is, and all else as JSON.
func rawOf(value json.RawMessage) []byte {
	var object map[string]json.RawMessage
	if json.Unmarshal(value, &object) == nil && len(object) == 1 && bytes.HasPrefix(object["base64"], []byte(`"`)) {
		var file []byte
		if json.Unmarshal(object["base64"], &file) == nil {
			return file
		}
	}
	return []byte(text(value))
}
