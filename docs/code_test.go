package docs_test

import (
	"bytes"
	"flag"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var nested = flag.Bool("nested", false, "compile also the blocks of Go that need a nested module, whose dependencies go downloads")

// declared is what blocks of Go use and do not declare themselves.
const declared = `
var (
	ctx                        context.Context
	client                     *mautrix.Client
	room, store, old, elsewhere *roomkv.Store
	rooms                      map[string]string
	evt                        *event.Event
	user, password, recoveryKey string
	pickleKey                  []byte
	t                          *testing.T
)

func remind(context.Context, *roomkv.Lease) error { panic("") }

func start(*mautrix.Client, id.RoomID) error { panic("") }
`

// declaredIn is what blocks of a module use beside that.
var declaredIn = map[string]string{
	".": `
var helper *cryptohelper.CryptoHelper
`,
	"session": `
var (
	bot    *session.Bot
	config session.Config
	key    string
	err    error
)
`,
	"examples/bridge": `
var as *appservice.AppService

func handle(context.Context, *event.Event, *roomkv.Store) { panic("") }
`,
}

// imported are the packages that blocks use, by the name that they have there.
var imported = map[string]string{
	"context": "context", "errors": "errors", "fmt": "fmt", "io": "io", "http": "net/http", "log": "log", "os": "os", "time": "time",
	"filepath": "path/filepath", "strings": "strings", "testing": "testing", "synctest": "testing/synctest", "httptest": "net/http/httptest",
	"mautrix": "maunium.net/go/mautrix", "event": "maunium.net/go/mautrix/event", "id": "maunium.net/go/mautrix/id",
	"appservice": "maunium.net/go/mautrix/appservice", "cryptohelper": "maunium.net/go/mautrix/crypto/cryptohelper",
	"roomkv": "github.com/roomkv/roomkv", "keybackup": "github.com/roomkv/roomkv/keybackup", "session": "github.com/roomkv/roomkv/session",
	"roomkvtest": "github.com/roomkv/roomkv/roomkvtest",
	"roomkvotel": "github.com/roomkv/roomkv/examples/otel",
	"otel":       "go.opentelemetry.io/otel", "otelhttp": "go.opentelemetry.io/contrib/instrumentation/net/http/otelhttp",
}

// module is the folder of the module that the block needs, from the root: what stands behind module= after the language.
func (b block) module() string {
	for _, word := range b.words {
		if folder, ok := strings.CutPrefix(word, "module="); ok {
			return folder
		}
	}
	return "."
}

func (b block) program() bool  { return strings.HasPrefix(b.text, "package main\n") }
func (b block) function() bool { return strings.HasPrefix(b.text, "func ") }

// file is a block as a Go file: a program and a function as they stand, anything else as the body of a function.
func (b block) file(page string) string {
	line := "//line " + page + ":" + strconv.Itoa(b.line) + "\n"
	if b.program() {
		return line + b.text
	}
	free := declared + declaredIn[b.module()]
	var source strings.Builder
	source.WriteString("package block\n\n")
	for _, name := range slices.Sorted(maps.Keys(imported)) {
		if strings.Contains(b.text+free, name+".") {
			source.WriteString("import " + name + " " + strconv.Quote(imported[name]) + "\n")
		}
	}
	source.WriteString(free)
	if b.function() {
		source.WriteString("\n" + line + b.text)
		return source.String()
	}
	source.WriteString("\nfunc _() error {\n" + line + b.text + "\nreturn nil\n}\n")
	return source.String()
}

// goCommand runs go in a module and returns what it prints.
func goCommand(t *testing.T, module string, args ...string) string {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", args...)
	command.Dir = filepath.Join("..", module)
	var failed bytes.Buffer
	command.Stderr = &failed
	out, err := command.Output()
	require.NoError(t, err, "go %s in %s: %s", strings.Join(args, " "), module, failed.String())
	return string(out)
}

// compiledFor gives the compiled packages that the files import, as the module sees them.
func compiledFor(t *testing.T, set *token.FileSet, module string, files []*ast.File) types.Importer {
	t.Helper()
	paths := map[string]bool{}
	for _, file := range files {
		for _, spec := range file.Imports {
			path, err := strconv.Unquote(spec.Path.Value)
			require.NoError(t, err)
			paths[path] = true
		}
	}
	args := append([]string{"list", "-tags", "goolm", "-export", "-deps", "-f", "{{.ImportPath}}\t{{.Export}}", "--"}, slices.Sorted(maps.Keys(paths))...)
	compiled := map[string]string{}
	for line := range strings.Lines(goCommand(t, module, args...)) {
		path, name, _ := strings.Cut(strings.TrimSpace(line), "\t")
		compiled[path] = name
	}
	return importer.ForCompiler(set, "gc", func(path string) (io.ReadCloser, error) { return os.Open(compiled[path]) })
}

// Each block of Go compiles, but for what it declares and does not use. A program is built.
func TestCode(t *testing.T) {
	all := pages(t)
	set := token.NewFileSet()
	blocks, programs := map[string][]*ast.File{}, 0
	for _, name := range written(all) {
		for _, b := range all[name].code {
			if b.language != "go" {
				continue
			}
			file, err := parser.ParseFile(set, "", b.file(name), 0)
			if b.program() {
				programs++
			}
			if !assert.NoError(t, err, "Go in %s", name) || b.module() != "." && !*nested {
				continue
			}
			if b.program() {
				source := filepath.Join(t.TempDir(), "main.go")
				require.NoError(t, os.WriteFile(source, []byte(b.file(name)), 0o600))
				goCommand(t, b.module(), "build", "-tags", "goolm", "-o", os.DevNull, source)
				continue
			}
			blocks[b.module()] = append(blocks[b.module()], file)
		}
	}
	assert.NotEmpty(t, blocks["."])
	assert.Positive(t, programs, "whole bots")
	for _, module := range slices.Sorted(maps.Keys(blocks)) {
		config := types.Config{Importer: compiledFor(t, set, module, blocks[module])}
		config.Error = func(err error) {
			if found, ok := err.(types.Error); !ok || !found.Soft {
				t.Errorf("a block of Go does not compile: %v", err)
			}
		}
		for _, file := range blocks[module] {
			_, _ = config.Check("block", set, []*ast.File{file}, nil) // config.Error has what it finds
		}
	}
}
