package session

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// The guide's pieces of code go into this program in the place of «…», which has words of the piece. Its arguments are what configures the bot, and what it does.
const guideProgram = `package main

import (
	"context"
	"errors"
	"fmt"
	"log"
	"os"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session"
)

var configs = map[string]func(out *session.Config) error{
	"dir": func(out *session.Config) error {
		*out = session.Config{User: "@bot:example.org", Password: "secret", Dir: "data"}
		return nil
	},
	"environment": func(out *session.Config) error {
		«session.FromEnv()»
		*out = config
		return nil
	},
	"bare": func(out *session.Config) error {
		password, key := "secret", os.Getenv("RECOVERY_KEY")
		«Password: password, RecoveryKey: key»
		*out = config
		return nil
	},
	"key": func(out *session.Config) error {
		config := *out
		«os.Getenv("RECOVERY_KEY")»
		*out = config
		return nil
	},
	"hand over": func(out *session.Config) error {
		config := *out
		«config.OnRecoveryKey»
		*out = config
		return nil
	},
	"verification": func(out *session.Config) error {
		config := *out
		«config.Verification»
		*out = config
		return nil
	},
}

var tasks = map[string]func(ctx context.Context, bot *session.Bot, store *roomkv.Store) error{
	"count": func(ctx context.Context, bot *session.Bot, store *roomkv.Store) error {
		«"messages"»
		return nil
	},
	"hello": func(ctx context.Context, bot *session.Bot, store *roomkv.Store) error {
		«room.Once»
		return nil
	},
	"welcome": func(ctx context.Context, bot *session.Bot, store *roomkv.Store) error {
		«"Welcome, "»
		return nil
	},
	"lead": func(ctx context.Context, bot *session.Bot, store *roomkv.Store) error {
		go func() { log.Print(lead(ctx, store)) }()
		return nil
	},
}

func lead(ctx context.Context, store *roomkv.Store) error {
	«store.Lease»
}

func store(bot *session.Bot) (*roomkv.Store, error) {
	«WithAccountDataFallback»
	return store, err
}

func main() {
	ctx := context.Background()
	var config session.Config
	for _, word := range os.Args[1:] {
		if configure := configs[word]; configure != nil {
			if err := configure(&config); err != nil {
				log.Fatal(err)
			}
		}
	}
	bot, err := session.Open(ctx, config)
	if err != nil {
		log.Fatal(err)
	}
	defer bot.Close()
	store, err := store(bot)
	if err != nil {
		log.Fatal(err)
	}
	for _, word := range os.Args[1:] {
		if begin := tasks[word]; begin != nil {
			if err := begin(ctx, bot, store); err != nil {
				log.Fatal(err)
			}
		}
	}
	«os.Exit(78)»
}

var _ = []any{errors.New, fmt.Println, id.UserID(""), event.StateMember, time.Second}
`

// guide is the page: its pieces of Go and of shell.
type guide struct{ code, shell []string }

func readGuide(t *testing.T) guide {
	t.Helper()
	text, err := os.ReadFile("../docs/guide.md")
	require.NoError(t, err)
	var g guide
	for n, part := range strings.Split(string(text), "```") {
		language, block, _ := strings.Cut(part, "\n")
		switch {
		case n%2 == 0:
		case strings.HasPrefix(language, "go"):
			g.code = append(g.code, block)
		case language == "sh":
			g.shell = append(g.shell, block)
		}
	}
	return g
}

// piece is the one piece of code that has these words and is no program.
func (g guide) piece(t *testing.T, words string) string {
	t.Helper()
	var found []string
	for _, block := range g.code {
		if strings.Contains(block, words) && !strings.HasPrefix(block, "package main") {
			found = append(found, block)
		}
	}
	require.Len(t, found, 1, "pieces of the guide with %s", words)
	return found[0]
}

// handler is what the guide's first program does with a message.
func (g guide) handler(t *testing.T) string {
	t.Helper()
	at := strings.Index(g.code[0], "\tbot.OnMessage(")
	require.Positive(t, at)
	end := strings.Index(g.code[0][at:], "\n\t}))\n")
	require.Positive(t, end)
	return g.code[0][at : at+end+len("\n\t}))\n")]
}

// build builds the guide's first program, and one with its other pieces.
func (g guide) build(t *testing.T, safe string) (first, all string) {
	t.Helper()
	dir := t.TempDir()
	var source strings.Builder
	for rest := guideProgram; ; {
		before, after, more := strings.Cut(rest, "«")
		source.WriteString(before)
		if !more {
			break
		}
		words, after, _ := strings.Cut(after, "»")
		if words == `"messages"` {
			source.WriteString(g.handler(t))
		} else {
			source.WriteString(g.piece(t, words))
		}
		rest = after
	}
	text := source.String()
	for old, instead := range map[string]string{
		"/mnt/safe": safe,
		"// what is to be done once a second, by one replica": `fmt.Println("leads")`,
	} {
		require.Contains(t, text, old)
		text = strings.ReplaceAll(text, old, instead)
	}
	first, all = filepath.Join(dir, "first"), filepath.Join(dir, "all")
	for name, text := range map[string]string{first: g.code[0], all: text} {
		require.NoError(t, os.WriteFile(name+".go", []byte(text), 0o600))
		build := exec.CommandContext(t.Context(), "go", "build", "-tags", "goolm", "-o", name, name+".go")
		said, err := build.CombinedOutput()
		require.NoError(t, err, string(said))
	}
	return first, all
}

// guided is a homeserver example.org with the users and the room of the guide. Programs find it by a proxy.
type guided struct {
	server *fakehs.Server
	alice  *mautrix.Client
	room   id.RoomID // #bots:example.org, in which the bot may send state
	env    []string
	proxy  string // its address

	mu     sync.Mutex
	from   map[string]string // which process has a connection, by the address of its end
	syncs  map[string]int    // of each process, after its first
	logins int
}

func newGuided(t *testing.T, encrypted bool) *guided {
	t.Helper()
	g := &guided{server: fakehstest.New(t, fakehs.Options{Mode: fakehs.Forking, Name: "example.org", Seed: uint64(time.Now().UnixNano())}), from: map[string]string{}, syncs: map[string]int{}}
	bot := g.user(t, "bot")
	g.alice = g.user(t, "alice")
	asked := &mautrix.ReqCreateRoom{Preset: "public_chat", RoomAliasName: "bots", PowerLevelOverride: &event.PowerLevelsEventContent{
		Users: map[id.UserID]int{g.alice.UserID: 100, bot.UserID: 50},
	}}
	if encrypted {
		asked.InitialState = []*event.Event{{Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}}}}
	}
	made, err := g.alice.CreateRoom(t.Context(), asked)
	require.NoError(t, err)
	g.room = made.RoomID
	_, err = bot.JoinRoomByID(t.Context(), g.room)
	require.NoError(t, err)
	_, err = bot.Logout(t.Context())
	require.NoError(t, err)
	g.listen(t)
	return g
}

// user registers one with the password secret.
func (g *guided) user(t *testing.T, name string) *mautrix.Client {
	t.Helper()
	client, err := mautrix.NewClient(g.server.URL(), "", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: g.server}
	resp, err := client.RegisterDummy(t.Context(), &mautrix.ReqRegister[any]{Username: name, Password: "secret"})
	require.NoError(t, err)
	client.UserID, client.DeviceID, client.AccessToken = resp.UserID, resp.DeviceID, resp.AccessToken
	return client
}

// listen serves https://example.org, and a proxy through which programs come there.
func (g *guided) listen(t *testing.T) {
	t.Helper()
	certificate, file := certified(t, "example.org")
	https := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if !strings.HasPrefix(req.URL.Path, "/_matrix/") {
			http.NotFound(w, req)
			return
		}
		g.mu.Lock()
		switch {
		case strings.HasSuffix(req.URL.Path, "/sync") && req.URL.Query().Get("since") != "":
			g.syncs[g.from[req.RemoteAddr]]++
		case strings.HasSuffix(req.URL.Path, "/login"):
			g.logins++
		}
		g.mu.Unlock()
		g.server.ServeHTTP(w, req)
	}))
	https.TLS = &tls.Config{Certificates: []tls.Certificate{certificate}}
	https.StartTLS()
	t.Cleanup(https.Close)
	proxy := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, req *http.Request) {
		if req.Method != http.MethodConnect || req.Host != "example.org:443" {
			http.Error(w, "not found", http.StatusNotFound)
			return
		}
		there, err := net.Dial("tcp", https.Listener.Addr().String())
		if err != nil {
			http.Error(w, "down", http.StatusBadGateway)
			return
		}
		here, _, err := w.(http.Hijacker).Hijack()
		if err != nil {
			_ = there.Close()
			return
		}
		process, _, _ := (&http.Request{Header: http.Header{"Authorization": req.Header["Proxy-Authorization"]}}).BasicAuth()
		g.mu.Lock()
		g.from[there.LocalAddr().String()] = process
		g.mu.Unlock()
		_, _ = io.WriteString(here, "HTTP/1.1 200 OK\r\n\r\n")
		go func() {
			_, _ = io.Copy(there, here)
			_ = there.Close()
		}()
		_, _ = io.Copy(here, there)
		_ = here.Close()
	}))
	t.Cleanup(proxy.Close)
	g.proxy = strings.TrimPrefix(proxy.URL, "http://")
	inherited := slices.DeleteFunc(os.Environ(), func(variable string) bool { return strings.HasPrefix(variable, "ROOMKV_") })
	g.env = append(inherited, "SSL_CERT_FILE="+file, "NO_PROXY=")
}

// certified makes a certificate for the name, and a file that makes programs trust it.
func certified(t *testing.T, name string) (certificate tls.Certificate, file string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	about := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, DNSNames: []string{name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
	}
	signed, err := x509.CreateCertificate(rand.Reader, about, about, &key.PublicKey, key)
	require.NoError(t, err)
	file = filepath.Join(t.TempDir(), "certificate.pem")
	require.NoError(t, os.WriteFile(file, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: signed}), 0o600))
	return tls.Certificate{Certificate: [][]byte{signed}, PrivateKey: key}, file
}

// process is a bot of the guide that runs.
type process struct {
	name    string // with which it asks the proxy
	command *exec.Cmd
	out     logged
	ended   chan struct{} // closed when the process has ended
}

// start starts a program in a folder.
func (g *guided) start(t *testing.T, program, dir string, env []string, args ...string) *process {
	t.Helper()
	p := &process{name: rand.Text(), command: exec.Command(program, args...), ended: make(chan struct{})}
	p.command.Dir, p.command.Env = dir, slices.Concat(g.env, env, []string{"HTTPS_PROXY=http://" + p.name + ":@" + g.proxy})
	p.command.Stdout, p.command.Stderr = &p.out, &p.out
	require.NoError(t, p.command.Start())
	go func() {
		defer close(p.ended)
		_ = p.command.Wait()
	}()
	t.Cleanup(func() {
		_ = p.command.Process.Kill()
		<-p.ended
		if t.Failed() {
			t.Logf("%s %v: %s", filepath.Base(program), args, p.out.String())
		}
	})
	return p
}

// run starts a program and waits until it syncs.
func (g *guided) run(t *testing.T, program, dir string, env []string, args ...string) *process {
	t.Helper()
	p := g.start(t, program, dir, env, args...)
	eventually(t, "the bot syncs", func() bool {
		g.mu.Lock()
		defer g.mu.Unlock()
		return g.syncs[p.name] > 0
	})
	return p
}

// exits waits for the process's end.
func (p *process) exits(t *testing.T, status int) {
	t.Helper()
	select {
	case <-p.ended:
	case <-time.After(time.Minute):
		t.Fatal("the bot does not end")
	}
	require.Equal(t, status, p.command.ProcessState.ExitCode(), p.out.String())
}

// stops sends SIGTERM.
func (p *process) stops(t *testing.T) {
	t.Helper()
	require.NoError(t, p.command.Process.Signal(syscall.SIGTERM))
	p.exits(t, 0)
}

func eventually(t *testing.T, what string, is func() bool) {
	t.Helper()
	require.Eventually(t, is, time.Minute, 10*time.Millisecond, what)
}

// counted waits until the memory of a room has so many messages. It may have more later.
func (g *guided) counted(t *testing.T, room id.RoomID, want int) {
	t.Helper()
	store, err := roomkv.New(g.alice, room.String())
	require.NoError(t, err)
	eventually(t, fmt.Sprint(want, " messages"), func() bool {
		is, err := roomkv.Get[int](t.Context(), store, "messages")
		return err == nil && is == want
	})
}

// said is how often a text was sent to the room.
func (g *guided) said(t *testing.T, text string) (times int) {
	t.Helper()
	resp, err := g.alice.Messages(t.Context(), g.room, "", "", mautrix.DirectionBackward, nil, 100)
	require.NoError(t, err)
	for _, evt := range resp.Chunk {
		if body, _ := evt.Content.Raw["body"].(string); body == text {
			times++
		}
	}
	return times
}

// The bots of docs/guide.md run, as processes that a person would start, and do what it says.
func TestGuide(t *testing.T) {
	if runtime.GOOS == "windows" {
		t.Skip("it cannot send SIGTERM")
	}
	safe := t.TempDir()
	page := readGuide(t)
	first, all := page.build(t, safe)

	t.Run("a bot that counts", func(t *testing.T) {
		t.Parallel()
		g, dir := newGuided(t, false), t.TempDir()
		send(t, g.alice, g.room, text("before its first start"))
		bot := g.run(t, first, dir, nil)
		send(t, g.alice, g.room, text("one"))
		send(t, g.alice, g.room, text("two"))
		g.counted(t, g.room, 2)
		bot.stops(t)
		assert.Empty(t, bot.out.String(), "nothing is logged")
		about, err := os.Stat(filepath.Join(dir, "data", "recovery.key"))
		require.NoError(t, err)
		assert.Equal(t, os.FileMode(0o600), about.Mode().Perm())

		send(t, g.alice, g.room, text("while it is away"))
		again := g.run(t, first, dir, nil)
		g.counted(t, g.room, 3)
		assert.Equal(t, 1, g.logins)
		if *soak { // it takes 10 seconds
			another := g.start(t, first, dir, nil)
			another.exits(t, 1)
			assert.Contains(t, another.out.String(), ErrInUse.Error())
		}
		again.stops(t)
	})
	t.Run("handlers", func(t *testing.T) {
		t.Parallel()
		g, dir := newGuided(t, false), t.TempDir()
		send(t, g.alice, g.room, text("before its first start"))
		bot := g.run(t, all, dir, nil, "dir", "count", "welcome")
		notice, edit, own := text("a notice"), text("edited"), text("its own")
		notice.MsgType = event.MsgNotice
		send(t, g.alice, g.room, notice)
		edit.SetEdit(send(t, g.alice, g.room, text("one")))
		send(t, g.alice, g.room, edit)
		client, err := g.server.Login(t.Context(), "bot", "secret")
		require.NoError(t, err)
		send(t, client, g.room, own)
		for n, name := range []string{"carol", "dave"} { // whose join is the last event that is handled
			_, err = g.user(t, name).JoinRoomByID(t.Context(), g.room)
			require.NoError(t, err)
			eventually(t, "somebody is welcome", func() bool { return g.said(t, "Welcome, @"+name+":example.org") == 1 })
			bot.stops(t)
			g.counted(t, g.room, 1+n)
			send(t, g.alice, g.room, text("while it is away"))
			bot = g.run(t, all, dir, nil, "dir", "count", "welcome")
		}
		bot.stops(t)
	})
	t.Run("configuration", func(t *testing.T) {
		t.Parallel()
		g, dir := newGuided(t, false), t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, "password"), []byte("secret\n"), 0o600))
		var env []string
		for _, block := range page.shell {
			for line := range strings.Lines(block) {
				if variables, is := strings.CutPrefix(line, "export "); is && !strings.Contains(line, EnvOAuth) {
					env = append(env, words(strings.NewReplacer("/run/secrets", dir, "/var/lib", dir).Replace(variables))...)
				}
			}
		}
		require.Len(t, env, 5)
		bot := g.run(t, all, dir, env, "environment", "count")
		joins := func(client *mautrix.Client, direct bool) id.RoomID {
			made, err := client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{
				Preset: "trusted_private_chat", Invite: []id.UserID{"@bot:example.org"}, IsDirect: direct, PowerLevelOverride: &event.PowerLevelsEventContent{
					StateDefaultPtr: new(int),
				},
			})
			require.NoError(t, err)
			return made.RoomID
		}
		in := func(room id.RoomID, client *mautrix.Client) bool {
			members, err := client.JoinedMembers(t.Context(), room)
			return err == nil && len(members.Joined) == 2
		}
		mallory := g.user(t, "mallory")
		denied, allowed := joins(mallory, true), joins(g.alice, false)
		eventually(t, "an invite of example.org is accepted", func() bool { return in(allowed, g.alice) })
		send(t, g.alice, allowed, text("one"))
		g.counted(t, allowed, 1)
		assert.False(t, in(denied, mallory))
		bot.stops(t)
		bot = g.run(t, all, dir, append(env, EnvInvites+"=@alice:other.org"), "environment", "count")
		group, direct := joins(g.alice, false), joins(g.alice, true)
		eventually(t, "a direct chat is accepted", func() bool { return in(direct, g.alice) })
		assert.False(t, in(group, g.alice))
		bot.stops(t)
		assert.False(t, in(denied, mallory))
		assert.DirExists(t, filepath.Join(dir, "bot"))
	})
	t.Run("power", func(t *testing.T) {
		t.Parallel()
		g, dir := newGuided(t, false), t.TempDir()
		_, err := g.alice.SendStateEvent(t.Context(), g.room, event.StatePowerLevels, "", &event.PowerLevelsEventContent{Users: map[id.UserID]int{g.alice.UserID: 100}})
		require.NoError(t, err)
		bot := g.run(t, first, dir, nil)
		send(t, g.alice, g.room, text("one"))
		eventually(t, "it may not write", func() bool { return strings.Contains(bot.out.String(), roomkv.ErrForbidden.Error()) })
		bot.stops(t)
		bot = g.run(t, all, dir, nil, "dir", "count")
		send(t, g.alice, g.room, text("two"))
		own, err := g.server.Login(t.Context(), "bot", "secret")
		require.NoError(t, err)
		eventually(t, "it has written to its account data", func() bool {
			var memory struct {
				Messages int `json:"messages"`
			}
			err := own.GetRoomAccountData(t.Context(), g.room, "m.opsdroid.database", &memory)
			return err == nil && memory.Messages == 1
		})
		bot.stops(t)
	})
	t.Run("keys and verification", func(t *testing.T) {
		t.Parallel()
		g, dir := newGuided(t, true), t.TempDir()
		bot := g.run(t, all, dir, nil, "dir", "hand over", "verification", "count")
		key, err := os.ReadFile(filepath.Join(safe, "recovery-key"))
		require.NoError(t, err)
		assert.NoFileExists(t, filepath.Join(dir, "data", "recovery.key"))
		machine := hstest.Crypto(t, g.alice).Machine()
		devices, err := machine.FetchKeys(t.Context(), []id.UserID{"@bot:example.org"}, true)
		require.NoError(t, err)
		require.Len(t, devices["@bot:example.org"], 1)
		for _, device := range devices["@bot:example.org"] {
			trust, err := machine.ResolveTrustContext(t.Context(), device)
			require.NoError(t, err)
			assert.Equal(t, id.TrustStateCrossSignedTOFU, trust)
		}
		verify(t, machine, "@bot:example.org")
		send(t, g.alice, g.room, text("one"))
		g.remembered(t, strings.TrimSpace(string(key)), 1)
		bot.stops(t)
		without := g.start(t, all, dir, nil, "dir", "count")
		without.exits(t, 1)
		assert.Contains(t, without.out.String(), ErrRecoveryKeyNeeded.Error())

		env := []string{"RECOVERY_KEY=" + strings.TrimSpace(string(key))}
		g.run(t, all, dir, env, "dir", "key", "count").stops(t)
		for n := range 3 { // without a disk, each time as if the machine were new
			bot := g.run(t, all, t.TempDir(), env, "bare", "count")
			send(t, g.alice, g.room, text("again"))
			g.remembered(t, strings.TrimSpace(string(key)), 2+n)
			bot.stops(t)
			named := map[string]int{} // by what the IDs have of the devices' names: the bot's and the reader's
			for _, device := range g.server.Devices("@bot:example.org") {
				if strings.HasPrefix(device.String(), "ROOMKV") {
					named[device.String()[:len("ROOMKV")+8]]++
				}
			}
			assert.Len(t, named, 2)
			for _, devices := range named {
				assert.LessOrEqual(t, devices, 2)
			}
		}
	})
	t.Run("replicas", func(t *testing.T) {
		t.Parallel()
		g := newGuided(t, false)
		var replicas []*process
		var env []string
		dirs := []string{t.TempDir(), t.TempDir()}
		for _, dir := range dirs {
			replicas = append(replicas, g.run(t, all, dir, env, "dir", "key", "hello", "welcome", "lead"))
			key, err := os.ReadFile(filepath.Join(dirs[0], "data", "recovery.key"))
			require.NoError(t, err)
			env = []string{"RECOVERY_KEY=" + strings.TrimSpace(string(key))}
		}
		for n := range 5 {
			send(t, g.alice, g.room, text(fmt.Sprint(n)))
		}
		carol := g.user(t, "carol")
		_, err := carol.JoinRoomByID(t.Context(), g.room)
		require.NoError(t, err)
		eventually(t, "each replica has seen all", func() bool {
			return g.said(t, "Welcome, @carol:example.org") == 2 && g.said(t, "Hello") >= 5
		})
		eventually(t, "a replica leads", func() bool { return strings.Contains(replicas[0].out.String()+replicas[1].out.String(), "leads") })
		leader := 0
		if !strings.Contains(replicas[0].out.String(), "leads") {
			leader = 1
		}
		assert.NotContains(t, replicas[1-leader].out.String(), "leads", "one has the lease")
		require.NoError(t, replicas[leader].command.Process.Kill())
		if *soak { // it takes half a minute
			eventually(t, "the other one leads", func() bool { return strings.Contains(replicas[1-leader].out.String(), "leads") })
		}
		replicas[1-leader].stops(t)
		assert.Equal(t, 5, g.said(t, "Hello"), "each message was answered once")
	})
	t.Run("signed out", func(t *testing.T) {
		t.Parallel()
		g := newGuided(t, false)
		bot := g.run(t, all, t.TempDir(), nil, "dir", "count")
		require.NoError(t, g.server.LogOut("@bot:example.org"))
		bot.exits(t, 78)
	})
}

// remembered waits until the bot's own memory has so many messages, which somebody reads with the recovery key.
func (g *guided) remembered(t *testing.T, key string, want int) {
	t.Helper()
	bot, err := open(t.Context(), Config{Homeserver: g.server.URL(), User: "@bot:example.org", Password: "secret", RecoveryKey: key, DeviceName: "a reader"}, g.server)
	require.NoError(t, err)
	defer func() { assert.NoError(t, bot.Close()) }()
	store, err := bot.Store(g.room.String())
	require.NoError(t, err)
	eventually(t, fmt.Sprint(want, " messages"), func() bool {
		is, err := roomkv.Get[int](t.Context(), store, "messages")
		return err == nil && is == want
	})
}

// words are those of a line of shell, without the quotes.
func words(line string) (found []string) {
	var word bytes.Buffer
	quoted := false
	for _, c := range line + " " {
		switch {
		case c == '"':
			quoted = !quoted
		case (c == ' ' || c == '\n') && !quoted:
			if word.Len() > 0 {
				found = append(found, word.String())
			}
			word.Reset()
		default:
			word.WriteRune(c)
		}
	}
	return found
}
