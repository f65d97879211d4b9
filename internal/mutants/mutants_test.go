package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// Code moves and is rewritten, and a mutant whose text is gone breaks nothing any more.
func TestMutantsFit(t *testing.T) {
	names := map[string]bool{}
	for _, m := range mutants {
		text, err := os.ReadFile(filepath.Join("..", "..", m.file))
		require.NoError(t, err, m.name)
		assert.Equal(t, 1, strings.Count(string(text), m.old), "%s: what it replaces is in %s", m.name, m.file)
		assert.NotEqual(t, m.old, m.new, m.name)
		assert.False(t, names[m.name], "two mutants are called %s", m.name)
		names[m.name] = true
	}
}
