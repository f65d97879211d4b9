package authserver

import (
	"context"
	"crypto/rand"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/session/internal/oauth"
)

// Where the tests run on a Synapse, synapse.sh sets these.
const (
	envHomeserver = "ROOMKV_SYNAPSE"        // the URL of its client API
	envAddress    = "ROOMKV_SYNAPSE_AUTH"   // where it expects the authorization server, as host:port
	envSecret     = "ROOMKV_SYNAPSE_SECRET" // of both
)

// world is a homeserver with the authorization server in front of it. All tests use one, for a Synapse has one authorization server until it restarts.
type world struct {
	auth *Server
	hs   string // the URL of the homeserver's client API
	name string // the homeserver's
}

var shared world

func TestMain(m *testing.M) {
	slog.SetDefault(slog.New(slog.DiscardHandler)) // op logs each request that is refused
	if args := os.Args; len(args) == 5 && args[1] == writes {
		if err := write(args[2], id.RoomID(args[3]), args[4]); err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		return
	}
	flag.Parse()
	_ = flag.Set("test.parallel", "8") // tests wait most of the time
	code := 1
	end, err := shared.start()
	if err == nil {
		code = m.Run()
		err = end()
	}
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func (w *world) start() (end func() error, err error) {
	if w.hs = os.Getenv(envHomeserver); w.hs != "" {
		w.name = "localhost"
		w.auth, err = Start(os.Getenv(envAddress), w.hs, os.Getenv(envSecret))
		if err != nil {
			return nil, err
		}
		return w.auth.Close, nil
	}
	hs := fakehs.New(fakehs.Options{Mode: fakehs.Forking, Name: "localhost"})
	server := httptest.NewServer(hs)
	w.hs, w.name = server.URL, hs.Name()
	if w.auth, err = Start("127.0.0.1:0", w.hs, "secret"); err != nil {
		return nil, err
	}
	hs.Delegate(w.auth.Delegation())
	return func() error {
		server.Close()
		if complaints := hs.Complaints(); len(complaints) > 0 {
			return fmt.Errorf("the homeserver does not know %s", strings.Join(complaints, ", "))
		}
		return w.auth.Close()
	}, nil
}

// web is what clients make requests with.
var web = &http.Client{Timeout: time.Minute}

// user is a localpart that no other test has.
func user() string { return "bot-" + strings.ToLower(rand.Text()[:10]) }

// app is what tests register.
var app = oauth.App{Name: "a bot", URI: "https://bot.example.org/", Redirect: oauth.DefaultRedirect}

// registered registers a client, and gives what a sign-in needs.
func registered(t *testing.T, user string, app oauth.App) (*oauth.Server, oauth.Who) {
	t.Helper()
	server, err := oauth.Discover(t.Context(), web, shared.hs, "")
	require.NoError(t, err)
	name, err := server.Register(t.Context(), app)
	require.NoError(t, err)
	return server, oauth.Who{ClientID: name, Device: id.DeviceID("ROOMKV" + rand.Text()[:12]), User: id.NewUserID(user, shared.name)}
}

// browse opens a URL as a browser does, and gives the address at which it ends. Nothing listens at a redirect without a port.
func browse(ctx context.Context, address string) (string, error) {
	stop := errors.New("nothing listens there")
	ended := address
	browser := &http.Client{Timeout: time.Minute, CheckRedirect: func(req *http.Request, _ []*http.Request) error {
		ended = req.URL.String()
		if req.URL.Port() == "" {
			return stop
		}
		return nil
	}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, address, nil)
	if err != nil {
		return "", err
	}
	resp, err := browser.Do(req)
	if errors.Is(err, stop) {
		return ended, nil
	}
	if err != nil {
		return "", err
	}
	return ended, resp.Body.Close()
}

// signIn signs a new user in by a pasted address.
func signIn(t *testing.T, user string) oauth.Tokens {
	t.Helper()
	server, who := registered(t, user, app)
	tokens, err := server.ByPasting(t.Context(), who, app.Redirect, browse)
	require.NoError(t, err)
	return tokens
}

// matrix is a client with the token.
func matrix(t *testing.T, token string) *mautrix.Client {
	t.Helper()
	client, err := mautrix.NewClient(shared.hs, "", token)
	require.NoError(t, err)
	client.DefaultHTTPRetries = 0
	return client
}

// works checks that the tokens are those of a device of the user, which can write.
func works(t *testing.T, tokens oauth.Tokens, user string) {
	t.Helper()
	client := matrix(t, tokens.Access)
	who, err := client.Whoami(t.Context())
	require.NoError(t, err)
	require.Equal(t, id.NewUserID(user, shared.name), who.UserID)
	require.Equal(t, tokens.Device, who.DeviceID)
	client.UserID = who.UserID
	room, err := client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{})
	require.NoError(t, err)
	_, err = client.SendStateEvent(t.Context(), room.RoomID, kind, "", map[string]any{"a": 1})
	require.NoError(t, err)
}

// ended checks that the homeserver takes a token no longer.
func ended(t *testing.T, token string) {
	t.Helper()
	_, err := matrix(t, token).Whoami(t.Context())
	require.ErrorIs(t, err, mautrix.MUnknownToken)
}
