package wire

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestIsAgreed(t *testing.T) {
	for _, agreed := range []any{Lease{Holder: "A", Fence: 1, Until: 1}, Lease{Fence: 7}, Once{By: "A"}} {
		text, err := json.Marshal(agreed)
		assert.NoError(t, err)
		assert.True(t, IsAgreed(text), "%s", text)
	}
	for _, text := range []string{
		"", "1", "null", "{", `[]`, `{}`, `"A"`, `{"once":1}`, `{"once":""}`, `{"once":"A","more":1}`, `{"holder":"A","fence":1}`, `{"fence":1,"holder":"A","until":1,"more":1}`,
		`{"holder":"A","fence":0,"until":1}`, `{"holder":"A","fence":1.5,"until":1}`, `{"holder":1,"fence":1,"until":1}`, `{"once":"` + strings.Repeat("A", maxAgreed) + `"}`,
	} {
		assert.False(t, IsAgreed(json.RawMessage(text)), text)
	}
}
