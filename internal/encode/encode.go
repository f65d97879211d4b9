// Package encode turns Go values into what a memory stores.
package encode

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"unicode/utf8"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// chunk is how much of a large string is encoded at a time, in bytes.
const chunk = 32 << 10

// Value gives the stored form of the value for a key. It keeps <, > and & as they are, for people read it too. It fails with
// [fault.ErrInvalidValue], without the value in the text, where encoding/json cannot encode the value or would change a text in it.
func Value(key string, value any) (json.RawMessage, error) {
	text, ok := encodeLarge(value)
	if !ok {
		var buffer bytes.Buffer
		encoder := json.NewEncoder(&buffer)
		encoder.SetEscapeHTML(false)
		if err := encoder.Encode(value); err != nil {
			return nil, fault.Of(fault.ErrInvalidValue, err, "the %T for key %q cannot be encoded as JSON", value, key)
		}
		text = buffer.Bytes()
	}
	if losesText(value, text) {
		return nil, fault.Of(fault.ErrInvalidValue, nil, "the %T for key %q has a text that is not valid UTF-8; encode it (as []byte, for example)", value, key)
	}
	stored, err := wire.Encode(text)
	if err != nil {
		return nil, fault.Of(fault.ErrInvalidValue, err, "the %T for key %q is encoded as something else than JSON in UTF-8", value, key)
	}
	return stored, nil
}

// encodeLarge encodes a large string, bytes or JSON as encoding/json does, but with one copy in memory where that makes
// three. Other values, and small ones, are not its business.
func encodeLarge(value any) (text []byte, ok bool) {
	switch value := value.(type) {
	case json.RawMessage:
		if len(value) > wire.MaxEvent {
			return bytes.Clone(value), true
		}
	case []byte:
		if len(value) > wire.MaxEvent {
			text = make([]byte, 0, base64.StdEncoding.EncodedLen(len(value))+len(`""`))
			return append(base64.StdEncoding.AppendEncode(append(text, '"'), value), '"'), true
		}
	case string:
		if len(value) > wire.MaxEvent {
			size := len(`""`)
			eachChunk(value, func(encoded []byte) { size += len(encoded) })
			text = append(make([]byte, 0, size), '"')
			eachChunk(value, func(encoded []byte) { text = append(text, encoded...) })
			return append(text, '"'), true
		}
	}
	return nil, false
}

// eachChunk encodes a string bit by bit, without the quotes.
func eachChunk(text string, each func(encoded []byte)) {
	var buffer bytes.Buffer
	encoder := json.NewEncoder(&buffer)
	encoder.SetEscapeHTML(false)
	for len(text) > 0 {
		end := wholeRunes(text, min(chunk, len(text)))
		buffer.Reset()
		_ = encoder.Encode(text[:end]) // a string always encodes
		each(bytes.TrimSuffix(buffer.Bytes(), []byte("\"\n"))[len(`"`):])
		text = text[end:]
	}
}

// wholeRunes is end, or a little before that where it would cut a character.
func wholeRunes(text string, end int) int {
	for back := range min(utf8.UTFMax, end) {
		if end == len(text) || utf8.RuneStart(text[end-back]) {
			return end - back
		}
	}
	return end
}
