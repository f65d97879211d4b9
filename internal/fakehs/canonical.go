package fakehs

import (
	"bytes"
	"encoding/json"
	"math/big"
	"net/http"
	"slices"
	"strings"
	"unicode/utf16"
)

// maxNumber is the largest integer that canonical JSON has, 2^53−1.
const maxNumber = 1<<53 - 1

// content reads the content of an event and gives it as canonical JSON. Numbers are integers in the range that canonical JSON has.
func (s *Server) content(text []byte) (json.RawMessage, error) {
	if len(bytes.TrimSpace(text)) == 0 {
		text = []byte("{}")
	}
	decoder := json.NewDecoder(bytes.NewReader(text))
	decoder.UseNumber()
	var value any
	if err := decoder.Decode(&value); err != nil || decoder.More() {
		code := "M_NOT_JSON"
		if s.mode == Linear {
			code = "M_BAD_JSON"
		}
		return nil, refuse(http.StatusBadRequest, code, "the content is not JSON")
	}
	if _, ok := value.(map[string]any); !ok {
		return nil, refuse(http.StatusBadRequest, "M_BAD_JSON", "the content is not an object")
	}
	if err := s.names(text, value.(map[string]any)); err != nil {
		return nil, err
	}
	value, err := s.numbers(value)
	if err != nil {
		return nil, err
	}
	return canonical(value), nil
}

// names refuses what Dendrite and Synapse cannot deal with: Dendrite names of objects that JSON must escape, and Synapse half a character, and
// some fields that have a meaning in events of other types.
func (s *Server) names(text []byte, content map[string]any) error {
	failed := refuse(http.StatusInternalServerError, "M_UNKNOWN", "Internal server error")
	if s.mode == Linear {
		if hasEscapedName(content) {
			return failed
		}
		return nil
	}
	if mentions, there := content["m.mentions"]; there {
		if _, ok := mentions.(map[string]any); !ok {
			return refuse(http.StatusBadRequest, "M_BAD_JSON", "m.mentions is not an object")
		}
	}
	redacts := content["redacts"]
	_, isObject := redacts.(map[string]any)
	_, isArray := redacts.([]any)
	if labels, there := content["org.matrix.labels"]; hasLoneSurrogate(text) || isObject || isArray || there && !isLabels(labels) {
		return failed
	}
	return nil
}

// hasEscapedName tells whether a name somewhere in a value needs a backslash in JSON.
func hasEscapedName(value any) bool {
	switch value := value.(type) {
	case []any:
		return slices.ContainsFunc(value, hasEscapedName)
	case map[string]any:
		for name, inner := range value {
			if strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r == '"' || r == '\\' }) || hasEscapedName(inner) {
				return true
			}
		}
	}
	return false
}

// isLabels tells whether Synapse can store a value as labels: it goes through what there is in it, and none may be there twice.
func isLabels(value any) bool {
	seen := map[string]bool{}
	switch value := value.(type) {
	case string:
		for _, r := range value {
			if seen[string(r)] {
				return false
			}
			seen[string(r)] = true
		}
		return true
	case []any:
		for _, label := range value {
			text, ok := label.(string)
			if !ok || seen[text] {
				return false
			}
			seen[text] = true
		}
		return true
	case map[string]any:
		return true
	}
	return false
}

// canonical encodes a value as canonical JSON.
func canonical(value any) json.RawMessage {
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		panic(err) // what was decoded can be encoded
	}
	return bytes.TrimSuffix(out.Bytes(), []byte("\n"))
}

// numbers checks all numbers in a value and gives it with those as canonical JSON spells them.
func (s *Server) numbers(value any) (any, error) {
	var err error
	switch value := value.(type) {
	case json.Number:
		return s.number(string(value))
	case []any:
		for i := range value {
			if value[i], err = s.numbers(value[i]); err != nil {
				return nil, err
			}
		}
	case map[string]any:
		for name := range value {
			if value[name], err = s.numbers(value[name]); err != nil {
				return nil, err
			}
		}
	}
	return value, nil
}

// number checks a number. Synapse takes none that is spelled as a float. Dendrite takes 1.0 and 1e3, but not -0.
func (s *Server) number(text string) (json.Number, error) {
	bad := refuse(http.StatusBadRequest, "M_BAD_JSON", "a number is not an integer or out of range")
	if s.mode == Forking && strings.ContainsAny(text, ".eE") || s.mode == Linear && strings.HasPrefix(text, "-0") {
		return "", bad
	}
	if len(text) > 400 {
		return "", bad
	}
	number, _, err := big.ParseFloat(text, 10, 200, big.ToNearestEven)
	if err != nil || !number.IsInt() {
		return "", bad
	}
	whole, accuracy := number.Int64()
	if accuracy != big.Exact || whole > maxNumber || whole < -maxNumber {
		return "", bad
	}
	return json.Number(big.NewInt(whole).String()), nil
}

// hasLoneSurrogate tells whether JSON text has an escape of half a character.
func hasLoneSurrogate(text []byte) bool {
	unit := func(at int) rune {
		var value rune
		for i := at; i < at+4 && i < len(text); i++ {
			value = value<<4 | rune(strings.IndexByte("0123456789abcdef", text[i]|0x20))
		}
		return value
	}
	for i := 0; i+6 <= len(text); i++ {
		if text[i] != '\\' {
			continue
		}
		if text[i+1] != 'u' {
			i++
			continue
		}
		first := unit(i + 2)
		i += 5
		if !utf16.IsSurrogate(first) {
			continue
		}
		if i+7 > len(text) || text[i+1] != '\\' || text[i+2] != 'u' || utf16.DecodeRune(first, unit(i+3)) == '\ufffd' {
			return true
		}
		i += 6
	}
	return false
}
