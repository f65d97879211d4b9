package tokens

import (
	"context"
	"io"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/session/internal/folder"
)

// world is a homeserver as Synapse with a user, and a folder.
type world struct {
	server   *fakehs.Server
	client   *mautrix.Client // another device's
	password *Password
	files    Files
	start    Token // that the folder keeps

	mu      sync.Mutex
	began   time.Time
	clock   time.Duration  // how long after that it is
	asked   map[string]int // requests, by the last part of the path
	answers map[string]func(*http.Request) (*http.Response, error)
}

func newWorld(t *testing.T, life time.Duration) *world {
	t.Helper()
	w := &world{server: fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Name: fakehstest.Name()}), began: time.Now(), asked: map[string]int{}, answers: map[string]func(*http.Request) (*http.Response, error){}}
	w.server.SetTokenLife(life)
	w.client = fakehstest.Client(t, w.server)
	secret, err := w.server.Password(w.client.UserID)
	require.NoError(t, err)
	w.password = &Password{Client: &http.Client{Transport: w}, Now: w.now, User: w.client.UserID.String(), Password: secret}
	w.files, err = folder.Open(t.TempDir())
	require.NoError(t, err)
	w.start, err = w.password.Login(t.Context(), Token{Homeserver: w.server.URL()})
	require.NoError(t, err)
	require.NoError(t, Save(w.files, w.start))
	return w
}

func (w *world) now() time.Time {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.began.Add(w.clock)
}

// after sets the clock, which stands still otherwise.
func (w *world) after(clock time.Duration) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.clock = clock
}

// answer makes requests for an endpoint be answered so, or by the homeserver again.
func (w *world) answer(last string, f func(*http.Request) (*http.Response, error)) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.answers[last] = f
}

func (w *world) requests(last string) int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.asked[last]
}

// RoundTrip implements [http.RoundTripper].
func (w *world) RoundTrip(req *http.Request) (*http.Response, error) {
	last := req.URL.Path[strings.LastIndex(req.URL.Path, "/")+1:]
	w.mu.Lock()
	w.asked[last]++
	f := w.answers[last]
	w.mu.Unlock()
	if f != nil {
		return f(req)
	}
	return w.server.RoundTrip(req)
}

// keeper is one of the folder's session, as a process has it.
func (w *world) keeper(t *testing.T, files Files, change func(*Config)) (*Keeper, *http.Client) {
	t.Helper()
	token, found, err := Load(files)
	require.NoError(t, err)
	require.True(t, found)
	if token.AccessToken == "" { // as Open does
		token, err = w.password.Login(t.Context(), token)
		require.NoError(t, err)
		require.NoError(t, Save(files, token))
	}
	config := Config{
		Token: token, Files: files, Refresher: Refreshing(token, &http.Client{Transport: w}, w.now), Password: w.password, Now: w.now, Log: zerolog.Nop(),
		Changed: func(Token) {},
	}
	if change != nil {
		change(&config)
	}
	k := NewKeeper(config)
	t.Cleanup(func() { require.NoError(t, k.Close(context.WithoutCancel(t.Context()))) })
	return k, &http.Client{Transport: k.Transport(w)}
}

// whoami makes a request as mautrix does, with a token that may be an old one. It gives the status.
func (w *world) whoami(ctx context.Context, client *http.Client) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, clientAPI(w.server.URL(), "v3/account/whoami"), nil)
	if err != nil {
		return 0, err
	}
	req.Header.Set("Authorization", "Bearer old")
	resp, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, err
}

// good asserts that a request succeeds.
func (w *world) good(t *testing.T, client *http.Client) {
	t.Helper()
	status, err := w.whoami(t.Context(), client)
	require.NoError(t, err)
	require.Equal(t, 200, status)
}

func says(status int, body string) func(*http.Request) (*http.Response, error) {
	return func(req *http.Request) (*http.Response, error) {
		return &http.Response{StatusCode: status, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(body)), Request: req}, nil
	}
}
