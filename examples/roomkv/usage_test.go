package main

import (
	"errors"
	"fmt"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestUsageErrorsTeach(t *testing.T) {
	t.Parallel()
	sh := &shell{t: t, env: []string{envCommand + "=1", envConfigDir + "=" + t.TempDir()}}
	for _, test := range []struct {
		args []string
		says []string
	}{
		{[]string{"put"}, []string{"KEY is missing", "Example: roomkv put greeting 'Hello!'\n", "See: roomkv put --help"}},
		{[]string{"put", "greeting"}, []string{"VALUE is missing", "Example: roomkv put greeting 'Hello!'\n"}},
		{[]string{"put", "greeting", "Hello", "world"}, []string{`"world" is too much`, "quotes"}},
		{[]string{"put", "neg", "-5"}, []string{"no flag -5", "-- -5", "Example: roomkv put"}},
		{[]string{"put", "neg", "-0.5e3"}, []string{"-- -0.5e3"}},
		{[]string{"get"}, []string{"KEY is missing", "Example: roomkv get greeting\n"}},
		{[]string{"rm"}, []string{"KEY is missing", "Example: roomkv rm greeting\n"}},
		{[]string{"history"}, []string{"KEY is missing"}},
		{[]string{"import"}, []string{"FILE or TYPE is missing", "Example: roomkv import memory.jsonl\n"}},
		{[]string{"info", "x"}, []string{`"x" is too much`}},
		{[]string{"ls"}, []string{"which room? Give --room or ROOMKV_ROOM", "Example: roomkv ls\n"}},
		{[]string{"restore", "--room", "!r:test"}, []string{"when? Give --at", "Example: roomkv restore --at 2h --dry-run\n"}},
		{[]string{"keybackup", "setup", "x"}, []string{`"x" is too much`, "Example: roomkv keybackup setup\n"}},
	} {
		got := sh.run(test.args...)
		assert.Equal(t, exitUsage, got.code, "%v", test.args)
		for _, said := range test.says {
			assert.Contains(t, got.err, said, "%v", test.args)
		}
	}
}

func TestHelpHasGroups(t *testing.T) {
	t.Parallel()
	sh := &shell{t: t, env: []string{envCommand + "=1"}}
	help := sh.ok("put", "--help")
	own, global, found := strings.Cut(help, "\nGlobal flags, which memory:\n")
	require.True(t, found)
	assert.Contains(t, own, "--raw")
	assert.NotContains(t, own, "--homeserver")
	memory, login, found := strings.Cut(global, "\nGlobal flags, which login:\n")
	require.True(t, found)
	assert.Contains(t, memory, "--room")
	login, output, found := strings.Cut(login, "\nGlobal flags, the output:\n")
	require.True(t, found)
	assert.Contains(t, login, "--profile")
	assert.Contains(t, output, "--json")
	root := sh.ok("--help")
	assert.Contains(t, root, "\nFlags:\n  -h, --help")
	assert.Contains(t, root, "Global flags, which memory:\n")
	assert.Contains(t, root, "  verify ")
	assert.Contains(t, sh.ok("keybackup", "--help"), "  save-all ")
	assert.Contains(t, sh.ok("copy", "--help"), "The target, which login:\n")
}

// Nobody at a terminal can give an option of Go.
func TestMessagesSpeakOfFlags(t *testing.T) {
	t.Parallel()
	for text, want := range map[string]string{
		"roomkv: room upgraded: open that, or use WithRoomUpgrades":                                            "room upgraded: open that, or use --follow-upgrades",
		"roomkv: wrong secret: sealed, which takes WithSealedKeys":                                             "wrong secret: sealed, which takes --sealed-secret-file",
		"roomkv: no crypto: write values that the homeserver can read with WithEncryption(false)":              "no crypto: write values that the homeserver can read with --encrypt=false",
		"session: invalid configuration: Dir keeps a session of @a:b, and User is c":                           "invalid configuration: the profile's folder keeps a session of @a:b, and --user is c",
		"session: no homeserver: Homeserver is not the URL of a homeserver, as https://matrix.example.org: no": "no homeserver: --homeserver is not the URL of a homeserver, as https://matrix.example.org: no",
		"cannot list the rooms: session: signed out: give a Password or OAuth":                                 "cannot list the rooms: signed out: give a --password-file or OAuth",
		"asking: M_FORBIDDEN: User is not here":                                                                "asking: M_FORBIDDEN: User is not here",
	} {
		assert.Equal(t, want, say(errors.New(text)))
	}

	sh := newShell(t)
	sh.ok("put", "greeting", "Hello!")
	got := sh.run("ls", "--limit", "0")
	assert.Contains(t, got.err, "--limit takes")
	sh.set(envHomeserver, "not a url")
	got = sh.run("ls", "--profile", "other")
	assert.Contains(t, got.err, "--homeserver")
	assert.NotContains(t, got.err, "Homeserver")
}

func TestVersionOf(t *testing.T) {
	t.Parallel()
	info := &debug.BuildInfo{GoVersion: "go1.26.3", Settings: []debug.BuildSetting{{Key: "vcs.revision", Value: strings.Repeat("a1", 20)}}}
	assert.Equal(t, "(devel), commit a1a1a1a1a1a1, go1.26.3", versionOf(info))
	info.Main.Version = "v1.2.3"
	info.Settings = nil
	assert.Equal(t, "v1.2.3, go1.26.3", versionOf(info))
}

func TestCut(t *testing.T) {
	t.Parallel()
	for n, want := range map[int]string{20: "grün → 😀😀", 10: "grün → 😀…", 9: "grün → …", 1: "…"} {
		assert.Equal(t, want, cut("grün → 😀😀", n), fmt.Sprint(n))
	}
}
