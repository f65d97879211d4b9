package tokens

import (
	"encoding/json"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// A server may say in any form for how long a token is good. The tokens count whatever that is.
func TestFormsOfExpiry(t *testing.T) {
	start := time.Unix(1e9, 0)
	for said, life := range map[string]time.Duration{`300`: 5 * time.Minute, `"300"`: 5 * time.Minute, `0.5`: time.Second / 2, `1e400`: 0, `-1`: 0, `"soon"`: 0, `null`: 0, `[]`: 0, `1e30`: longestLife} {
		var answer given
		require.NoError(t, json.Unmarshal([]byte(`{"access_token": "a", "expires_in": `+said+`}`), &answer), said)
		token, err := answer.renew(Token{}, start, 1000*answer.Seconds)
		require.NoError(t, err)
		want := time.Time{}
		if life > 0 {
			want = start.Add(life)
		}
		require.Equal(t, want, token.Expires, said)
	}
}
