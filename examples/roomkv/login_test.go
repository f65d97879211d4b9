package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// authority is an authorization server that approves for whoever opens its page, and the homeserver that it is for.
type authority struct {
	t          *testing.T
	homeserver *fakehs.Server
	at, own    string // the URLs of both

	mu      sync.Mutex
	pages   []string // that were opened
	scope   string
	tokens  map[string]bool // access tokens that are good
	refresh string
	given   int
	revoked int
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t, homeserver: fakehs.New(fakehs.Options{Mode: fakehs.Forking, Seed: 1}), tokens: map[string]bool{}}
	own := httptest.NewServer(a)
	t.Cleanup(own.Close)
	listening := httptest.NewServer(a.homeserver)
	t.Cleanup(listening.Close)
	a.own, a.at = own.URL, listening.URL
	a.delegate()
	return a
}

// delegate has the homeserver ask, and forget what it has asked for.
func (a *authority) delegate() {
	a.homeserver.Delegate(fakehs.Delegation{
		Secret: "secret",
		Metadata: func(context.Context) (json.RawMessage, error) {
			return json.Marshal(map[string]string{
				"issuer": a.own + "/", "authorization_endpoint": a.own + "/authorize", "token_endpoint": a.own + "/token", "registration_endpoint": a.own + "/register",
				"revocation_endpoint": a.own + "/revoke", "device_authorization_endpoint": a.own + "/device",
			})
		},
		Introspect: func(_ context.Context, token string) (fakehs.Introspection, error) {
			a.mu.Lock()
			defer a.mu.Unlock()
			return fakehs.Introspection{Active: a.tokens[token], Scope: a.scope, Username: "bot"}, nil
		},
	})
}

// end ends all access tokens.
func (a *authority) end() {
	a.mu.Lock()
	clear(a.tokens)
	a.mu.Unlock()
	a.delegate()
}

func (a *authority) ServeHTTP(w http.ResponseWriter, req *http.Request) {
	a.mu.Lock()
	defer a.mu.Unlock()
	assert.NoError(a.t, req.ParseForm())
	w.Header().Set("Content-Type", "application/json")
	switch req.URL.Path {
	case "/register":
		fmt.Fprint(w, `{"client_id":"client"}`)
	case "/authorize":
		a.approve(req.Form.Get("scope"))
		back := req.Form.Get("redirect_uri") + "?" + url.Values{"code": {"SECRET-code"}, "state": {req.Form.Get("state")}}.Encode()
		http.Redirect(w, req, back, http.StatusFound)
	case "/device":
		a.scope = req.Form.Get("scope")
		fmt.Fprintf(w, `{"device_code":"SECRET-device","user_code":"WXYZ-1234","verification_uri":"%s/link","expires_in":600,"interval":1}`, a.own)
	case "/link":
		a.pages = append(a.pages, "link")
		a.approve(a.scope)
	case "/token":
		a.token(w, req.PostForm)
	case "/revoke":
		a.revoked++
		clear(a.tokens)
	default:
		w.WriteHeader(http.StatusNotFound)
	}
}

// approve makes the user and the device known, as an authorization server does.
func (a *authority) approve(scope string) {
	a.scope = scope
	_, device, _ := strings.Cut(scope, "client:device:")
	a.provision("provision_user", `{"localpart":"bot"}`)
	a.provision("upsert_device", fmt.Sprintf(`{"localpart":"bot","device_id":%q}`, device))
}

func (a *authority) provision(what, body string) {
	req, err := http.NewRequest(http.MethodPost, a.homeserver.URL()+"/_synapse/mas/"+what, strings.NewReader(body))
	assert.NoError(a.t, err)
	req.Header.Set("Authorization", "Bearer secret")
	resp, err := a.homeserver.RoundTrip(req)
	if assert.NoError(a.t, err) {
		assert.Less(a.t, resp.StatusCode, 300, what)
	}
}

func (a *authority) token(w http.ResponseWriter, form url.Values) {
	switch grant := form.Get("grant_type"); {
	case strings.HasSuffix(grant, "device_code") && len(a.pages) == 0:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"authorization_pending"}`)
		return
	case grant == "refresh_token" && form.Get("refresh_token") != a.refresh:
		w.WriteHeader(http.StatusBadRequest)
		fmt.Fprint(w, `{"error":"invalid_grant"}`)
		return
	}
	a.given++
	access := fmt.Sprintf("SECRET-access-%d", a.given)
	a.tokens[access], a.refresh = true, fmt.Sprintf("SECRET-refresh-%d", a.given)
	fmt.Fprintf(w, `{"access_token":%q,"refresh_token":%q,"token_type":"Bearer","expires_in":300}`, access, a.refresh)
}

// shell is that of somebody with an account there.
func (a *authority) shell() *shell {
	return &shell{t: a.t, env: append(os.Environ(), envCommand+"=1", envConfigDir+"="+filepath.Join(a.t.TempDir(), "logins"), envHomeserver+"="+a.at, envUser+"=@bot:fakehs")}
}

// running is a command that runs, with what it says.
type running struct {
	cmd   *exec.Cmd
	lines *bufio.Scanner
	said  bytes.Buffer
}

func (sh *shell) start(args ...string) *running {
	sh.t.Helper()
	r := &running{cmd: sh.command(args...)}
	errs, err := r.cmd.StderrPipe()
	require.NoError(sh.t, err)
	r.lines = bufio.NewScanner(io.TeeReader(errs, &r.said))
	require.NoError(sh.t, r.cmd.Start())
	return r
}

// waitFor reads until a line matches, and returns what is in the first parentheses.
func (r *running) waitFor(t *testing.T, pattern string) string {
	t.Helper()
	want := regexp.MustCompile(pattern)
	for r.lines.Scan() {
		if found := want.FindStringSubmatch(r.lines.Text()); found != nil {
			return found[len(found)-1]
		}
	}
	require.Fail(t, "the command has ended", "without %s: %s", pattern, r.said.String())
	return ""
}

// end reads what is left, and returns the exit code.
func (r *running) end() int {
	for r.lines.Scan() {
	}
	_ = r.cmd.Wait()
	return r.cmd.ProcessState.ExitCode()
}

func open(t *testing.T, page string) {
	t.Helper()
	resp, err := http.Get(page)
	require.NoError(t, err)
	assert.NoError(t, resp.Body.Close())
	assert.Equal(t, http.StatusOK, resp.StatusCode)
}

func TestLoginByOAuth(t *testing.T) {
	t.Parallel()
	for flag, approve := range map[string]func(r *running){
		"--oauth": func(r *running) { open(t, r.waitFor(t, `^  (http\S+)$`)) },
		"--device-code": func(r *running) {
			assert.Equal(t, "WXYZ-1234", r.waitFor(t, `enter the code (\S+),`))
			open(t, r.waitFor(t, `^  (http\S+)$`))
		},
	} {
		a := newAuthority(t)
		sh := a.shell()
		login := sh.start("login", flag, "--verbose")
		approve(login)
		require.Zero(t, login.end(), login.said.String())
		assert.Contains(t, login.said.String(), "Logged in as @bot:fakehs on "+a.at)
		assert.NotContains(t, login.said.String(), "SECRET")
		device := regexp.MustCompile(`device (\S+)\.\n`).FindStringSubmatch(login.said.String())[1]

		// The login is kept, and refreshed.
		sh.ok("keybackup", "status")
		assert.Equal(t, 1, a.given)
		a.end()
		sh.ok("keybackup", "status")
		assert.Equal(t, 2, a.given)

		assert.Contains(t, a.homeserver.Devices("@bot:fakehs"), id.DeviceID(device))
		out := sh.run("logout")
		require.Zero(t, out.code, out.err)
		assert.Equal(t, 1, a.revoked)
		assert.NoDirExists(t, filepath.Join(sh.value(envConfigDir), "default"))
	}
}

func TestLoginUsage(t *testing.T) {
	t.Parallel()
	modern := newAuthority(t).shell()
	modern.set(envPassword, "anything")
	refused := modern.run("login")
	assert.Equal(t, exitError, refused.code)
	assert.Contains(t, refused.err, "roomkv login --oauth")
	sh := newShell(t)
	assert.Equal(t, exitUsage, sh.run("login", "--oauth", "--device-code").code)
	here := sh.run("login", "--oauth")
	assert.Equal(t, exitError, here.code)
	assert.Contains(t, here.err, "OAuth")
	nobody := *sh
	nobody.set(envUser, "")
	got := nobody.run("login", "--oauth")
	assert.Equal(t, exitUsage, got.code)
	assert.Contains(t, got.err, "--user")
	assert.Contains(t, got.err, "Example: roomkv login --homeserver example.org --user bot\n")
}

// Synapse ends access tokens after minutes.
func TestLoginIsRefreshed(t *testing.T) {
	t.Parallel()
	server := fakehs.New(fakehs.Options{Mode: fakehs.Forking, Seed: 1})
	listening := httptest.NewServer(server)
	t.Cleanup(listening.Close)
	bot, err := server.Register(t.Context(), "bot")
	require.NoError(t, err)
	password, err := server.Password(bot.UserID)
	require.NoError(t, err)
	sh := &shell{t: t, env: append(os.Environ(), envCommand+"=1", envConfigDir+"="+t.TempDir(), envHomeserver+"="+listening.URL, envUser+"="+bot.UserID.String(), envPassword+"="+password)}
	sh.ok("login")
	sh.set(envPassword, "")
	devices := server.Devices(bot.UserID)
	require.NoError(t, server.EndAccess(bot.UserID))
	sh.ok("rooms")
	assert.ElementsMatch(t, devices, server.Devices(bot.UserID), "the device is the same")

	require.NoError(t, server.LogOut(bot.UserID))
	got := sh.run("rooms")
	assert.Equal(t, exitError, got.code)
	assert.Contains(t, got.err, "roomkv login")
	sh.set(envPassword, password)
	sh.ok("rooms")

	require.NoError(t, server.LogOut(bot.UserID))
	assert.Contains(t, sh.run("login").err, "Logged in as "+bot.UserID.String(), "it looks whether the kept login is good")
	sh.ok("rooms")
}

// Ctrl-C ends what waits for somebody.
func TestWaitingIsInterrupted(t *testing.T) {
	t.Parallel()
	login := newAuthority(t).shell().start("login", "--oauth")
	login.waitFor(t, `^  (http\S+)$`)
	require.NoError(t, login.cmd.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, login.end(), login.said.String())

	verify := newShell(t).start("verify", "@alice:example.org", "--yes")
	verify.waitFor(t, `^Ctrl-C ends that`)
	require.NoError(t, verify.cmd.Process.Signal(os.Interrupt))
	assert.Equal(t, exitInterrupted, verify.end(), verify.said.String())
	assert.NotContains(t, verify.said.String(), "Verified")
}

func TestVersion(t *testing.T) {
	t.Parallel()
	sh := &shell{t: t, env: append(os.Environ(), envCommand+"=1")}
	assert.Regexp(t, `^roomkv version \S.*, go1\.\d+`, sh.ok("--version"))
}
