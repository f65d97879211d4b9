package main

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// A bash without the package bash-completion completes verbs, flags and keys, also those that it splits.
func TestBashCompletes(t *testing.T) {
	t.Parallel()
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("there is no bash")
	}
	sh := newShell(t)
	for _, key := range []string{"greeting", "poll:a", "poll:b"} {
		sh.ok("put", key, "1")
	}
	dir := t.TempDir()
	program, err := os.Executable()
	require.NoError(t, err)
	require.NoError(t, os.Symlink(program, filepath.Join(dir, "roomkv")))
	sh.set("PATH", dir+":"+os.Getenv("PATH"))
	for line, want := range map[string]string{
		"roomkv hist":           "history",
		"roomkv get gr":         "greeting",
		"roomkv get poll : ":    "a b", // bash splits it, and puts what follows the colon in its place
		"roomkv get --profil":   "--profile",
		"roomkv keybackup save": "save-all",
	} {
		words := strings.Split(line, " ")
		script := `source <(roomkv completion bash)
			COMP_WORDS=("$@") COMP_CWORD=$(($# - 1)) COMP_LINE=${*} COMP_LINE=${COMP_LINE// : /:} COMP_POINT=${#COMP_LINE}
			__start_roomkv
			echo ${COMPREPLY[@]%% *}`
		cmd := exec.CommandContext(t.Context(), bash, append([]string{"--norc", "-c", script, "bash"}, words...)...)
		var out, errs bytes.Buffer
		cmd.Env, cmd.Stdout, cmd.Stderr = sh.env, &out, &errs
		require.NoError(t, cmd.Run(), errs.String())
		assert.NotContains(t, errs.String(), "command not found", line)
		assert.Equal(t, want, strings.TrimSpace(out.String()), "%s: %s", line, errs.String())
	}
}
