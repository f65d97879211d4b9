package session

import (
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fakehs"
)

func TestContradictions(t *testing.T) {
	t.Parallel()
	good := func() Config { return Config{User: "@bot:example.org", Password: "secret", NoEncryption: true} }
	require.NoError(t, good().check())
	log := zerolog.Nop()
	for says, change := range map[string]func(*Config){
		"User is not given":                    func(c *Config) { c.User = "" },
		"is no user ID":                        func(c *Config) { c.User = "@bot" },
		"neither a user ID":                    func(c *Config) { c.User = "bot:example.org" },
		"Homeserver is not given":              func(c *Config) { c.User = "bot" },
		"more than one of Password":            func(c *Config) { c.AccessToken = "secret" },
		"more than one of Password, ":          func(c *Config) { c.OAuth = &OAuth{} },
		"no Dir that keeps a session":          func(c *Config) { c.Password = "" },
		"OAuth needs a Dir":                    func(c *Config) { c.Password, c.OAuth = "", &OAuth{} },
		"NoEncryption is set, and so is":       func(c *Config) { c.RecoveryKey = "secret" },
		"NoEncryption is set, and so is one":   func(c *Config) { c.Verification = &Verification{} },
		"PickleKey is empty":                   func(c *Config) { c.NoEncryption, c.Dir, c.PickleKey = false, "data", []byte{} },
		"Timeout is negative":                  func(c *Config) { c.Timeout = -time.Second },
		"Logger and Slog":                      func(c *Config) { c.Logger, c.Slog = &log, slog.Default() },
		"Presence is \"busy\"":                 func(c *Config) { c.Presence = "busy" },
		"Proxy is not the URL":                 func(c *Config) { c.Proxy = "ftp://user:secret@proxy" },
		"Proxy is not the URL of a proxy":      func(c *Config) { c.Proxy = "://user:secret@proxy" },
		"AccessToken is of a device whose":     func(c *Config) { c.NoEncryption, c.Password, c.AccessToken = false, "", "secret" },
		"there is no Dir that could keep one:": func(c *Config) { c.NoEncryption = false },
	} {
		config := good()
		change(&config)
		_, err := Open(t.Context(), config)
		require.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "secret")
		switch {
		case strings.HasPrefix(says, "AccessToken"):
			require.ErrorIs(t, err, ErrNoDevice)
		case strings.HasPrefix(says, "there is no Dir"):
			require.ErrorIs(t, err, ErrRecoveryKeyNeeded)
		default:
			require.ErrorIs(t, err, ErrInvalidConfig)
		}
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, "file"), nil, 0o600))
	require.NoError(t, os.Chmod(dir, 0o755))
	config := good()
	config.Dir = dir
	_, err := Open(t.Context(), config)
	require.ErrorIs(t, err, ErrInvalidConfig)
	assert.Contains(t, err.Error(), "chmod 700")
}

func TestFromEnv(t *testing.T) {
	file := filepath.Join(t.TempDir(), "password")
	require.NoError(t, os.WriteFile(file, []byte("from a file\n"), 0o600))
	for _, name := range []string{EnvHomeserver, EnvUser, EnvPassword, EnvAccessToken, EnvDir, EnvTimeout} {
		t.Setenv(name, "")
	}
	t.Setenv(EnvHomeserver, "example.org")
	t.Setenv(EnvUser, "bot")
	t.Setenv(EnvPassword+"_FILE", file)
	t.Setenv(EnvNoEncryption, "true")
	t.Setenv(EnvTimeout, "90s")
	t.Setenv(EnvPickleKey, "pickle")
	config, err := FromEnv()
	require.NoError(t, err)
	assert.Equal(t, Config{Homeserver: "example.org", User: "bot", Password: "from a file", NoEncryption: true, Timeout: 90 * time.Second, PickleKey: []byte("pickle")}, config)

	wrong := func(name, value, says string) {
		t.Helper()
		before := os.Getenv(name)
		require.NoError(t, os.Setenv(name, value))
		_, err := FromEnv()
		require.NoError(t, os.Setenv(name, before))
		require.ErrorIs(t, err, ErrInvalidConfig)
		require.ErrorContains(t, err, says)
		assert.NotContains(t, err.Error(), "secret")
	}
	t.Setenv(EnvLeaveEmpty, "")
	wrong(EnvLeaveEmpty, "maybe", EnvLeaveEmpty+` is "maybe"`)
	wrong(EnvTimeout, "5", EnvTimeout+` is "5"`)
	wrong(EnvPassword, "secret", EnvPassword+" and "+EnvPassword+"_FILE are both set")
	wrong(EnvAccessToken, "secret", EnvPassword+" and "+EnvAccessToken+" are both set")
	wrong(EnvPassword+"_FILE", "/nowhere", EnvPassword+"_FILE: open /nowhere")
	require.NoError(t, os.WriteFile(file, []byte("\n"), 0o600))
	wrong(EnvTimeout, "", EnvPassword+"_FILE: "+file+" is empty")
}

// names are servers' .well-known files.
type names map[string]string

// over answers for the files, and asks the homeserver for anything else.
func (n names) over(server http.RoundTripper) http.RoundTripper {
	return transporting(func(req *http.Request) (*http.Response, error) {
		answer := func(status int, body string) (*http.Response, error) {
			return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
		}
		file, known := n[req.URL.Host]
		switch {
		case !known:
			return server.RoundTrip(req)
		case req.URL.Path != "/.well-known/matrix/client":
			return answer(http.StatusNotFound, "no")
		case strings.HasPrefix(file, "https://"):
			resp, err := answer(http.StatusFound, "")
			resp.Header.Set("Location", file)
			return resp, err
		case file == "":
			return answer(http.StatusNotFound, "no")
		}
		return answer(http.StatusOK, file)
	})
}

type transporting func(req *http.Request) (*http.Response, error)

func (f transporting) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func TestFindServer(t *testing.T) {
	t.Parallel()
	server := fakehs.New(fakehs.Options{})
	at := func(url string) string { return `{"m.homeserver": {"base_url": "` + url + `"}}` }
	client := &http.Client{CheckRedirect: straight, Transport: names{
		"good.org": at("https://fakehs.invalid/"), "moved.org": "https://good.org/.well-known/matrix/client", "none.org": "", "text.org": "hello",
		"empty.org": "{}", "plain.org": at("http://fakehs.invalid"), "local.org": at("http://127.0.0.1:1"), "elsewhere.org": at("https://none.org"),
		"words.org": at("fakehs.invalid"), "huge.org": strings.Repeat(" ", 2<<20) + "{}", "loop.org": "https://loop.org/.well-known/matrix/client",
	}.over(server)}
	for named, want := range map[string]string{
		"good.org": "https://fakehs.invalid", "moved.org": "https://fakehs.invalid", "http://fakehs.invalid": "http://fakehs.invalid",
		"https://fakehs.invalid/": "https://fakehs.invalid", "local.org": "http://127.0.0.1:1",
	} {
		found, err := findServer(t.Context(), client, named)
		require.NoError(t, err)
		assert.Equal(t, want, found)
	}
	for named, says := range map[string]string{
		"none.org": "has no .well-known file", "text.org": "not the JSON", "empty.org": `is at ""`, "plain.org": "it is not https",
		"elsewhere.org": "asking for its versions: HTTP 404", "words.org": "does not begin with https", "huge.org": "too large", "loop.org": "HTTP 302",
		"https://none.org": "no Matrix homeserver", "ftp://good.org": "does not begin with https", "https://a:b@good.org": "more than host and path",
		"two words": "neither a server's name", "a/b": "neither a server's name", "": "neither a server's name",
	} {
		_, err := findServer(t.Context(), client, named)
		require.ErrorIs(t, err, ErrHomeserver, named)
		assert.ErrorContains(t, err, says, named)
	}
}

// A homeserver that is in trouble for the moment is not a wrong one.
func TestFindServerInTrouble(t *testing.T) {
	t.Parallel()
	for _, status := range []int{http.StatusTooManyRequests, http.StatusInternalServerError, http.StatusBadGateway, http.StatusServiceUnavailable} {
		for _, asked := range []string{"example.org", "https://example.org"} {
			client := &http.Client{Transport: transporting(func(req *http.Request) (*http.Response, error) {
				return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("<html>secret")), Request: req}, nil
			})}
			_, err := findServer(t.Context(), client, asked)
			require.ErrorContains(t, err, "HTTP "+strconv.Itoa(status))
			require.ErrorContains(t, err, "example.org")
			require.NotErrorIs(t, err, ErrHomeserver)
			assert.NotContains(t, err.Error(), "secret")
		}
	}
}
