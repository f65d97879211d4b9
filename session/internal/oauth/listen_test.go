package oauth

import (
	"context"
	"errors"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// visit opens a page as a browser does, and returns the status.
func visit(t *testing.T, method, address string) int {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, address, nil)
	require.NoError(t, err)
	resp, err := http.DefaultClient.Do(req)
	require.NoError(t, err)
	require.NoError(t, resp.Body.Close())
	return resp.StatusCode
}

func TestListening(t *testing.T) {
	s, server := newStub(t)
	s.answers["/token"] = []reply{{status: 200, body: goodTokens}}
	var redirect string
	tokens, err := server.ByListening(t.Context(), bot, DefaultRedirect, func(_ context.Context, address string) error {
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		redirect = parsed.Query().Get("redirect_uri")
		state := parsed.Query().Get("state")
		assert.Regexp(t, `^http://127\.0\.0\.1:\d+/callback$`, redirect)
		assert.Equal(t, 404, visit(t, http.MethodGet, strings.TrimSuffix(redirect, "/callback")+"/favicon.ico"))
		assert.Equal(t, 404, visit(t, http.MethodPost, redirect+"?code=c&state="+state))
		assert.Equal(t, 400, visit(t, http.MethodGet, redirect+"?code=planted&state=other"))
		assert.Equal(t, 400, visit(t, http.MethodGet, redirect+"?error=access_denied&state=other"))
		assert.Equal(t, 200, visit(t, http.MethodGet, redirect+"?code=c&state="+state))
		assert.Equal(t, 200, visit(t, http.MethodGet, redirect+"?code=c&state="+state), "a browser that loads the page again")
		return nil
	})
	require.NoError(t, err)
	assert.Equal(t, "acc", tokens.Access)
	require.Len(t, s.of("/token"), 1)
	assert.Equal(t, "c", s.of("/token")[0].form.Get("code"))
	assert.Equal(t, redirect, s.of("/token")[0].form.Get("redirect_uri"))

	_, err = http.Get(redirect) //nolint:noctx // nobody answers
	assert.Error(t, err, "nothing listens afterwards")
}

func TestListeningDenied(t *testing.T) {
	_, server := newStub(t)
	_, err := server.ByListening(t.Context(), bot, "http://localhost/", func(_ context.Context, address string) error {
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		query := parsed.Query()
		assert.Equal(t, 403, visit(t, http.MethodGet, strings.Replace(query.Get("redirect_uri"), "localhost", "127.0.0.1", 1)+"?error=access_denied&state="+query.Get("state")))
		return nil
	})
	assert.ErrorIs(t, err, ErrDenied)
}

func TestListeningEnds(t *testing.T) {
	_, server := newStub(t)
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
	defer cancel()
	_, err := server.ByListening(ctx, bot, DefaultRedirect, func(context.Context, string) error { return nil })
	require.ErrorIs(t, err, context.DeadlineExceeded)

	wanted := errors.New("no screen")
	_, err = server.ByListening(t.Context(), bot, DefaultRedirect, func(context.Context, string) error { return wanted })
	require.ErrorIs(t, err, wanted)

	for _, redirect := range []string{"https://127.0.0.1/callback", "http://bot.example.org/callback", "bot:/callback", "http://0.0.0.0:8000/"} {
		_, err = server.ByListening(t.Context(), bot, redirect, func(context.Context, string) error { return nil })
		require.ErrorContains(t, err, "redirect", redirect)
	}
}
