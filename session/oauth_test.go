package session

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// authority is an authorization server and a homeserver, as far as [Open] sees them. The module authserver has a real one.
type authority struct {
	t          *testing.T
	homeserver *fakehs.Server
	user       string // who approves
	refuses    bool   // whether refresh tokens are refused
	life       int    // of an access token, in seconds

	mu       sync.Mutex
	scope    string
	access   map[string]time.Time // when a token ends
	refresh  string               // the one that is good
	asked    map[string]int       // how often, by path
	clientID string
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, homeserver: fakehs.New(fakehs.Options{Mode: fakehs.Forking}), user: "bot", life: 300, access: map[string]time.Time{}, asked: map[string]int{}}
	a.delegate()
	return a
}

// delegate has the homeserver ask, and forget what it has asked for.
func (a *authority) delegate() {
	a.homeserver.Delegate(fakehs.Delegation{
		Secret: "secret",
		Metadata: func(context.Context) (json.RawMessage, error) {
			return json.RawMessage(`{"issuer":"https://auth.invalid/","authorization_endpoint":"https://auth.invalid/authorize","token_endpoint":"https://auth.invalid/token",
				"registration_endpoint":"https://auth.invalid/register","revocation_endpoint":"https://auth.invalid/revoke"}`), nil
		},
		Introspect: func(_ context.Context, token string) (fakehs.Introspection, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			left := int64(time.Until(a.access[token]).Seconds())
			return fakehs.Introspection{Active: left > 0, Scope: a.scope, Username: a.user, ExpiresIn: &left}, nil
		},
	})
}

// end ends all access tokens.
func (a *authority) end() {
	a.mu.Lock()
	clear(a.access)
	a.mu.Unlock()
	a.delegate()
}

// RoundTrip implements [http.RoundTripper].
func (a *authority) RoundTrip(req *http.Request) (*http.Response, error) {
	if req.URL.Host != "auth.invalid" {
		return a.homeserver.RoundTrip(req)
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked[req.URL.Path]++
	answer := httptest.NewRecorder()
	switch req.URL.Path {
	case "/register":
		a.clientID = "client-1"
		fmt.Fprintf(answer, `{"client_id":%q}`, a.clientID)
	case "/token":
		assert.NoError(a.t, req.ParseForm())
		assert.Equal(a.t, a.clientID, req.PostForm.Get("client_id"))
		if req.PostForm.Get("grant_type") == "refresh_token" && (a.refuses || req.PostForm.Get("refresh_token") != a.refresh) {
			answer.WriteHeader(http.StatusBadRequest)
			fmt.Fprint(answer, `{"error":"invalid_grant"}`)
			break
		}
		access := fmt.Sprintf("SECRET-access-%d", a.asked["/token"])
		a.access[access] = time.Now().Add(time.Duration(a.life) * time.Second)
		a.refresh = fmt.Sprintf("SECRET-refresh-%d", a.asked["/token"])
		fmt.Fprintf(answer, `{"access_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":%d}`, access, a.refresh, a.life)
	case "/revoke":
	default:
		answer.WriteHeader(http.StatusNotFound)
	}
	return answer.Result(), nil
}

// approve is the person with the browser. They make the user and the device known, as an authorization server does.
func (a *authority) approve(ctx context.Context, address string) (string, error) {
	parsed, err := url.Parse(address)
	if err != nil {
		return "", err
	}
	a.mu.Lock()
	a.scope = parsed.Query().Get("scope")
	_, device, _ := strings.Cut(a.scope, "client:device:")
	a.mu.Unlock()
	a.provision(ctx, "provision_user", fmt.Sprintf(`{"localpart":%q}`, a.user))
	a.provision(ctx, "upsert_device", fmt.Sprintf(`{"localpart":%q,"device_id":%q}`, a.user, device))
	return parsed.Query().Get("redirect_uri") + "?code=SECRET-code&state=" + parsed.Query().Get("state"), nil
}

func (a *authority) provision(ctx context.Context, what, body string) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, a.homeserver.URL()+"/_synapse/mas/"+what, strings.NewReader(body))
	assert.NoError(a.t, err)
	req.Header.Set("Authorization", "Bearer secret")
	_, err = a.homeserver.RoundTrip(req)
	assert.NoError(a.t, err)
}

func (a *authority) config(dir string) Config {
	return Config{Homeserver: a.homeserver.URL(), User: "bot", Dir: dir, NoEncryption: true, OAuth: &OAuth{Flow: OAuthPaste, AskURL: a.approve}}
}

func TestOAuth(t *testing.T) {
	a := newAuthority(t)
	config := a.config(filepath.Join(t.TempDir(), "bot"))
	bot, err := open(t.Context(), config, a)
	require.NoError(t, err)
	who, err := bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	assert.Equal(t, id.UserID("@bot:fakehs"), who.UserID)
	assert.Equal(t, bot.Client.DeviceID, who.DeviceID)
	require.NoError(t, bot.Close())

	// Nobody is asked again.
	config.OAuth.AskURL = func(context.Context, string) (string, error) { return "", errors.New("asked again") }
	bot, err = open(t.Context(), config, a)
	require.NoError(t, err)
	again, err := bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	assert.Equal(t, who, again)
	assert.Equal(t, map[string]int{"/register": 1, "/token": 1}, a.asked)

	// The token is refreshed where the homeserver has ended it.
	kept, err := os.ReadFile(filepath.Join(config.Dir, "token.json"))
	require.NoError(t, err)
	assert.Contains(t, string(kept), "SECRET-refresh-1")
	a.end()
	_, err = bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	kept, err = os.ReadFile(filepath.Join(config.Dir, "token.json"))
	require.NoError(t, err)
	assert.Contains(t, string(kept), "SECRET-refresh-2")

	// A session that was revoked is a named error at once, and a person approves again at the next start.
	a.refuses = true
	a.end()
	_, err = bot.Client.Whoami(t.Context())
	require.ErrorIs(t, err, ErrSignedOut)
	assert.NotContains(t, err.Error(), "SECRET")
	require.NoError(t, bot.Close())
	config.OAuth.AskURL = a.approve
	_, err = open(t.Context(), a.config(config.Dir), a)
	require.NoError(t, err)
}

func TestOAuthOfAnotherUser(t *testing.T) {
	a := newAuthority(t)
	a.user = "mallory"
	_, err := open(t.Context(), a.config(filepath.Join(t.TempDir(), "bot")), a)
	require.ErrorIs(t, err, ErrInvalidConfig)
	require.ErrorContains(t, err, "it was @mallory:fakehs who approved")
	assert.Equal(t, 1, a.asked["/revoke"], "that user's device does not stay")
}

func TestOAuthRefusals(t *testing.T) {
	a := newAuthority(t)
	config := a.config(filepath.Join(t.TempDir(), "bot"))
	config.OAuth.AskURL = func(context.Context, string) (string, error) {
		return "http://127.0.0.1/callback?code=SECRET&state=other", nil
	}
	_, err := open(t.Context(), config, a)
	require.ErrorIs(t, err, ErrSignedOut)
	assert.NotContains(t, err.Error(), "SECRET")

	config.OAuth = &OAuth{Flow: OAuthDeviceCode, ShowCode: func(context.Context, UserCode) error { return nil }}
	_, err = open(t.Context(), config, a)
	require.ErrorIs(t, err, ErrInvalidConfig, "this server has no device code")

	wanted := errors.New("nobody at the screen")
	config.OAuth = &OAuth{ShowURL: func(context.Context, string) error { return wanted }}
	_, err = open(t.Context(), config, a)
	require.ErrorIs(t, err, wanted)
}

func TestOAuthContradictions(t *testing.T) {
	show := func(context.Context, string) error { return nil }
	ask := func(context.Context, string) (string, error) { return "", nil }
	code := func(context.Context, UserCode) error { return nil }
	for text, oauth := range map[string]OAuth{
		"OAuth.Flow needs OAuth.ShowURL":     {},
		"and none of the other callbacks":    {ShowURL: show, ShowCode: code},
		"OAuth.Flow needs OAuth.AskURL":      {Flow: OAuthPaste, ShowURL: show},
		"OAuth.Flow needs OAuth.ShowCode":    {Flow: OAuthDeviceCode, AskURL: ask},
		"OAuth.Flow is none":                 {Flow: 7, ShowURL: show},
		"OAuth.Redirect is of no use":        {Flow: OAuthDeviceCode, ShowCode: code, Redirect: "http://127.0.0.1/"},
		"OAuth.ClientURI \"example.org\" is": {ShowURL: show, ClientURI: "example.org"},
	} {
		err := (&Config{User: "@bot:example.org", Dir: "data", OAuth: &oauth}).check()
		require.ErrorIs(t, err, ErrInvalidConfig, text)
		assert.ErrorContains(t, err, text)
	}
	assert.NoError(t, (&Config{User: "@bot:example.org", Dir: "data", OAuth: &OAuth{ShowURL: show}}).check())
}
