package authserver

import (
	"net/http"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/session/internal/oauth"
)

func TestRefresh(t *testing.T) {
	t.Parallel()
	name := user()
	old := signIn(t, name)
	works(t, old, name)
	fresh, err := oauth.Refresh(t.Context(), web, old)
	require.NoError(t, err)
	assert.NotEqual(t, old.Access, fresh.Access)
	assert.NotEqual(t, old.Refresh, fresh.Refresh)
	works(t, fresh, name)

	_, err = oauth.Refresh(t.Context(), web, old)
	require.ErrorIs(t, err, oauth.ErrRefused, "a refresh token is good once")
	fresh, err = oauth.Refresh(t.Context(), web, fresh)
	require.NoError(t, err)
	works(t, fresh, name)
}

// The answer to a refresh was lost, so that the old refresh token is all that there is.
func TestRefreshAgain(t *testing.T) {
	t.Parallel()
	name := user()
	old := signIn(t, name)
	_, err := oauth.Refresh(t.Context(), web, old)
	require.NoError(t, err)
	fresh, err := oauth.Refresh(t.Context(), web, old)
	require.NoError(t, err)
	works(t, fresh, name)
}

func TestRefreshOfServerInTrouble(t *testing.T) {
	t.Parallel()
	name := user()
	tokens := signIn(t, name)
	shared.auth.Fail(tokens.ClientID, http.StatusInternalServerError, 1)
	_, err := oauth.Refresh(t.Context(), web, tokens)
	require.Error(t, err)
	require.NotErrorIs(t, err, oauth.ErrRefused)
	works(t, tokens, name)
	tokens, err = oauth.Refresh(t.Context(), web, tokens)
	require.NoError(t, err)
	works(t, tokens, name)
}

func TestExpired(t *testing.T) {
	t.Parallel()
	name := user()
	shared.auth.SetLife(name, 2*time.Second)
	tokens := signIn(t, name)
	works(t, tokens, name)
	assert.WithinDuration(t, time.Now(), tokens.Expires, 2*time.Second)
	time.Sleep(3 * time.Second) // the homeserver counts full seconds
	ended(t, tokens.Access)
	tokens, err := oauth.Refresh(t.Context(), web, tokens)
	require.NoError(t, err)
	works(t, tokens, name)
}

func TestRevoked(t *testing.T) {
	t.Parallel()
	t.Run("by the bot", func(t *testing.T) {
		t.Parallel()
		name := user()
		tokens := signIn(t, name)
		works(t, tokens, name)
		require.NoError(t, oauth.Revoke(t.Context(), web, tokens))
		ended(t, tokens.Access)
		_, err := oauth.Refresh(t.Context(), web, tokens)
		require.ErrorIs(t, err, oauth.ErrRefused)
		require.NoError(t, oauth.Revoke(t.Context(), web, tokens), "once more")
	})
	t.Run("by the bot, without a refresh token", func(t *testing.T) {
		t.Parallel()
		name := user()
		tokens := signIn(t, name)
		tokens.Refresh = ""
		require.NoError(t, oauth.Revoke(t.Context(), web, tokens))
		ended(t, tokens.Access)
	})
	t.Run("by an administrator", func(t *testing.T) {
		t.Parallel()
		name := user()
		tokens := signIn(t, name)
		works(t, tokens, name)
		require.NoError(t, shared.auth.End(t.Context(), name))
		ended(t, tokens.Access)
		_, err := oauth.Refresh(t.Context(), web, tokens)
		require.ErrorIs(t, err, oauth.ErrRefused)
	})
}
