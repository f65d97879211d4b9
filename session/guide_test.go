package session

import (
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
)

// around is what a piece of the guide's code stands in that is no program by itself.
const around = `package block

import (
	"context"
	"errors"
	"log"
	"os"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session"
)

var (
	_ = errors.New
	_ = log.Print
	_ = os.Exit
	_ time.Duration
	_ event.Type
	_ id.RoomID
)

// What a piece uses and does not declare.
var (
	ctx           context.Context
	bot           *session.Bot
	store         *roomkv.Store
	config        session.Config
	password, key string
	err           error
)

func _() error {
%s
	_, _, _ = config, store, err
	return nil
}
`

// Each piece of Go in the guide compiles.
func TestGuideCompiles(t *testing.T) {
	text, err := os.ReadFile("../docs/guide.md")
	require.NoError(t, err)
	blocks := regexp.MustCompile("(?s)```go\n(.*?)```").FindAllStringSubmatch(string(text), -1)
	require.Greater(t, len(blocks), 8)
	here, err := os.Getwd()
	require.NoError(t, err)
	dir := t.TempDir()
	overlay := struct{ Replace map[string]string }{map[string]string{}} // files that the go command takes to be in this module
	for n, block := range blocks {
		source := block[1]
		if !strings.HasPrefix(source, "package ") {
			source = fmt.Sprintf(around, source)
		}
		file := filepath.Join(dir, fmt.Sprint(n, ".go"))
		require.NoError(t, os.WriteFile(file, []byte(source), 0o600))
		overlay.Replace[filepath.Join(here, "internal", "guide", fmt.Sprint("block", n), "block.go")] = file
	}
	list, err := json.Marshal(overlay)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(filepath.Join(dir, "overlay.json"), list, 0o600))
	build := exec.CommandContext(t.Context(), "go", "build", "-tags", "goolm", "-overlay", filepath.Join(dir, "overlay.json"), "./internal/guide/...")
	output, err := build.CombinedOutput()
	require.NoError(t, err, string(output))
}
