package authserver

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/session/internal/oauth"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// refresh gets new tokens as a keeper does.
func refresh(t *testing.T, old oauth.Tokens) (oauth.Tokens, error) {
	t.Helper()
	token := tokens.Token{RefreshToken: old.Refresh, OAuth: &tokens.OAuthClient{ClientID: old.ClientID, TokenEndpoint: old.TokenEndpoint}}
	fresh, err := tokens.Refreshing(token, web, time.Now).Refresh(t.Context(), token)
	old.Access, old.Refresh, old.Expires = fresh.AccessToken, fresh.RefreshToken, fresh.Expires
	return old, err
}

// refused checks that the refresh token is good for nothing any more.
func refused(t *testing.T, err error, why ...any) {
	t.Helper()
	var answer *tokens.Answer
	require.ErrorAs(t, err, &answer, why...)
	require.Equal(t, "invalid_grant", answer.Code, why...)
}

func TestRefresh(t *testing.T) {
	t.Parallel()
	name := user()
	old := signIn(t, name)
	works(t, old, name)
	fresh, err := refresh(t, old)
	require.NoError(t, err)
	assert.NotEqual(t, old.Access, fresh.Access)
	assert.NotEqual(t, old.Refresh, fresh.Refresh)
	works(t, fresh, name)

	_, err = refresh(t, old)
	refused(t, err, "a refresh token is good once")
	fresh, err = refresh(t, fresh)
	require.NoError(t, err)
	works(t, fresh, name)
}

// The answer to a refresh was lost, so that the old refresh token is all that there is.
func TestRefreshAgain(t *testing.T) {
	t.Parallel()
	name := user()
	old := signIn(t, name)
	_, err := refresh(t, old)
	require.NoError(t, err)
	fresh, err := refresh(t, old)
	require.NoError(t, err)
	works(t, fresh, name)
}

func TestRefreshOfServerInTrouble(t *testing.T) {
	t.Parallel()
	name := user()
	own := signIn(t, name)
	shared.auth.Fail(own.ClientID, http.StatusInternalServerError, 1)
	_, err := refresh(t, own)
	require.Error(t, err)
	var answer *tokens.Answer
	require.ErrorAs(t, err, &answer)
	require.Equal(t, http.StatusInternalServerError, answer.Status)
	works(t, own, name)
	own, err = refresh(t, own)
	require.NoError(t, err)
	works(t, own, name)
}

func TestExpired(t *testing.T) {
	t.Parallel()
	name := user()
	shared.auth.SetLife(name, 4*time.Second)
	own := signIn(t, name)
	_, err := matrix(t, own.Access).Whoami(t.Context())
	require.NoError(t, err)
	time.Sleep(time.Until(own.Expires) + 2*time.Second) // both servers count full seconds
	ended(t, own.Access)
	shared.auth.SetLife(name, time.Minute)
	own, err = refresh(t, own)
	require.NoError(t, err)
	works(t, own, name)
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	t.Run("by the bot", func(t *testing.T) {
		t.Parallel()
		name := user()
		own := signIn(t, name)
		works(t, own, name)
		require.NoError(t, oauth.Revoke(t.Context(), web, own))
		ended(t, own.Access)
		_, err := refresh(t, own)
		refused(t, err)
		require.NoError(t, oauth.Revoke(t.Context(), web, own), "once more")
	})
	t.Run("by the bot, without a refresh token", func(t *testing.T) {
		t.Parallel()
		name := user()
		own := signIn(t, name)
		own.Refresh = ""
		require.NoError(t, oauth.Revoke(t.Context(), web, own))
		ended(t, own.Access)
	})
	t.Run("by an administrator", func(t *testing.T) {
		t.Parallel()
		name := user()
		own := signIn(t, name)
		works(t, own, name)
		require.NoError(t, shared.auth.End(t.Context(), name))
		ended(t, own.Access)
		_, err := refresh(t, own)
		refused(t, err)
	})
}
