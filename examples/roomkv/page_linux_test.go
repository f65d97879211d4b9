package main

import (
	"bytes"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rivo/uniseg"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"golang.org/x/sys/unix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// typed is a command of the page, with what it prints there.
type typed struct{ command, prints string }

// consoles are the page's blocks of commands, and what stands behind their language.
func consoles(t *testing.T) (blocks [][]typed, kinds []string) {
	t.Helper()
	page, err := os.ReadFile("../../docs/command.md")
	require.NoError(t, err)
	for _, found := range regexp.MustCompile("(?ms)^```console *(.*?)\n(.*?)^```$").FindAllStringSubmatch(string(page), -1) {
		var block []typed
		for line := range strings.Lines(found[2]) {
			if command, ok := strings.CutPrefix(line, "$ "); ok {
				block = append(block, typed{command: strings.TrimSpace(command)})
			} else {
				require.NotEmpty(t, block)
				block[len(block)-1].prints += line
			}
		}
		blocks, kinds = append(blocks, block), append(kinds, found[1])
	}
	return blocks, kinds
}

// openTerminal makes a pseudo-terminal. The program has one end, its person the other.
func openTerminal(t *testing.T, columns int) (person, program *os.File) {
	t.Helper()
	person, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NONBLOCK, 0)
	require.NoError(t, err)
	control, err := person.SyscallConn()
	require.NoError(t, err)
	var number int
	require.NoError(t, control.Control(func(fd uintptr) {
		require.NoError(t, unix.IoctlSetPointerInt(int(fd), unix.TIOCSPTLCK, 0))
		number, err = unix.IoctlGetInt(int(fd), unix.TIOCGPTN)
		require.NoError(t, err)
		require.NoError(t, unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: 24, Col: uint16(columns)}))
	}))
	program, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", number), os.O_RDWR|syscall.O_NOCTTY, 0)
	require.NoError(t, err)
	return person, program
}

// reaction is what a person does when the terminal shows something, once for each command.
type reaction struct {
	shows  *regexp.Regexp
	secret bool // waits until what is typed is not shown
	do     func(found []string) (keys string)
}

// silent waits until the terminal shows nothing of what is typed, and tells whether it came to that.
func silent(t *testing.T, person *os.File) bool {
	control, err := person.SyscallConn()
	require.NoError(t, err)
	return assert.Eventually(t, func() bool {
		var state *unix.Termios
		err := control.Control(func(fd uintptr) { state, _ = unix.IoctlGetTermios(int(fd), unix.TCGETS) })
		return err == nil && state != nil && state.Lflag&unix.ECHO == 0
	}, 10*time.Second, time.Millisecond)
}

// atTerminal runs a command of the shell, and gives what the terminal has shown, without colours and what was overwritten.
func (sh *shell) atTerminal(columns int, dir, command string, reactions []reaction) (shown string, code int) {
	sh.t.Helper()
	person, program := openTerminal(sh.t, columns)
	defer person.Close()
	cmd := exec.CommandContext(sh.t.Context(), "/bin/sh", "-c", "exec "+command) // so that Ctrl-C is not for the shell too
	cmd.Env, cmd.Dir = sh.env, dir
	cmd.Stdin, cmd.Stdout, cmd.Stderr = program, program, program
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	require.NoError(sh.t, cmd.Start())
	require.NoError(sh.t, program.Close())
	require.NoError(sh.t, person.SetReadDeadline(time.Now().Add(time.Minute)))
	var all bytes.Buffer
	done := make([]bool, len(reactions))
	for part := make([]byte, 4096); ; {
		n, err := person.Read(part)
		all.Write(part[:n])
		for i, r := range reactions {
			if found := r.shows.FindStringSubmatch(visible(all.String())); found != nil && !done[i] {
				done[i] = true
				if r.secret {
					silent(sh.t, person)
				}
				_, _ = io.WriteString(person, r.do(found))
			}
		}
		if err != nil { // EIO once the program has ended
			break
		}
	}
	_ = cmd.Wait()
	return visible(all.String()), cmd.ProcessState.ExitCode()
}

var escapes = regexp.MustCompile("\x1b\\[[0-9;?]*[a-zA-Z]|\\^C")

// visible is what is left of an output on the terminal.
func visible(output string) string {
	var lines []string
	for line := range strings.SplitSeq(escapes.ReplaceAllString(output, ""), "\n") {
		line = strings.TrimRight(line, "\r")
		lines = append(lines, strings.TrimRight(line[strings.LastIndexByte(line, '\r')+1:], " "))
	}
	return strings.Join(lines, "\n")
}

// matches makes a pattern of what the page shows: "…" is anything, and of blanks there can be any number.
func matches(prints string) *regexp.Regexp {
	var pattern strings.Builder
	for line := range strings.Lines(prints) {
		line = strings.TrimRight(line, " \n")
		if line == "…" {
			pattern.WriteString("(?s:.*)\n")
			continue
		}
		quoted := regexp.MustCompile(` {2,}`).ReplaceAllString(regexp.QuoteMeta(line), " +")
		pattern.WriteString(strings.ReplaceAll(quoted, "…", ".*") + "\n")
	}
	return regexp.MustCompile("^" + pattern.String() + "$")
}

// reader is somebody who types what the page has.
type reader struct {
	*shell
	dir   string
	names *strings.Replacer // of this run, by those of the page
	reply []reaction
}

func newReader(t *testing.T, sh *shell, url string) *reader {
	r := &reader{shell: sh, dir: t.TempDir()}
	require.NoError(t, os.Symlink(testProgram(t), filepath.Join(r.dir, "roomkv")))
	sh.set("PATH", r.dir+":"+os.Getenv("PATH"))
	logo := make([]byte, 5000)
	_, _ = rand.NewChaCha8([32]byte{1}).Read(logo) // does not fail
	require.NoError(t, os.WriteFile(filepath.Join(r.dir, "logo.png"), logo, 0o600))
	r.names = strings.NewReplacer(sh.value(envUser), "@bot:example.org", url, "https://matrix.example.org")
	typing := func(pattern, keys string) reaction {
		return reaction{shows: regexp.MustCompile(pattern), do: func([]string) string { return keys }}
	}
	password := typing(`Password of .*:$`, sh.password+"\n")
	password.secret = true
	r.reply = []reaction{
		password, typing(`\[y/N\]$`, "y\n"), typing(`greeting: ∅ → "Hello!"`, "\x03"),
		{shows: regexp.MustCompile(`(?m)^  (http://\S+/(?:authorize|link)\S*)$`), do: func(found []string) string {
			go open(t, found[1])
			return ""
		}},
	}
	return r
}

func testProgram(t *testing.T) string {
	t.Helper()
	name, err := os.Executable()
	require.NoError(t, err)
	return name
}

// reads runs a block and compares.
func (r *reader) reads(block []typed, columns int, alice *person) {
	r.t.Helper()
	reply, names := r.reply, r.names
	if alice != nil {
		reply = append(reply[:len(reply):len(reply)], reaction{shows: regexp.MustCompile(`(?m)^Waiting for `), do: func([]string) string {
			alice.asks(r.t, id.UserID(r.value(envUser)))
			return ""
		}})
		names = strings.NewReplacer(alice.UserID.String(), "@alice:example.org", r.value(envUser), "@bot:example.org")
	}
	for _, typed := range block {
		command := typed.command
		if alice != nil {
			command = strings.ReplaceAll(command, "@alice:example.org", alice.UserID.String())
		}
		shown, code := r.atTerminal(columns, r.dir, command, reply)
		shown = names.Replace(shown)
		if strings.HasPrefix(typed.prints, "roomkv: ") {
			assert.Positive(r.t, code, typed.command)
		} else {
			assert.Zero(r.t, code, "%s: %s", typed.command, shown)
		}
		if columns >= 80 {
			assert.Regexp(r.t, matches(typed.prints), shown, typed.command)
		}
		if typed.command == "roomkv ls" {
			for line := range strings.Lines(shown) {
				assert.LessOrEqual(r.t, uniseg.StringWidth(strings.TrimSpace(line)), columns)
			}
		}
		assert.NotContains(r.t, shown, "panic")
	}
}

func TestThePageIsTrue(t *testing.T) {
	for _, columns := range []int{80, 44} {
		t.Run(fmt.Sprint(columns), func(t *testing.T) {
			t.Parallel()
			sh := newShell(t)
			sh.set("VAULT", hstest.EncryptedRoom(t, sh.bot).String())
			sh.set("ARENA", hstest.Room(t, sh.bot).String())
			sh.set("TERM", "xterm-256color")
			sh.set("NO_COLOR", "")
			r := newReader(t, sh, hstest.Server(t).URL)
			sh.set(envPassword, "")
			blocks, kinds := consoles(t)
			assert.Greater(t, len(blocks), 8)
			for i, block := range blocks {
				switch {
				case kinds[i] == "oauth":
					a := newAuthority(t)
					newReader(t, a.shell(), a.at).reads(block, columns, nil)
				case strings.Contains(block[0].command, " verify "):
					r.reads(block, columns, newPerson(t, true))
				default:
					require.Empty(t, kinds[i])
					r.reads(block, columns, nil)
				}
			}
		})
	}
}

// A long value is cut in a terminal, and a wide character takes two of its columns.
func TestListIsCutToTheTerminal(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	sh.set("TERM", "dumb")
	r := newReader(t, sh, hstest.Server(t).URL)
	sh.ok("put", "long", strings.Repeat("日本語", 40))
	sh.ok("put", "escape", "a\x1b[2Jb")
	for _, columns := range []int{80, 44, 20} {
		shown, code := sh.atTerminal(columns, r.dir, "roomkv ls", nil)
		require.Zero(t, code)
		lines := strings.Split(strings.TrimSpace(shown), "\n")
		require.Len(t, lines, 3)
		assert.Contains(t, lines[1], `a\u001B[2J`)
		assert.True(t, strings.HasSuffix(lines[2], "…"), lines[2])
		width := uniseg.StringWidth(lines[2])
		assert.True(t, width == columns || width == columns-1, "%d cells of %d", width, columns)
	}
}
