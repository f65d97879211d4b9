package tokens

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	oauthmeta "maunium.net/go/mautrix/oauth"

	"github.com/roomkv/roomkv/session/internal/folder"
)

// seen is a transport that notes what it gets.
type seen struct {
	w             *world
	authorization []string
	bodies        []string
}

func (s *seen) RoundTrip(req *http.Request) (*http.Response, error) {
	s.authorization = append(s.authorization, req.Header.Get("Authorization"))
	if req.Body != nil {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		s.bodies = append(s.bodies, string(body))
		req = req.Clone(req.Context())
		req.Body = io.NopCloser(bytes.NewReader(body))
	}
	if req.URL.Host != strings.TrimPrefix(s.w.server.URL(), "http://") {
		return says(200, "")(req)
	}
	return s.w.server.RoundTrip(req)
}

func TestOnlyTheHomeserverGetsTheToken(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, _ := w.keeper(t, w.files, nil)
	to := &seen{w: w}
	client := &http.Client{Transport: k.Transport(to)}
	own := k.Token().AccessToken
	for _, test := range []struct{ address, carries, want string }{
		{w.server.URL() + "/_matrix/client/v3/account/whoami", "Bearer old", "Bearer " + own},
		{w.server.URL() + "/_matrix/client/versions", "", ""},
		{w.server.URL() + "/_matrix/client/versions", "Basic x", "Basic x"},
		{strings.Replace(w.server.URL(), "http:", "https:", 1) + "/_matrix/client/versions", "Bearer " + own, ""},
		{w.server.URL() + ":8008/_matrix/client/versions", "Bearer " + own, ""},
		{strings.Replace(w.server.URL(), "http://", "http://sub.", 1) + "/_matrix/client/versions", "Bearer " + own, ""},
		{"http://example.org/", "Bearer another's", "Bearer another's"},
	} {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, test.address, nil)
		require.NoError(t, err)
		if test.carries != "" {
			req.Header.Set("Authorization", test.carries)
		}
		resp, err := client.Do(req)
		require.NoError(t, err)
		require.NoError(t, resp.Body.Close())
		assert.Equal(t, test.carries, req.Header.Get("Authorization"), "the request itself stays as it is")
		assert.Equal(t, test.want, to.authorization[len(to.authorization)-1], test.address)
	}
}

func TestARequestIsSentAgainWithItsBody(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, _ := w.keeper(t, w.files, nil)
	to := &seen{w: w}
	client := &http.Client{Transport: k.Transport(to)}
	post := func(body io.Reader) error {
		req, err := http.NewRequestWithContext(t.Context(), http.MethodPost, clientAPI(w.server.URL(), "v3/createRoom"), body)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer old")
		resp, err := client.Do(req)
		if err == nil {
			assert.Equal(t, 200, resp.StatusCode)
			require.NoError(t, resp.Body.Close())
		}
		return err
	}
	require.NoError(t, w.server.EndAccess(w.client.UserID))
	require.NoError(t, post(strings.NewReader(`{"name": "a room"}`)))
	assert.Equal(t, []string{`{"name": "a room"}`, `{"name": "a room"}`}, to.bodies)

	require.NoError(t, w.server.EndAccess(w.client.UserID))
	err := post(io.MultiReader(strings.NewReader(`{}`)))
	require.ErrorIs(t, err, errBody)
	require.NoError(t, post(io.MultiReader(strings.NewReader(`{}`))), "the token is a new one")
}

// Other answers with status 401 are the caller's.
func TestOtherRefusalsPass(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	k, client := w.keeper(t, w.files, nil)
	for _, body := range []string{`{"errcode": "M_USER_LOCKED", "soft_logout": true}`, `{"flows": [], "session": "x"}`, "no", "", `{"errcode": "M_UNKNOWN_TOKEN"`} {
		w.answer("whoami", says(401, body))
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, clientAPI(w.server.URL(), "v3/account/whoami"), nil)
		require.NoError(t, err)
		req.Header.Set("Authorization", "Bearer old")
		resp, err := client.Do(req)
		require.NoError(t, err)
		got, err := io.ReadAll(resp.Body)
		require.NoError(t, err)
		assert.Equal(t, 401, resp.StatusCode)
		assert.Equal(t, body, string(got))
	}
	require.NoError(t, k.Err())
	assert.Zero(t, w.requests("refresh"))
}

// A mautrix client shows the token, and neither it nor package roomkv tries again once the session has ended.
func TestAClientOfMautrix(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	client, err := mautrix.NewClient(w.server.URL(), w.start.UserID, "")
	require.NoError(t, err)
	client.DefaultHTTPRetries, client.DefaultHTTPBackoff = 5, time.Hour
	k, transport := w.keeper(t, w.files, func(c *Config) { c.Changed = Changed(client) })
	client.Client = transport
	assert.Equal(t, w.start.AccessToken, client.AccessToken)
	require.NoError(t, w.server.EndAccess(w.start.UserID))
	_, err = client.Whoami(t.Context())
	require.NoError(t, err)
	assert.Equal(t, k.Token().AccessToken, client.AccessToken)
	client.OAuthSetServerMetadata(&oauthmeta.ServerMetadata{TokenEndpoint: "https://auth.example.org/token"})
	require.ErrorIs(t, client.OAuthRefreshToken(t.Context(), 0), mautrix.ErrNoRefreshToken)
	require.NoError(t, w.server.LogOut(w.start.UserID))
	_, err = client.Whoami(t.Context())
	require.ErrorIs(t, err, ErrSignedOut)
	require.ErrorIs(t, err, mautrix.MUnknownToken)
}

func TestRefreshByOAuth(t *testing.T) {
	t.Parallel()
	w := newWorld(t, time.Minute)
	token := Token{Homeserver: w.server.URL(), UserID: w.start.UserID, DeviceID: w.start.DeviceID, AccessToken: "ended", RefreshToken: "first",
		OAuth: &OAuthClient{ClientID: "client", TokenEndpoint: "https://auth.example.org/token"}}
	files := folder.InMemory()
	require.NoError(t, Save(files, token))
	var form url.Values
	answer := `{"access_token": "` + w.start.AccessToken + `", "expires_in": 300, "token_type": "Bearer"}`
	w.answer("token", func(req *http.Request) (*http.Response, error) {
		body, err := io.ReadAll(req.Body)
		if err != nil {
			return nil, err
		}
		form, err = url.ParseQuery(string(body))
		assert.Equal(t, "auth.example.org", req.URL.Host)
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(answer))}, err
	})
	k, client := w.keeper(t, files, func(c *Config) { c.Password = nil })
	w.good(t, client)
	assert.Equal(t, url.Values{"grant_type": {"refresh_token"}, "refresh_token": {"first"}, "client_id": {"client"}}, form)
	assert.Equal(t, "first", k.Token().RefreshToken, "no other was given")
	assert.Equal(t, 5*time.Minute, k.Token().Expires.Sub(w.now()))

	require.NoError(t, w.server.EndAccess(w.start.UserID))
	w.answer("token", says(400, `{"error": "invalid_grant", "error_description": "first was used"}`))
	_, err := w.whoami(t.Context(), client)
	require.ErrorIs(t, err, ErrSignedOut)
	assert.NotContains(t, err.Error(), "first")
	kept, _, err := Load(files)
	require.NoError(t, err)
	assert.Equal(t, token.OAuth, kept.OAuth)
}

func TestWhatAServerSays(t *testing.T) {
	t.Parallel()
	for body, want := range map[string]Answer{
		`{"errcode": "M_LIMIT_EXCEEDED", "error": "too_many", "retry_after_ms": 1500}`: {Status: 400, Code: "M_LIMIT_EXCEEDED", After: 1500},
		`{"errcode": "secret thing", "error": "invalid_grant"}`:                        {Status: 400},
		`{"error": "invalid_grant"}`:                                                   {Status: 400, Code: "invalid_grant"},
		`{"error": "Unknown token", "soft_logout": true}`:                              {Status: 400, Soft: true},
		`{"retry_after_ms": 1e300}`:                                                    {Status: 400},
		`{"retry_after_ms": -1, "errcode": 7}`:                                         {Status: 400},
		`[]`:                                                                           {Status: 400},
	} {
		assert.Equal(t, want, *read(&http.Response{StatusCode: 400, Header: http.Header{}}, []byte(body)), body)
	}
	assert.EqualValues(t, 7000, read(&http.Response{Header: http.Header{"Retry-After": {"7"}}}, nil).After)

	text, err := json.Marshal(map[string]string{"access_token": strings.Repeat("x", maxAnswer)})
	require.NoError(t, err)
	client := &http.Client{Transport: transporting(says(200, string(text)))}
	require.ErrorContains(t, Get(t.Context(), client, "http://example.org", "", new(any)), "too large")
	client.Transport = transporting(func(*http.Request) (*http.Response, error) { return nil, errors.New("reset") })
	require.ErrorContains(t, Get(t.Context(), client, "http://example.org/?secret", "", new(any)), "no answer from example.org: reset")
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	require.ErrorIs(t, Get(ctx, http.DefaultClient, "http://example.org", "", nil), context.Canceled)
}

type transporting func(*http.Request) (*http.Response, error)

func (f transporting) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }
