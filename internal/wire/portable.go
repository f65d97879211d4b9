package wire

import (
	"bytes"
	"encoding/json"
	"strconv"
	"strings"
	"unicode"
	"unicode/utf16"
	"unicode/utf8"
)

func validJSON(text json.RawMessage) bool { return json.Valid(text) && utf8.Valid(text) }

// portable tells whether every homeserver hands a valid JSON text back as it was, in the content of an
// event. The specification's canonical JSON allows neither floats nor integers beyond ±(2^53−1); Dendrite
// mangles object names that need a backslash, and unpaired surrogates.
func portable(text []byte) bool {
	return isPlain(string(text)) || !hasUnpairedSurrogate(text) && consistsOf(text, plainName, safeInteger)
}

// decodable tells whether a valid JSON text can be encrypted by mautrix, and be decoded without knowing what it means, as mautrix
// and others do with what they decrypt. mautrix encrypts canonical JSON, whose reader takes the six bytes after an unpaired surrogate
// for its other half (v0.32.0). Whoever decodes puts numbers into a float64, and limits how deep a text nests.
func decodable(text []byte) bool {
	return isPlain(string(text)) || !hasUnpairedSurrogate(text) && consistsOf(text, func(string) bool { return true }, isFloat)
}

// consistsOf tells whether a valid JSON text has only such object names and such numbers, and nests at most maxDepth deep.
func consistsOf(text []byte, isName, isNumber func(string) bool) bool {
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var inObject []bool // one a level
	name := false       // whether the next token is an object's name
	for {
		token, err := decoder.Token()
		if err != nil {
			return len(inObject) == 0 // the end of a valid text
		}
		wasName := name
		switch token := token.(type) {
		case json.Delim:
			switch token {
			case '{', '[':
				if inObject = append(inObject, token == '{'); len(inObject) > maxDepth {
					return false
				}
			default:
				inObject = inObject[:len(inObject)-1]
			}
			wasName = false
		case string:
			if wasName && !isName(token) {
				return false
			}
		case json.Number:
			if !isNumber(token.String()) {
				return false
			}
		}
		name = !wasName && len(inObject) > 0 && inObject[len(inObject)-1]
	}
}

// plainName tells whether an object name has nothing that JSON must escape.
func plainName(name string) bool {
	return !strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' })
}

func isFloat(number string) bool {
	_, err := strconv.ParseFloat(number, 64)
	return err == nil
}

// safeInteger tells whether a JSON number is an integer that canonical JSON can hold, spelled as it would.
func safeInteger(number string) bool {
	const most = "9007199254740991" // 2^53 − 1
	digits := strings.TrimPrefix(number, "-")
	if strings.ContainsAny(digits, ".eE") || number == "-0" {
		return false
	}
	return len(digits) < len(most) || len(digits) == len(most) && digits <= most
}

// hasUnpairedSurrogate finds \ud800 to \udfff without its other half, which no UTF-8 text can hold.
func hasUnpairedSurrogate(text []byte) bool {
	for i := 0; i < len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		switch unit := utf16Escape(text[i:]); {
		case unit < 0:
			i++ // the escaped character
		case !utf16.IsSurrogate(unit):
			i += 5
		case utf16.DecodeRune(unit, utf16Escape(text[i+6:])) == unicode.ReplacementChar:
			return true
		default:
			i += 11
		}
	}
	return false
}

// utf16Escape is the UTF-16 unit that text begins with as \uXXXX, or -1.
func utf16Escape(text []byte) rune {
	if len(text) < 6 || text[0] != '\\' || text[1] != 'u' {
		return -1
	}
	unit, err := strconv.ParseUint(string(text[2:6]), 16, 16)
	if err != nil {
		return -1
	}
	return rune(unit)
}
