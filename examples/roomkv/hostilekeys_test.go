package main

import (
	"testing"

	"github.com/stretchr/testify/assert"
)

// Anybody who may write names keys, and the shell prints some of what it is offered as it is.
func TestHostileKeysAreNotCompleted(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	for _, key := range []string{"good", "_activeHelp_ evil", "esc\x1b[2J", "two\nlines", "tab\tdescription"} {
		sh.ok("put", "--", key, "1")
	}
	offered := sh.ok("__complete", "get", "")
	assert.Contains(t, offered, "good\n")
	for _, hostile := range []string{"\x1b", "evil", "two", "tab"} {
		assert.NotContains(t, offered, hostile)
	}
}
