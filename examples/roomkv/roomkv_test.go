package main

import (
	"bufio"
	"bytes"
	"encoding/json"
	"flag"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/keybackup"
)

// envCommand makes the test binary the command itself.
const envCommand = "ROOMKV_TEST_COMMAND"

var onReal = flag.Bool("real", false, "run the tests on Dendrite, and not on a homeserver in memory")

func TestMain(m *testing.M) {
	if os.Getenv(envCommand) != "" {
		os.Exit(run())
	}
	flag.Parse()
	if *onReal {
		hstest.Main(m)
	}
	hstest.InMemory(fakehs.Forking) // unless ROOMKV_HOMESERVER names a real one
	os.Exit(m.Run())
}

// shell runs the command with an environment of its own.
type shell struct {
	t        *testing.T
	bot      *mautrix.Client
	password string
	env      []string // later ones count
}

// newShell has a user with a plain room and its password.
func newShell(t *testing.T) *shell {
	t.Helper()
	bot := hstest.Client(t)
	password, err := hstest.Server(t).Password(bot.UserID)
	require.NoError(t, err)
	sh := &shell{t: t, bot: bot, password: password}
	for _, variable := range os.Environ() {
		if !strings.HasPrefix(variable, "ROOMKV_") {
			sh.env = append(sh.env, variable)
		}
	}
	sh.set(envCommand, "1")
	sh.set(envConfigDir, t.TempDir())
	sh.set(envHomeserver, hstest.Server(t).URL)
	sh.set(envUser, bot.UserID.String())
	sh.set(envPassword, password)
	sh.set(envRoom, hstest.Room(t, bot).String())
	return sh
}

func (sh *shell) set(name, value string) { sh.env = append(sh.env, name+"="+value) }

func (sh *shell) command(args ...string) *exec.Cmd {
	cmd := exec.CommandContext(sh.t.Context(), os.Args[0], args...)
	cmd.Env = sh.env
	return cmd
}

// result is what a command printed, and its exit code.
type result struct {
	out, err string
	code     int
}

func (sh *shell) run(args ...string) result { return sh.feed("", args...) }

// feed runs a command with something on its standard input.
func (sh *shell) feed(in string, args ...string) result {
	sh.t.Helper()
	cmd := sh.command(args...)
	var out, errs bytes.Buffer
	cmd.Stdin, cmd.Stdout, cmd.Stderr = strings.NewReader(in), &out, &errs
	if err := cmd.Run(); err != nil {
		require.ErrorAs(sh.t, err, new(*exec.ExitError))
	}
	return result{out.String(), errs.String(), cmd.ProcessState.ExitCode()}
}

// ok runs a command that must succeed and gives what it printed.
func (sh *shell) ok(args ...string) string {
	sh.t.Helper()
	got := sh.run(args...)
	require.Zero(sh.t, got.code, "roomkv %s: %s", strings.Join(args, " "), got.err)
	return got.out
}

func TestValues(t *testing.T) {
	sh := newShell(t)
	sh.ok("put", "greeting", "Hello!")
	sh.ok("put", "settings", `{"volume": 0.8}`)
	sh.ok("put", "postcode", "--string", "01067")
	sh.ok("put", "temperature", "--", "-5")
	require.Zero(t, sh.feed("read me\n", "put", "notes", "-").code)

	assert.Equal(t, "Hello!\n", sh.ok("get", "greeting"))
	assert.Equal(t, "{\"volume\":0.8}\n", sh.ok("get", "settings"))
	assert.Equal(t, "01067\n", sh.ok("get", "postcode"))
	assert.Equal(t, "read me\n", sh.ok("get", "notes"))
	var entry line
	require.NoError(t, json.Unmarshal([]byte(sh.ok("get", "temperature", "--json")), &entry))
	assert.Equal(t, "-5", string(entry.Value))
	assert.Equal(t, sh.bot.UserID, entry.Sender)
	assert.WithinDuration(t, time.Now(), entry.Time, time.Minute)

	for _, latin1 := range []result{sh.feed("caf\xe9", "put", "greeting", "-"), sh.feed("\"caf\xe9\"", "put", "greeting", "-"), sh.run("put", "greeting", "caf\xe9")} {
		assert.Equal(t, exitUsage, latin1.code)
		assert.Contains(t, latin1.err, "UTF-8")
	}
	assert.Equal(t, "Hello!\n", sh.ok("get", "greeting"))

	missing := sh.run("get", "nothing")
	assert.Equal(t, exitNotFound, missing.code)
	assert.Contains(t, missing.err, "key not found")
	assert.Empty(t, missing.out)
	assert.Equal(t, exitError, sh.run("put", "greeting", "--create", "Hi!").code)
	assert.Zero(t, sh.run("put", "greeting", "--if-revision", string(entry.Revision), "Hi!").code, "other keys do not matter")
	assert.Equal(t, exitError, sh.run("put", "greeting", "--if-revision", string(entry.Revision), "Ho!").code)

	table := sh.ok("ls")
	assert.NotContains(t, table, "\x1b", "no colour in a pipe")
	assert.Equal(t, []string{"KEY", "greeting", "notes", "postcode", "settings", "temperature"}, firstColumn(table))
	assert.Equal(t, []string{"KEY", "settings"}, firstColumn(sh.ok("ls", "se")))
	assert.Equal(t, 5, strings.Count(sh.ok("ls", "--json"), "\n"))
	assert.Equal(t, firstColumn(table)[:3], firstColumn(sh.ok("ls", "--limit", "2")))
	assert.Equal(t, firstColumn(table)[2:], firstColumn(sh.ok("ls", "--after", firstColumn(table)[1]))[1:])
	assert.Equal(t, firstColumn(table)[len(firstColumn(table))-1], firstColumn(sh.ok("ls", "--descending"))[1])
	assert.NotContains(t, table, "SENDER")
	info := sh.ok("info")
	assert.Regexp(t, `KEYS +5\n`, info)
	assert.Regexp(t, `ROOM FOR +about \d+ more keys`, info)
	assert.Contains(t, info, "one state event")
	assert.Contains(t, sh.ok("info", "--json"), `"keys":5,`)
	assert.Contains(t, sh.ok("info", "--per-key"), "a state event for each key (0)")
	assert.Contains(t, sh.ok("info", "--shards", "4"), "0 state events of up to 4")
	long := sh.ok("ls", "--long")
	assert.Contains(t, long, "SENDER")
	assert.Contains(t, long, sh.bot.UserID.String())
	assert.Regexp(t, `(?m)^settings +object +14 B .* \{"volume":0\.8\}$`, long)
	assert.Regexp(t, `(?m)^settings +\{"volume":0\.8\}$`, table)

	sh.ok("rm", "notes", "postcode", "nothing")
	assert.Equal(t, exitNotFound, sh.run("get", "notes").code)

	t.Run("the shell completes keys", func(t *testing.T) {
		assert.Contains(t, sh.ok("__complete", "get", ""), "greeting\n")
	})
	t.Run("other memories in the room", func(t *testing.T) {
		for _, memory := range [][]string{{"--per-key", "--event-type", "com.example.per-key"}, {"--shards", "4"}, {"--state-key", "other"}} {
			assert.Equal(t, exitNotFound, sh.run(append(memory, "get", "greeting")...).code)
			sh.ok(append(memory, "put", "greeting", "Elsewhere!")...)
			assert.Equal(t, "Elsewhere!\n", sh.ok(append(memory, "get", "greeting")...))
		}
		assert.Equal(t, "Hi!\n", sh.ok("get", "greeting"))
	})
}

func firstColumn(table string) (column []string) {
	for row := range strings.Lines(table) {
		column = append(column, strings.Fields(row)[0])
	}
	return column
}

func TestWrongUsage(t *testing.T) {
	sh := &shell{t: t, env: []string{envCommand + "=1", envConfigDir + "=" + t.TempDir()}}
	for _, args := range [][]string{
		{"bogus"}, {"get"}, {"get", "a", "b"}, {"ls", "--bogus"},
		{"ls"},                      // no room
		{"ls", "--room", "lobby"},   // no room
		{"ls", "--room", "!r:test"}, // nobody
		{"ls", "--room", "!r:test", "--user", "bot"},                                       // nowhere
		{"ls", "--room", "!r:test", "--user", "bot", "--homeserver", "http://127.0.0.1:1"}, // no password
		{"ls", "--room", "!r:test", "--per-key", "--state-key", "k"},                       // both layouts
		{"ls", "--room", "!r:test", "--per-key", "--shards", "4"},
		{"ls", "--room", "!r:test", "--profile", "../x"}, // a folder elsewhere
		{"put", "k", `{"a":`},                                // a slip
		{"put", "k", "1", "--create", "--if-revision", "$e"}, // both
		{"watch", "k", "--prefix", "k"},                      // both
		{"import"}, {"export", "a", "b"},
		{"history", "k", "--limit", "-1", "--room", "!r:test"},
		{"import", os.DevNull, "--room", "!r:test", "--replace"}, // nobody to be asked
	} {
		got := sh.run(args...)
		assert.Equal(t, exitUsage, got.code, "%v: %s", args, got.err)
		assert.Contains(t, got.err, "--help", "%v", args)
	}
	help := sh.run()
	assert.Zero(t, help.code)
	assert.Contains(t, help.out, "Exit codes")
}

func TestHelpTeaches(t *testing.T) {
	for _, cmd := range (&app{}).root().Commands() {
		if cmd.Name() == "completion" {
			continue // cobra's
		}
		assert.NotEmpty(t, cmd.Long, cmd.Name())
		assert.NotEmpty(t, cmd.Example, cmd.Name())
		assert.NotEmpty(t, cmd.GroupID, cmd.Name())
	}
}

func TestLogin(t *testing.T) {
	sh := newShell(t)
	wrong := *sh
	wrong.set(envPassword, "not the password")
	got := wrong.run("login")
	assert.Equal(t, exitError, got.code)
	assert.NotContains(t, got.err, "not the password")

	sh.ok("login")
	kept := *sh
	kept.set(envPassword, "")
	kept.set(envUser, "")
	kept.set(envHomeserver, "")
	kept.ok("ls") // the login was kept

	other := kept
	other.set(envUser, "@other:example.org")
	assert.Equal(t, exitUsage, other.run("ls").code, "the profile is somebody else's")

	said := sh.run("put", "diary", "my secret value", "--verbose")
	require.Zero(t, said.code)
	assert.Contains(t, said.err, "m.opsdroid.database", "the requests are shown")
	for _, secret := range []string{sh.password, "my secret value", "access_token", "Bearer"} {
		assert.NotContains(t, said.err, secret)
	}

	kept.ok("logout")
	assert.Equal(t, exitUsage, kept.run("ls").code)
	assert.Equal(t, exitError, kept.run("logout").code)

	token := kept
	token.set(envToken, sh.bot.AccessToken)
	token.set(envHomeserver, hstest.Server(t).URL)
	assert.Equal(t, "my secret value\n", token.ok("get", "diary"))
	got = token.run("login")
	assert.Zero(t, got.code)
	assert.Contains(t, got.err, "not kept")
	token.set(envToken, "no-token-of-anybody")
	got = token.run("get", "diary")
	assert.Equal(t, exitError, got.code)
	assert.NotContains(t, got.err, "no-token-of-anybody")
}

func TestRoomUpgrade(t *testing.T) {
	sh := newShell(t)
	var resp struct {
		Replacement string `json:"replacement_room"`
	}
	room := hstest.Room(t, sh.bot)
	sh.set(envRoom, room.String())
	sh.ok("put", "greeting", "Hello!")
	_, err := sh.bot.MakeRequest(t.Context(), http.MethodPost, sh.bot.BuildClientURL("v3", "rooms", room, "upgrade"), map[string]string{"new_version": "11"}, &resp)
	require.NoError(t, err)
	got := sh.run("put", "greeting", "Hi!")
	assert.Equal(t, exitError, got.code)
	assert.Contains(t, got.err, resp.Replacement)
	assert.Contains(t, got.err, "--follow-upgrades")
	sh.ok("put", "greeting", "Hi!", "--follow-upgrades")
	assert.Equal(t, "Hi!\n", sh.ok("get", "greeting", "--room", resp.Replacement))
}

func TestEncryptedRoom(t *testing.T) {
	sh := newShell(t)
	room := hstest.EncryptedRoom(t, sh.bot)
	sh.set(envRoom, room.String())
	device, err := hstest.Server(t).NewDevice(t.Context(), sh.bot.UserID)
	require.NoError(t, err)
	recoveryKey, _, err := keybackup.SetUp(t.Context(), hstest.Crypto(t, device).Machine(), "")
	require.NoError(t, err)

	sh.set(envRecoveryKey, recoveryKey)
	sh.ok("put", "combination", "12-34-56")
	assert.Equal(t, "12-34-56\n", sh.ok("get", "combination"))
	var content json.RawMessage
	require.NoError(t, sh.bot.StateEvent(t.Context(), room, event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "", &content))
	assert.NotContains(t, string(content), "12-34-56")

	var processes sync.WaitGroup
	for _, key := range []string{"a", "b", "c", "d"} { // they wait for each other's crypto store
		processes.Go(func() { assert.Zero(t, sh.run("put", key, key).code) })
	}
	processes.Wait()

	other := *sh
	other.set(envProfile, "other")
	for _, key := range []string{"a", "b", "c", "d"} {
		assert.Equal(t, key+"\n", other.ok("get", key), "from the key backup")
	}
	stranger := other
	stranger.set(envProfile, "without-the-key")
	stranger.set(envRecoveryKey, "")
	got := stranger.run("get", "combination")
	assert.Equal(t, exitError, got.code)
	assert.Contains(t, got.err, "--recovery-key-file")
	list := stranger.run("ls", "--encrypt=false")
	assert.Equal(t, exitError, list.code)
	assert.Regexp(t, `combination +\(unreadable\)`, list.out, "keys can be listed without it")
}

func TestWatch(t *testing.T) {
	sh := newShell(t)
	sh.ok("put", "counter", "0")
	cmd := sh.command("watch", "--json")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	var errs bytes.Buffer
	cmd.Stderr = &errs
	require.NoError(t, cmd.Start())
	changes := make(chan changed)
	go func() {
		defer close(changes)
		for lines := bufio.NewScanner(out); lines.Scan(); {
			var change changed
			if assert.NoError(t, json.Unmarshal(lines.Bytes(), &change)) {
				changes <- change
			}
		}
	}()
	var seen changed
	for n := 1; seen.Key == "" && n < 50; n++ { // the watch begins when it has synced
		sh.ok("put", "counter", string(rune('0'+n%10)))
		select {
		case seen = <-changes:
		case <-time.After(200 * time.Millisecond):
		}
	}
	assert.Equal(t, "counter", seen.Key)
	go func() {
		for range changes {
		}
	}()
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	assert.NoError(t, cmd.Wait(), "Ctrl-C is how a watch ends: %s", errs.String())
}

func TestWatchInitial(t *testing.T) {
	sh := newShell(t)
	for _, key := range []string{"poll/a", "quiz/b", "other"} {
		sh.ok("put", key, "1")
	}
	assert.Equal(t, exitUsage, sh.run("watch", "--initial", "--from", "$x").code)
	assert.Equal(t, exitUsage, sh.run("watch", "k", "--prefix", "p").code)
	cmd := sh.command("watch", "--json", "--initial", "--prefix", "poll/", "--prefix", "quiz/")
	out, err := cmd.StdoutPipe()
	require.NoError(t, err)
	require.NoError(t, cmd.Start())
	var told []string
	for lines := bufio.NewScanner(out); lines.Scan(); {
		var line struct {
			changed
			End bool `json:"end_of_initial"`
		}
		require.NoError(t, json.Unmarshal(lines.Bytes(), &line))
		if told = append(told, line.Key); line.End {
			assert.NotEmpty(t, line.Revision)
			sh.ok("put", "other", "2")
			sh.ok("put", "quiz/b", "2")
			continue
		}
		if string(line.Old) == "1" {
			break
		}
	}
	assert.Equal(t, []string{"poll/a", "quiz/b", "", "quiz/b"}, told)
	require.NoError(t, cmd.Process.Signal(os.Interrupt))
	go func() { _, _ = io.Copy(io.Discard, out) }()
	assert.NoError(t, cmd.Wait())
}

func TestCopy(t *testing.T) {
	sh := newShell(t)
	sh.ok("put", "greeting", "Hello!")
	sh.ok("put", "settings", `{"volume": 0.8}`)
	sh.ok("keybackup", "setup")
	elsewhere := hstest.EncryptedRoom(t, sh.bot).String()

	got := sh.run("copy", "--to-room", elsewhere, "--to-per-key")
	require.Zero(t, got.code, got.err)
	assert.Equal(t, "Copied 2 keys.\n", got.err, "no progress bar in a file")
	assert.Equal(t, "Hello!\n", sh.ok("get", "greeting", "--room", elsewhere, "--per-key"))
	assert.Equal(t, "Copied 0 keys, 2 were there already.\n", sh.run("copy", "--to-room", elsewhere, "--to-per-key").err)

	sh.ok("put", "greeting", "Hi!")
	kept := sh.run("copy", "--to-room", elsewhere, "--to-per-key")
	assert.Equal(t, exitError, kept.code)
	assert.Contains(t, kept.err, "1 have other values there")
	sh.ok("copy", "--to-room", elsewhere, "--to-per-key", "--overwrite")
	assert.Equal(t, "Hi!\n", sh.ok("get", "greeting", "--room", elsewhere, "--per-key"))

	t.Run("within a room", func(t *testing.T) {
		sh.ok("copy", "--to-event-type", "com.example.other")
		assert.Equal(t, "Hi!\n", sh.ok("get", "greeting", "--event-type", "com.example.other"))
		same := sh.run("copy")
		assert.Equal(t, exitUsage, same.code, same.err)
		assert.NotContains(t, same.err, "Copied")
	})
	t.Run("to another account", func(t *testing.T) {
		other := newShell(t)
		room := hstest.Room(t, other.bot)
		password := filepath.Join(t.TempDir(), "password")
		require.NoError(t, os.WriteFile(password, []byte(other.password+"\n"), 0o600))
		sh.ok("copy", "--to-user", other.bot.UserID.String(), "--to-profile", "other", "--to-password-file", password, "--to-room", room.String())
		assert.Equal(t, "Hi!\n", other.ok("get", "greeting", "--room", room.String()))
	})
}

func TestExportAndImport(t *testing.T) {
	sh := newShell(t)
	sh.ok("put", "greeting", "Hello!")
	sh.ok("put", "settings", `{"volume": 0.8}`)
	name := filepath.Join(t.TempDir(), "memory.jsonl")
	got := sh.run("export", name)
	require.Zero(t, got.code, got.err)
	assert.Empty(t, got.out)
	assert.Equal(t, "Exported 2 keys.\n", got.err, "no progress bar in a file")
	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode())
	file, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, 4, bytes.Count(file, []byte("\n")))
	assert.Equal(t, exitError, sh.run("export", name).code, "it is there already")
	sh.ok("put", "greeting", "Hi!")
	assert.Contains(t, sh.ok("export", "--history"), `"value":"Hello!"`)
	again := sh.run("export", name, "--force", "--history", "--json")
	assert.Equal(t, `{"total":2,"revisions":3,"unreadable":0,"complete":true}`+"\n", again.out)
	assert.Empty(t, again.err)
	entries, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	assert.Len(t, entries, 1, "no half files")

	sh.ok("keybackup", "setup")
	elsewhere := hstest.EncryptedRoom(t, sh.bot).String()
	there := *sh
	there.set(envRoom, elsewhere)
	require.Equal(t, "Imported 2 keys.\n", there.run("import", name, "--per-key").err)
	assert.Equal(t, "Hi!\n", there.ok("get", "greeting", "--per-key"))
	assert.Equal(t, "Imported 0 keys, 2 were there already.\n", there.run("import", name, "--per-key").err)

	older := there.feed(string(file), "import", "-", "--per-key")
	assert.Equal(t, exitError, older.code)
	assert.Contains(t, older.err, "1 have other values here")
	there.ok("put", "other", "1", "--per-key")
	before := there.feed(string(file), "import", "-", "--per-key", "--replace", "--yes")
	require.Zero(t, before.code, before.err)
	assert.Equal(t, "Imported 1 key, 1 were there already, 1 were removed.\n", before.err)
	assert.Equal(t, "Hello!\n", there.ok("get", "greeting", "--per-key"))
	assert.Equal(t, exitNotFound, there.run("get", "other", "--per-key").code)

	assert.Equal(t, "Imported 1 key.\n", there.feed(`{"plain": [1]}`, "import", "-", "--per-key", "--format", "json").err)
	assert.Equal(t, "[1]\n", there.ok("get", "plain", "--per-key"))
	assert.Equal(t, "Imported 1 key.\n", there.feed(`{"key": "line", "value": 2}`, "import", "-", "--per-key", "--format", "jsonl").err)
	assert.Equal(t, exitUsage, there.feed("", "import", "-", "--format", "yaml").code)
	assert.Equal(t, exitUsage, there.feed("{}", "import", "-", "--format", "json", "--of-room", elsewhere).code)
	dry := there.feed(`{"plain": 2, "dry": 1}`, "import", "-", "--per-key", "--format", "json", "--replace", "--dry-run")
	assert.Equal(t, "Would import 2 keys, 3 would be removed.\n", dry.err)
	assert.Equal(t, "[1]\n", there.ok("get", "plain", "--per-key"))
	require.NoError(t, sh.bot.SetAccountData(t.Context(), "com.example.mybot", map[string]any{"own": []int{1}, "line": 3}))
	require.NoError(t, sh.bot.SetRoomAccountData(t.Context(), id.RoomID(elsewhere), "com.example.mybot", map[string]any{"of the room": true}))
	data := there.run("import", "com.example.mybot", "--per-key", "--format", "account-data", "--json")
	assert.Equal(t, exitError, data.code)
	assert.Equal(t, `{"total":2,"written":1,"equal":0,"kept":1,"too_large":0,"removed":0,"unreadable":0}`+"\n", data.out)
	assert.Equal(t, "[1]\n", there.ok("get", "own", "--per-key"))
	assert.Equal(t, "Imported 1 key.\n", there.run("import", "com.example.mybot", "--per-key", "--format", "account-data", "--of-room", elsewhere).err)
	assert.Equal(t, exitNotFound, there.run("import", "com.example.other", "--format", "account-data").code)
	damaged := there.feed(string(file[:len(file)-2]), "import", "-", "--overwrite")
	assert.Equal(t, exitError, damaged.code)
	assert.Contains(t, damaged.err, "damaged file")
	assert.NotContains(t, damaged.err, "Imported")
	assert.NotContains(t, there.ok("ls"), "greeting", "nothing was stored")

	t.Run("what cannot be read", func(t *testing.T) {
		_, err := sh.bot.SendStateEvent(t.Context(), id.RoomID(elsewhere), event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}, "",
			json.RawMessage(`{"good": 1, "bad": {"encrypted_val": "$nothing"}}`))
		require.NoError(t, err)
		name := filepath.Join(t.TempDir(), "memory.jsonl")
		got := there.run("export", name)
		assert.Equal(t, exitError, got.code)
		assert.Contains(t, got.err, "Exported 2 keys, 1 of which without a value.\n")
		file, err := os.ReadFile(name)
		require.NoError(t, err)
		assert.Contains(t, string(file), `"absent":"unreadable"`)
	})
}

func TestHistoryAndRestore(t *testing.T) {
	sh := newShell(t)
	for _, value := range []string{"one", "two", "three"} {
		sh.ok("put", "counter", value)
	}
	var revisions []line
	for text := range strings.Lines(sh.ok("history", "counter", "--json")) {
		var revision line
		require.NoError(t, json.Unmarshal([]byte(text), &revision))
		revisions = append(revisions, revision)
	}
	require.Len(t, revisions, 3)
	assert.Equal(t, `"three"`, string(revisions[0].Value))
	sh.ok("put", "new", "here")
	sh.ok("rm", "counter")
	assert.Contains(t, sh.ok("history", "counter"), "(removed)")
	assert.Equal(t, 2, strings.Count(sh.ok("history", "counter", "--limit", "1"), "\n"))
	assert.Equal(t, exitNotFound, sh.run("history", "nothing").code)

	at := string(revisions[1].Revision)
	const changes = "+ counter: \"two\"\n- new: \"here\"\n"
	assert.Equal(t, changes, sh.ok("restore", "--at", at, "--dry-run"))
	assert.Equal(t, exitUsage, sh.run("restore", "--at", at).code, "nobody can be asked")
	assert.Equal(t, exitUsage, sh.run("restore", "--yes").code, "when?")
	assert.Equal(t, "here\n", sh.ok("get", "new"), "nothing has changed")

	got := sh.run("restore", "--at", at, "--yes")
	assert.Equal(t, result{changes, "Changed 2 keys.\n", exitOK}, got)
	assert.Equal(t, "two\n", sh.ok("get", "counter"))
	assert.Equal(t, exitNotFound, sh.run("get", "new").code)
	assert.Equal(t, "The memory is as it was then.\n", sh.run("restore", "--at", at, "--yes").err)

	nothing := sh.ok("restore", "--at", "1h", "--dry-run", "--json")
	assert.JSONEq(t, `{"key": "counter", "now": "two", "then": null}`, nothing)
}

func TestPurge(t *testing.T) {
	sh := newShell(t)
	sh.ok("put", "password", "first")
	sh.ok("put", "password", "second")
	sh.ok("put", "other", "stays")
	assert.Equal(t, exitUsage, sh.run("rm", "--purge", "password").code, "nobody can be asked")
	assert.Equal(t, "second\n", sh.ok("get", "password"))
	got := sh.run("rm", "--purge", "--yes", "password")
	require.Zero(t, got.code, got.err)
	assert.Regexp(t, `^Redacted \d events\.\n$`, got.err)
	assert.Equal(t, exitNotFound, sh.run("get", "password").code)
	assert.Equal(t, "stays\n", sh.ok("get", "other"))
	assert.NotContains(t, sh.run("history", "password").out, "first")
	assert.JSONEq(t, `{"state_events": 0, "encrypted_events": 0, "media": [], "left": [], "unseen": false}`, sh.ok("rm", "--purge", "--yes", "--json", "password"))
}

// value is that of a variable of the environment.
func (sh *shell) value(name string) (value string) {
	for _, variable := range sh.env {
		if found, ok := strings.CutPrefix(variable, name+"="); ok {
			value = found
		}
	}
	return value
}
