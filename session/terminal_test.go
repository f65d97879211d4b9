package session

import (
	"bytes"
	"context"
	"io"
	"os"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// environ sets these variables, and unsets the others that sign-in reads.
func environ(t *testing.T, variables map[string]string) {
	t.Helper()
	for _, name := range []string{
		EnvHomeserver, EnvUser, EnvPassword, EnvPassword + "_FILE", EnvAccessToken, EnvAccessToken + "_FILE", EnvDir, EnvOAuth, EnvOAuthClientID, EnvOAuthClientName,
		EnvOAuthClientURI, EnvOAuthRedirect, EnvOAuthMetadataURL,
	} {
		t.Setenv(name, variables[name])
	}
}

func TestOAuthFromEnv(t *testing.T) {
	environ(t, map[string]string{
		EnvUser: "@bot:example.org", EnvDir: "data", EnvOAuth: "paste", EnvOAuthClientID: "id", EnvOAuthClientName: "name",
		EnvOAuthClientURI: "https://example.org/bot", EnvOAuthRedirect: "https://example.org/back", EnvOAuthMetadataURL: "https://auth.example.org/",
	})
	config, err := FromEnv()
	require.NoError(t, err)
	require.NotNil(t, config.OAuth.AskURL)
	require.NoError(t, config.check())
	is := *config.OAuth
	is.AskURL = nil
	assert.Equal(t, OAuth{
		Flow: OAuthPaste, ClientID: "id", ClientName: "name", ClientURI: "https://example.org/bot", Redirect: "https://example.org/back",
		MetadataURL: "https://auth.example.org/",
	}, is)
	for _, flow := range []string{"browser", "device-code"} {
		environ(t, map[string]string{EnvUser: "@bot:example.org", EnvDir: "data", EnvOAuth: flow})
		config, err := FromEnv()
		require.NoError(t, err)
		require.NoError(t, config.check())
	}

	for says, variables := range map[string]map[string]string{
		EnvOAuth + ` is "yes"`:                              {EnvOAuth: "yes"},
		EnvOAuthClientID + " is set, and " + EnvOAuth:       {EnvOAuthClientID: "id"},
		EnvOAuthMetadataURL + " is set, and " + EnvOAuth:    {EnvOAuthMetadataURL: "https://auth.example.org/", EnvPassword: "secret"},
		EnvOAuthRedirect + " is set, and " + EnvOAuth:       {EnvOAuth: "device-code", EnvOAuthRedirect: "https://example.org/back"},
		EnvPassword + " and " + EnvOAuth + " are both":      {EnvOAuth: "browser", EnvPassword: "secret"},
		EnvAccessToken + " and " + EnvOAuth + " are both":   {EnvOAuth: "browser", EnvAccessToken: "secret"},
		EnvPassword + " and " + EnvAccessToken + " are bot": {EnvPassword: "secret", EnvAccessToken: "secret"},
	} {
		environ(t, variables)
		_, err := FromEnv()
		require.ErrorIs(t, err, ErrInvalidConfig)
		require.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "secret")
	}
}

func TestTerminal(t *testing.T) {
	t.Parallel()
	var out bytes.Buffer
	person := terminal{strings.NewReader("https://example.org/back?code=a\n"), &out}
	require.NoError(t, person.showURL(t.Context(), "https://one.org"))
	require.NoError(t, person.showCode(t.Context(), UserCode{URL: "https://two.org", Code: "ABCD"}))
	require.NoError(t, person.showCode(t.Context(), UserCode{URL: "https://three.org", FullURL: "https://three.org/full", Code: "EFGH"}))
	pasted, err := person.askURL(t.Context(), "https://four.org")
	require.NoError(t, err)
	assert.Equal(t, "https://example.org/back?code=a", pasted)
	for _, shown := range []string{"https://one.org\n", "https://two.org\n", "ABCD", "https://three.org/full\n", "EFGH", "https://four.org\n"} {
		assert.Contains(t, out.String(), shown)
	}
	_, err = person.askURL(t.Context(), "https://five.org")
	require.ErrorIs(t, err, io.EOF)

	ctx, cancel := context.WithCancel(t.Context())
	reading, writing, err := os.Pipe()
	require.NoError(t, err)
	defer reading.Close()
	defer writing.Close()
	cancel()
	_, err = terminal{reading, io.Discard}.askURL(ctx, "https://six.org")
	require.ErrorIs(t, err, context.Canceled)
}

// A bot whose environment says so signs in by an address that a person pastes, and goes on with its session later.
func TestOpenByOAuthFromEnv(t *testing.T) {
	a := newAuthority(t)
	dir := t.TempDir()
	environ(t, map[string]string{EnvHomeserver: a.homeserver.URL(), EnvUser: "@bot:" + a.homeserver.Name(), EnvDir: dir, EnvOAuth: "paste"})
	config, err := FromEnv()
	require.NoError(t, err)
	config.NoEncryption = true
	config.OAuth.AskURL = a.approve
	bot, err := open(t.Context(), config, a)
	require.NoError(t, err)
	_, err = bot.Client.Whoami(t.Context())
	require.NoError(t, err)
	require.NoError(t, bot.Close())
	config.OAuth.AskURL = func(context.Context, string) (string, error) { panic("nobody is asked again") }
	bot, err = open(t.Context(), config, a)
	require.NoError(t, err)
	require.NoError(t, bot.Close())
}

// A server must not move the cursor of the person's terminal. C1 controls are part of what can be a URL.
func TestTheTerminalShowsNoControls(t *testing.T) {
	t.Parallel()
	var out strings.Builder
	person := terminal{strings.NewReader("https://x.example/\n"), &out}
	const evil = "https://x.example/\u009b2J\x1b]0;evil\x07"
	require.NoError(t, person.showURL(t.Context(), evil))
	require.NoError(t, person.showCode(t.Context(), UserCode{Code: "A\x1b[2J", URL: evil}))
	_, err := person.askURL(t.Context(), evil)
	require.NoError(t, err)
	for _, control := range []string{"\x1b", "\u009b", "\x07"} {
		assert.NotContains(t, out.String(), control)
	}
}
