package oauth

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const issuer = "https://auth.example.org/"

// stub is an authorization server and a homeserver that answer what a test says, in any time.
type stub struct {
	mu      sync.Mutex
	answers map[string][]reply // by path; the last one stays
	asked   []*question
}

type reply struct {
	status int
	body   string
	err    error
}

type question struct {
	path string
	form url.Values
	json map[string]any
	at   time.Time
}

func (s *stub) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := io.ReadAll(req.Body)
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	asked := &question{path: req.URL.Path, at: time.Now()}
	asked.form, _ = url.ParseQuery(string(body))
	_ = json.Unmarshal(body, &asked.json)
	s.asked = append(s.asked, asked)
	given := s.answers[req.URL.Path]
	if len(given) == 0 {
		given = []reply{{status: 404, body: `{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}`}}
	}
	if len(given) > 1 {
		s.answers[req.URL.Path] = given[1:]
	}
	if given[0].err != nil {
		return nil, given[0].err
	}
	header := http.Header{}
	if given[0].status/100 == 3 {
		header.Set("Location", given[0].body)
	}
	return &http.Response{StatusCode: given[0].status, Header: header, Body: io.NopCloser(bytes.NewReader([]byte(given[0].body))), Request: req}, nil
}

func (s *stub) client() *http.Client { return &http.Client{Transport: s} }

// of are the requests for a path.
func (s *stub) of(path string) (found []*question) {
	for _, asked := range s.asked {
		if asked.path == path {
			found = append(found, asked)
		}
	}
	return found
}

// full is metadata as a server has it, with changes.
func full(changes map[string]any) string {
	all := map[string]any{
		"issuer": issuer, "authorization_endpoint": issuer + "authorize?tenant=7", "token_endpoint": issuer + "token", "registration_endpoint": issuer + "register",
		"revocation_endpoint": issuer + "revoke", "device_authorization_endpoint": issuer + "device", "code_challenge_methods_supported": []string{"plain", "S256"},
	}
	for name, value := range changes {
		all[name] = value
	}
	text, _ := json.Marshal(all)
	return string(text)
}

func newStub(t *testing.T) (*stub, *Server) {
	t.Helper()
	s := &stub{answers: map[string][]reply{metadataPath: {{status: 200, body: full(nil)}}}}
	server, err := Discover(t.Context(), s.client(), "https://hs.example.org/", "")
	require.NoError(t, err)
	return s, server
}

var bot = Who{ClientID: "client", Device: "ROOMKVABCDEFGH", User: "@bot:example.org"}

const goodTokens = `{"access_token":"acc","refresh_token":"ref","token_type":"bearer","expires_in":300}`

func TestMetadata(t *testing.T) {
	const given = "/elsewhere"
	for _, c := range []struct {
		name     string
		answers  map[string][]reply
		address  string
		unstable bool
		err      error
	}{
		{name: "stable", answers: map[string][]reply{metadataPath: {{status: 200, body: full(nil)}}}},
		{name: "unstable", answers: map[string][]reply{unstableMetadataPath: {{status: 200, body: full(nil)}}}, unstable: true},
		{name: "unstable with stable scopes", answers: map[string][]reply{unstableMetadataPath: {{status: 200,
			body: full(map[string]any{"scopes_supported": []string{scopeAPI, unstableScopeAPI}})}}}},
		{name: "only unstable scopes", answers: map[string][]reply{metadataPath: {{status: 200,
			body: full(map[string]any{"scopes_supported": []string{"openid", unstableScopeAPI}})}}}, unstable: true},
		{name: "given", answers: map[string][]reply{given: {{status: 200, body: full(nil)}}}, address: "https://auth.example.org" + given},
		{name: "given without TLS", answers: map[string][]reply{given: {{status: 200, body: full(nil)}}}, address: "http://auth.example.org" + given, err: ErrInsecure},
		{name: "redirected without TLS", answers: map[string][]reply{metadataPath: {{status: 302, body: "http://auth.example.org" + given}},
			given: {{status: 200, body: full(nil)}}}, err: ErrInsecure},
		{name: "none", err: ErrUnsupported},
		{name: "no issuer", answers: map[string][]reply{metadataPath: {{status: 200, body: full(map[string]any{"issuer": ""})}}}, err: ErrUnsupported},
		{name: "token endpoint without TLS", answers: map[string][]reply{metadataPath: {{status: 200,
			body: full(map[string]any{"token_endpoint": "http://auth.example.org/token"})}}}, err: ErrInsecure},
		{name: "revocation endpoint without TLS", answers: map[string][]reply{metadataPath: {{status: 200,
			body: full(map[string]any{"revocation_endpoint": "http://10.0.0.1/revoke"})}}}, err: ErrInsecure},
		{name: "script in place of an endpoint", answers: map[string][]reply{metadataPath: {{status: 200,
			body: full(map[string]any{"authorization_endpoint": "javascript:alert(1)"})}}}, err: ErrUnsupported},
		{name: "on this machine", answers: map[string][]reply{metadataPath: {{status: 200,
			body: full(map[string]any{"token_endpoint": "http://127.0.0.1:8090/token", "revocation_endpoint": "http://[::1]/revoke", "registration_endpoint": "http://localhost:1/"})}}}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := &stub{answers: c.answers}
			server, err := Discover(t.Context(), s.client(), "https://hs.example.org", c.address)
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
				return
			}
			require.NoError(t, err)
			assert.Equal(t, c.unstable, server.unstable)
			scopes := strings.Join(server.scopes("DEV"), " ")
			if c.unstable {
				assert.Equal(t, "urn:matrix:org.matrix.msc2967.client:api:* urn:matrix:org.matrix.msc2967.client:device:DEV", scopes)
			} else {
				assert.Equal(t, "urn:matrix:client:api:* urn:matrix:client:device:DEV", scopes)
			}
		})
	}
}

// A homeserver in trouble is not taken for one without OAuth 2.
func TestMetadataInTrouble(t *testing.T) {
	s := &stub{answers: map[string][]reply{metadataPath: {{status: 502, body: "<html>"}}, unstableMetadataPath: {{status: 200, body: full(nil)}}}}
	_, err := Discover(t.Context(), s.client(), "https://hs.example.org", "")
	var answer *Error
	require.ErrorAs(t, err, &answer)
	assert.Equal(t, 502, answer.Status)
	assert.NotErrorIs(t, err, ErrUnsupported)
}

func TestRegister(t *testing.T) {
	s, server := newStub(t)
	s.answers["/register"] = []reply{{status: 201, body: `{"client_id":"01CLIENT"}`}}
	client, err := server.Register(t.Context(), App{Name: "a bot", URI: "https://example.org/bot", Redirect: "http://127.0.0.1:8123/callback"})
	require.NoError(t, err)
	assert.Equal(t, "01CLIENT", client)
	assert.Equal(t, map[string]any{
		"application_type": "native", "client_name": "a bot", "client_uri": "https://example.org/bot", "token_endpoint_auth_method": "none",
		"grant_types": []any{"authorization_code", "refresh_token"}, "response_types": []any{"code"}, "redirect_uris": []any{"http://127.0.0.1/callback"},
	}, s.of("/register")[0].json)

	_, err = server.Register(t.Context(), App{Name: "a bot", URI: "https://example.org/bot"})
	require.NoError(t, err)
	assert.Equal(t, []any{grantDevice, "refresh_token"}, s.of("/register")[1].json["grant_types"])
	assert.Equal(t, []any{}, s.of("/register")[1].json["response_types"])
	assert.NotContains(t, s.of("/register")[1].json, "redirect_uris")

	s.answers["/register"] = []reply{{status: 400, body: `{"error":"invalid_client_metadata","error_description":"client_uri must be https"}`}}
	_, err = server.Register(t.Context(), App{})
	assert.EqualError(t, err, `authorization server: registering a client: HTTP 400: invalid_client_metadata ("client_uri must be https")`)

	server.metadata.Registration = ""
	_, err = server.Register(t.Context(), App{})
	assert.ErrorIs(t, err, ErrUnsupported)
}

func TestPasting(t *testing.T) {
	for _, c := range []struct {
		name string
		end  func(url.Values) string // the query of the address that is pasted
		err  error
	}{
		{name: "approved", end: func(q url.Values) string { return "code=c&state=" + q.Get("state") }},
		{name: "approved by the right server", end: func(q url.Values) string {
			return "code=c&state=" + q.Get("state") + "&iss=" + url.QueryEscape(issuer)
		}},
		{name: "denied", end: func(q url.Values) string { return "error=access_denied&state=" + q.Get("state") }, err: ErrDenied},
		{name: "another state", end: func(url.Values) string { return "code=c&state=other" }, err: ErrState},
		{name: "no state", end: func(url.Values) string { return "code=c" }, err: ErrState},
		{name: "denied with another state", end: func(url.Values) string { return "error=access_denied&state=other" }, err: ErrState},
		{name: "another server", end: func(q url.Values) string { return "code=c&state=" + q.Get("state") + "&iss=https://evil.example.org/" }, err: ErrState},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, server := newStub(t)
			s.answers["/token"] = []reply{{status: 200, body: goodTokens}}
			before := time.Now()
			var opened url.Values
			tokens, err := server.ByPasting(t.Context(), bot, DefaultRedirect, func(_ context.Context, address string) (string, error) {
				assert.True(t, strings.HasPrefix(address, issuer+"authorize?"), address)
				parsed, err := url.Parse(address)
				require.NoError(t, err)
				opened = parsed.Query()
				return " " + DefaultRedirect + "?" + c.end(opened) + "\n", nil
			})
			if c.err != nil {
				require.ErrorIs(t, err, c.err)
				assert.Empty(t, s.of("/token"))
				return
			}
			require.NoError(t, err)
			assert.Equal(t, "7", opened.Get("tenant"), "the endpoint's own query")
			assert.Equal(t, "code", opened.Get("response_type"))
			assert.Equal(t, "query", opened.Get("response_mode"))
			assert.Equal(t, "client", opened.Get("client_id"))
			assert.Equal(t, "S256", opened.Get("code_challenge_method"))
			assert.Equal(t, "mxid:@bot:example.org", opened.Get("login_hint"))
			assert.Equal(t, "urn:matrix:client:api:* urn:matrix:client:device:ROOMKVABCDEFGH", opened.Get("scope"))
			form := s.of("/token")[0].form
			assert.Equal(t, "c", form.Get("code"))
			assert.Equal(t, DefaultRedirect, form.Get("redirect_uri"))
			assert.Len(t, form.Get("code_verifier"), 43)
			assert.NotContains(t, opened, "code_verifier")
			assert.WithinRange(t, tokens.Expires, before.Add(300*time.Second), time.Now().Add(300*time.Second))
			tokens.Expires = time.Time{}
			assert.Equal(t, Tokens{Access: "acc", Refresh: "ref", ClientID: "client", Device: "ROOMKVABCDEFGH", TokenEndpoint: issuer + "token", RevocationEndpoint: issuer + "revoke"}, tokens)
		})
	}
}

// What is pasted can be anything, and has a code where it is the right thing.
func TestPastedTextIsNotInErrors(t *testing.T) {
	_, server := newStub(t)
	for _, pasted := range []string{"", "hello", "http://127.0.0.1/callback?code=SECRET", "http://[::1/?code=SECRET", "%zz?code=SECRET", "http://127.0.0.1/callback?code=SECRET&state=%zz"} {
		_, err := server.ByPasting(t.Context(), bot, DefaultRedirect, func(context.Context, string) (string, error) { return pasted, nil })
		require.ErrorIs(t, err, ErrState, pasted)
		assert.NotContains(t, err.Error(), "SECRET")
	}
}

// by signs in by pasting, with what the token endpoint answers.
func by(t *testing.T, answers ...reply) (*stub, Tokens, error) {
	t.Helper()
	s, server := newStub(t)
	s.answers["/token"] = answers
	tokens, err := server.ByPasting(t.Context(), bot, DefaultRedirect, func(_ context.Context, address string) (string, error) {
		parsed, err := url.Parse(address)
		return DefaultRedirect + "?code=c&state=" + parsed.Query().Get("state"), err
	})
	return s, tokens, err
}

func TestExchange(t *testing.T) {
	t.Run("a server in trouble is asked again", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, tokens, err := by(t, reply{status: 502, body: "<html>"}, reply{err: errors.New("connection reset")}, reply{status: 200, body: goodTokens})
			require.NoError(t, err)
			assert.Equal(t, "acc", tokens.Access)
			assert.Len(t, s.of("/token"), 3)
		})
	})
	t.Run("not for ever", func(t *testing.T) {
		synctest.Test(t, func(t *testing.T) {
			s, _, err := by(t, reply{status: 503})
			require.ErrorContains(t, err, "HTTP 503")
			assert.Len(t, s.of("/token"), exchanges)
		})
	})
	t.Run("a code that is refused", func(t *testing.T) {
		s, _, err := by(t, reply{status: 400, body: `{"error":"invalid_grant","error_description":"no code c"}`})
		require.ErrorIs(t, err, ErrRefused)
		assert.NotContains(t, err.Error(), "no code c", "the description can repeat a secret")
		assert.Len(t, s.of("/token"), 1)
	})
	t.Run("without the device's scope", func(t *testing.T) {
		_, _, err := by(t, reply{status: 200, body: `{"access_token":"acc","token_type":"Bearer","scope":"openid urn:matrix:client:api:*"}`})
		require.ErrorIs(t, err, ErrUnsupported)
		assert.ErrorContains(t, err, "urn:matrix:client:device:ROOMKVABCDEFGH")
	})
	t.Run("answers that are none", func(t *testing.T) {
		for _, body := range []string{"", "SECRET", `{"access_token":`, `{"access_token":12345678901234567890}`, `{"access_token":"SECRET","token_type":"mac"}`, `{"token_type":"Bearer"}`} {
			_, _, err := by(t, reply{status: 200, body: body})
			require.Error(t, err, body)
			assert.NotContains(t, err.Error(), "SECRET")
			assert.NotContains(t, err.Error(), "1234567890")
		}
	})
	t.Run("a redirect is not followed", func(t *testing.T) {
		s, _, err := by(t, reply{status: 307, body: "https://evil.example.org/token"})
		require.ErrorContains(t, err, "HTTP 307")
		assert.Len(t, s.of("/token"), 1)
	})
}

func TestNoPKCE(t *testing.T) {
	_, server := newStub(t)
	server.metadata.Challenges = []string{"plain"}
	_, err := server.ByPasting(t.Context(), bot, DefaultRedirect, func(context.Context, string) (string, error) { return "", errors.New("not called") })
	assert.ErrorIs(t, err, ErrUnsupported)
}
