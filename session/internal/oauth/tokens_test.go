package oauth

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var held = Tokens{Access: "SECRETacc", Refresh: "SECRETref", ClientID: "client", Device: "DEV", TokenEndpoint: issuer + "token", RevocationEndpoint: issuer + "revoke"}

func TestLife(t *testing.T) {
	for text, want := range map[string]time.Duration{`300`: 300 * time.Second, `"300"`: 300 * time.Second, `1.5`: 1500 * time.Millisecond, `0`: 0, `-1`: 0, `null`: 0,
		`1e30`: longestLife * time.Second} {
		_, tokens, err := by(t, reply{status: 200, body: `{"access_token":"acc","token_type":"Bearer","expires_in":` + text + `}`})
		require.NoError(t, err, text)
		if want == 0 {
			assert.True(t, tokens.Expires.IsZero(), text)
		} else {
			assert.WithinDuration(t, time.Now().Add(want), tokens.Expires, 10*time.Second, text)
		}
	}
}

func TestRevoke(t *testing.T) {
	s := &stub{answers: map[string][]reply{"/revoke": {{status: 200}}}}
	require.NoError(t, Revoke(t.Context(), s.client(), held))
	form := s.of("/revoke")[0].form
	assert.Equal(t, []string{"refresh_token", "SECRETref", "client"}, []string{form.Get("token_type_hint"), form.Get("token"), form.Get("client_id")})

	access := held
	access.Refresh = ""
	require.NoError(t, Revoke(t.Context(), s.client(), access))
	assert.Equal(t, "SECRETacc", s.of("/revoke")[1].form.Get("token"))

	s.answers["/revoke"] = []reply{{status: 503}}
	require.ErrorContains(t, Revoke(t.Context(), s.client(), held), "HTTP 503")
	access.RevocationEndpoint = ""
	assert.ErrorIs(t, Revoke(t.Context(), s.client(), access), ErrUnsupported)
}
