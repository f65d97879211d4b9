package authserver

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/session/internal/oauth"
)

func TestListening(t *testing.T) {
	t.Parallel()
	name := user()
	server, who := registered(t, name, app)
	tokens, err := server.ByListening(t.Context(), who, app.Redirect, func(ctx context.Context, address string) error {
		ended, err := browse(ctx, address)
		assert.Contains(t, ended, "http://127.0.0.1:")
		return err
	})
	require.NoError(t, err)
	works(t, tokens, name)
	assert.NotEmpty(t, tokens.Refresh)
	assert.WithinDuration(t, time.Now().Add(defaultLife), tokens.Expires, 30*time.Second)
}

func TestPasting(t *testing.T) {
	t.Parallel()
	name := user()
	works(t, signIn(t, name), name)
}

// The administrator of a bot can have a page of its own where the browser ends.
func TestPastingFromOwnPage(t *testing.T) {
	t.Parallel()
	name := user()
	own := app
	own.Redirect = "https://bot.example.org/signed-in"
	server, who := registered(t, name, own)
	tokens, err := server.ByPasting(t.Context(), who, own.Redirect, browse)
	require.NoError(t, err)
	works(t, tokens, name)
}

func TestMetadataByURL(t *testing.T) {
	t.Parallel()
	name := user()
	server, err := oauth.Discover(t.Context(), web, "http://nowhere.invalid", shared.auth.URL+discoveryPath)
	require.NoError(t, err)
	_, who := registered(t, name, app)
	tokens, err := server.ByPasting(t.Context(), who, app.Redirect, browse)
	require.NoError(t, err)
	works(t, tokens, name)
}

// A homeserver's metadata in an old Synapse's place, with the scopes that were known then.
func TestUnstableNames(t *testing.T) {
	t.Parallel()
	name := user()
	_, who := registered(t, name, app)
	server, err := oauth.Discover(t.Context(), &http.Client{Timeout: time.Minute, Transport: withoutStable{}}, shared.hs, "")
	require.NoError(t, err)
	var scope string
	tokens, err := server.ByPasting(t.Context(), who, app.Redirect, func(ctx context.Context, address string) (string, error) {
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		scope = parsed.Query().Get("scope")
		return browse(ctx, address)
	})
	require.NoError(t, err)
	assert.Equal(t, "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:"+string(who.Device), scope)
	works(t, tokens, name)
}

// withoutStable is a homeserver that does not know the stable endpoint.
type withoutStable struct{}

func (withoutStable) RoundTrip(req *http.Request) (*http.Response, error) {
	if !strings.HasSuffix(req.URL.Path, "/v1/auth_metadata") {
		return http.DefaultTransport.RoundTrip(req)
	}
	answer := httptest.NewRecorder()
	answer.WriteHeader(http.StatusNotFound)
	return answer.Result(), nil
}

func TestDenied(t *testing.T) {
	t.Parallel()
	name := user()
	shared.auth.Refuse(name)
	server, who := registered(t, name, app)
	_, err := server.ByPasting(t.Context(), who, app.Redirect, browse)
	require.ErrorIs(t, err, oauth.ErrDenied)
	_, err = server.ByListening(t.Context(), who, app.Redirect, func(ctx context.Context, address string) error {
		_, err := browse(ctx, address)
		return err
	})
	assert.ErrorIs(t, err, oauth.ErrDenied)
}

// Somebody has the bot take a code of another sign-in.
func TestState(t *testing.T) {
	t.Parallel()
	name := user()
	server, who := registered(t, name, app)
	var other string
	_, err := server.ByPasting(t.Context(), who, app.Redirect, func(ctx context.Context, address string) (ended string, err error) {
		other, err = browse(ctx, address)
		return "", err
	})
	require.ErrorIs(t, err, oauth.ErrState)
	_, err = server.ByPasting(t.Context(), who, app.Redirect, func(context.Context, string) (string, error) { return other, nil })
	require.ErrorIs(t, err, oauth.ErrState)

	tokens, err := server.ByListening(t.Context(), who, app.Redirect, func(ctx context.Context, address string) error {
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		planted, err := url.Parse(other)
		require.NoError(t, err)
		resp, err := web.Get(parsed.Query().Get("redirect_uri") + "?" + planted.RawQuery)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, http.StatusBadRequest, resp.StatusCode)
		_, err = browse(ctx, address)
		return err
	})
	require.NoError(t, err, "the right callback counts still")
	works(t, tokens, name)
}

// A code is worth nothing to another attempt: the server has the challenge of the first.
func TestPKCE(t *testing.T) {
	t.Parallel()
	server, who := registered(t, user(), app)
	_, err := server.ByPasting(t.Context(), who, app.Redirect, func(ctx context.Context, address string) (string, error) {
		parsed, err := url.Parse(address)
		require.NoError(t, err)
		query := parsed.Query()
		query.Set("code_challenge", "E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM")
		parsed.RawQuery = query.Encode()
		return browse(ctx, parsed.String())
	})
	assert.ErrorIs(t, err, oauth.ErrRefused)
}

func TestServerInTroubleAfterApproval(t *testing.T) {
	t.Parallel()
	name := user()
	server, who := registered(t, name, app)
	shared.auth.Fail(who.ClientID, http.StatusBadGateway, 2)
	tokens, err := server.ByPasting(t.Context(), who, app.Redirect, browse)
	require.NoError(t, err)
	works(t, tokens, name)
}

func TestRegistrationRefused(t *testing.T) {
	t.Parallel()
	server, err := oauth.Discover(t.Context(), web, shared.hs, "")
	require.NoError(t, err)
	for _, wrong := range []oauth.App{
		{Name: "a bot", URI: "http://bot.example.org/", Redirect: oauth.DefaultRedirect},
		{Name: "a bot", URI: "https://bot.example.org/", Redirect: "https://other.example.org/"},
	} {
		_, err = server.Register(t.Context(), wrong)
		var answer *oauth.Error
		require.ErrorAs(t, err, &answer)
		assert.Equal(t, http.StatusBadRequest, answer.Status)
	}
}

func TestDeviceCode(t *testing.T) {
	t.Parallel()
	byCode := app
	byCode.Redirect = ""
	t.Run("pending, then approved", func(t *testing.T) {
		t.Parallel()
		name := user()
		server, who := registered(t, name, byCode)
		tokens, err := server.ByDeviceCode(t.Context(), who, func(_ context.Context, code oauth.UserCode) error {
			assert.Contains(t, code.FullURL, code.Code)
			time.AfterFunc(deviceInterval*3/2, func() { assert.NoError(t, shared.auth.Approve(code.Code, name)) })
			return nil
		})
		require.NoError(t, err)
		works(t, tokens, name)
		fresh, err := refresh(t, tokens)
		require.NoError(t, err)
		works(t, fresh, name)
	})
	t.Run("slow_down", func(t *testing.T) {
		t.Parallel()
		name := user()
		server, who := registered(t, name, byCode)
		start := time.Now()
		tokens, err := server.ByDeviceCode(t.Context(), who, func(_ context.Context, code oauth.UserCode) error {
			assert.NoError(t, shared.auth.SlowDown(code.Code, 1))
			return shared.auth.Approve(code.Code, name)
		})
		require.NoError(t, err)
		assert.GreaterOrEqual(t, time.Since(start), 7*time.Second)
		works(t, tokens, name)
	})
	t.Run("denied", func(t *testing.T) {
		t.Parallel()
		server, who := registered(t, user(), byCode)
		_, err := server.ByDeviceCode(t.Context(), who, func(_ context.Context, code oauth.UserCode) error { return shared.auth.Deny(code.Code) })
		assert.ErrorIs(t, err, oauth.ErrDenied)
	})
	t.Run("server in trouble", func(t *testing.T) {
		t.Parallel()
		name := user()
		server, who := registered(t, name, byCode)
		tokens, err := server.ByDeviceCode(t.Context(), who, func(_ context.Context, code oauth.UserCode) error {
			shared.auth.Fail(who.ClientID, http.StatusServiceUnavailable, 1)
			return shared.auth.Approve(code.Code, name)
		})
		require.NoError(t, err)
		works(t, tokens, name)
	})
}
