package roomkv

import (
	"bytes"
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
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
