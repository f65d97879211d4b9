package oauth

import (
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var held = Tokens{Access: "SECRETacc", Refresh: "SECRETref", ClientID: "client", Device: "DEV", TokenEndpoint: issuer + "token", RevocationEndpoint: issuer + "revoke"}

func TestRefresh(t *testing.T) {
	for _, c := range []struct {
		name    string
		answer  reply
		refresh string // the refresh token afterwards
		refused bool
		fails   bool
	}{
		{name: "with a new refresh token", answer: reply{status: 200, body: goodTokens}, refresh: "ref"},
		{name: "with the old one", answer: reply{status: 200, body: `{"access_token":"acc","token_type":"Bearer","expires_in":"300"}`}, refresh: "SECRETref"},
		{name: "refused", answer: no("invalid_grant"), refused: true},
		{name: "client unknown", answer: reply{status: 401, body: `{"error":"invalid_client"}`}, refused: true},
		{name: "server in trouble", answer: reply{status: 503, body: `{"error":"server_error"}`}, fails: true},
		{name: "limited", answer: reply{status: 429}, fails: true},
		{name: "a proxy in between", answer: reply{status: 400, body: "<html>"}, fails: true},
		{name: "not reached", answer: reply{err: errors.New("connection refused")}, fails: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stub{answers: map[string][]reply{"/token": {c.answer}}}
			fresh, err := Refresh(t.Context(), s.client(), held)
			form := s.of("/token")[0].form
			assert.Equal(t, []string{"refresh_token", "SECRETref", "client"}, []string{form.Get("grant_type"), form.Get("refresh_token"), form.Get("client_id")})
			if c.refused || c.fails {
				require.Error(t, err)
				assert.Equal(t, c.refused, errors.Is(err, ErrRefused), err)
				assert.NotContains(t, err.Error(), "SECRET")
				return
			}
			require.NoError(t, err)
			assert.WithinDuration(t, time.Now().Add(300*time.Second), fresh.Expires, 10*time.Second)
			fresh.Expires = time.Time{}
			want := held
			want.Access, want.Refresh = "acc", c.refresh
			assert.Equal(t, want, fresh)
		})
	}
}

func TestRefreshInsecurely(t *testing.T) {
	s := &stub{answers: map[string][]reply{"/token": {{status: 200, body: goodTokens}}}}
	old := held
	old.TokenEndpoint = "http://auth.example.org/token"
	_, err := Refresh(t.Context(), s.client(), old)
	require.ErrorIs(t, err, ErrInsecure)
	assert.Empty(t, s.asked)
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
