package encode

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/wire"
)

// What is encoded with fewer copies is what encoding/json makes of it, wherever a chunk ends.
func TestLargeValuesAreEncodedAsOthers(t *testing.T) {
	pieces := []string{"a", "é", "日", "🎉", "\x00", "\n", `"`, `\`, "<", "\u2028", "\x80", "\xf0\x9f", "\xed\xa0\x80", "\ufffd"}
	random := rand.New(rand.NewPCG(1, 2))
	for range 50 {
		var text strings.Builder
		for text.Len() < 70_000+random.IntN(70_000) {
			text.WriteString(strings.Repeat(pieces[random.IntN(len(pieces))], 1+random.IntN(9)))
		}
		raw, err := json.Marshal(text.String())
		require.NoError(t, err)
		for _, value := range []any{text.String(), []byte(text.String()), json.RawMessage(raw)} {
			var want bytes.Buffer
			encoder := json.NewEncoder(&want)
			encoder.SetEscapeHTML(false)
			require.NoError(t, encoder.Encode(value))
			got, ok := encodeLarge(value)
			require.True(t, ok)
			require.True(t, string(got)+"\n" == want.String())
		}
	}
	_, ok := encodeLarge("small")
	require.False(t, ok)
}

type (
	jsonMarshaler    struct{ text string }
	textMarshaler    struct{ text string }
	pointerMarshaler struct{ text string }
	textKey          struct{ text string }
)

func (m jsonMarshaler) MarshalJSON() ([]byte, error)     { return []byte(m.text), nil }
func (m *pointerMarshaler) MarshalJSON() ([]byte, error) { return json.Marshal(m.text) }
func (m textMarshaler) MarshalText() ([]byte, error)     { return []byte(m.text), nil }
func (k textKey) MarshalText() ([]byte, error)           { return []byte(k.text), nil }

type (
	embedded struct{ Text string }
	nesting  struct {
		embedded
		Pointer *pointerMarshaler
		Any     any    `json:",omitempty"`
		Left    string `json:"-"`
		hidden  string
	}
)

// JSON holds no bytes that are not UTF-8, and encoding/json would store U+FFFD in their place.
func TestInvalidTextIsNoValue(t *testing.T) {
	const bad = "a\xff\xfeb"
	large := strings.Repeat("ü", 40_000)
	marshaled, err := json.Marshal(bad)
	require.NoError(t, err)
	for name, value := range map[string]any{
		"string": bad, "half a rune": "é"[:1], "surrogate": "\xed\xa0\x80", "large": large + bad, "large, at the end": large + "\xc3",
		"list": []string{"", bad}, "array": [1]any{bad}, "map": map[string]any{"a": []any{1, bad}}, "name": map[string]int{bad: 1},
		"inner name": map[string]any{"a": map[string]any{bad: nil}}, "named name": map[json.Number]int{json.Number(bad): 1},
		"text key": map[textKey]int{{bad}: 1}, "struct": nesting{embedded: embedded{bad}}, "inside": &nesting{Any: &[]any{embedded{bad}}},
		"raw": json.RawMessage(`"` + bad + `"`), "large raw": json.RawMessage(`"` + large + bad + `"`), "raw inside": []any{json.RawMessage(`"` + bad + `"`)},
		"raw beside": []any{json.RawMessage(`"\ufffd"`), bad}, "marshaled": jsonMarshaler{`"` + bad + `"`}, "marshaled inside": []any{jsonMarshaler{string(marshaled)}},
		"by pointer": &nesting{Pointer: &pointerMarshaler{bad}}, "slice of values": []pointerMarshaler{{bad}},
		"text": textMarshaler{bad}, "text inside": map[string]any{"a": &textMarshaler{bad}},
	} {
		stored, err := Value("key", value)
		require.ErrorIs(t, err, fault.ErrInvalidValue, "%s: %s", name, stored)
		require.NotContains(t, err.Error(), "a\\")
	}
	for name, value := range map[string]any{
		"string": "\ufffd", "escaped in a string": `\ufffd \\ufffd`, "large": large + "\ufffd" + `\ufffd`,
		"name": map[string]any{"\ufffd": `\ufffd`}, "raw": json.RawMessage(`["\ufffd", "\uFFFD"]`), "large raw": json.RawMessage(`"` + large + `\ufffd"`),
		"raw inside": map[string]any{"a": json.RawMessage(`{"\ufffd": "\\ufffd"}`), "b": &[]json.RawMessage{json.RawMessage(`"\ufffd"`)}},
		"text":       textMarshaler{"\ufffd"}, "text key": map[textKey]int{{`\ufffd`}: 1}, "marshaled": &pointerMarshaler{"\ufffd" + `\ufffd`},
		"left out": []any{nesting{Left: bad, hidden: bad}, json.RawMessage(`"\ufffd"`)}, "nothing": []any{nil, (*string)(nil), nesting{}, `\ufffd`},
		"bytes": []any{[]byte(bad), json.RawMessage(`"\ufffd"`)},
	} {
		stored, err := Value("key", value)
		require.NoError(t, err, name)
		want, err := json.Marshal(value)
		require.NoError(t, err)
		read, err := wire.Decode(stored)
		require.NoError(t, err)
		require.JSONEq(t, string(want), string(read.JSON), name)
	}
}
