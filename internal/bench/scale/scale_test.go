package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTables(t *testing.T) {
	text, err := inMemory(t.Context(), sizes{
		rooms: []size{{5, 2}}, answered: []size{{5, 2}, {50, 2}}, deep: []int{10}, keys: []int{2}, processes: []int{2}, puts: 3,
	})
	require.NoError(t, err)
	for _, row := range []string{
		"| 50 × 2 | one event | 100 | 5,000 / ",
		"| 50 × 2 | 16 | 5,000 |",
		"| 172 rooms of 100 writes a day",
		"| 5 × 2 | per key |",
		"| 2 | one event | yes | 0 | 0 B | 1 |",
		"| 2 | yes | none | ",
	} {
		assert.Contains(t, text, row)
	}
	assert.Zero(t, strings.Count(text, "NaN")+strings.Count(text, "Inf"), text)
}

func TestRewrite(t *testing.T) {
	page := filepath.Join(t.TempDir(), "page.md")
	require.NoError(t, os.WriteFile(page, []byte("a\n<!-- fakehs begins -->\nold\n<!-- fakehs ends -->\nb\n"), 0o644))
	require.NoError(t, rewrite(page, "fakehs", "new\n"))
	text, err := os.ReadFile(page)
	require.NoError(t, err)
	assert.Equal(t, "a\n<!-- fakehs begins -->\nnew\n<!-- fakehs ends -->\nb\n", string(text))
	assert.Error(t, rewrite(page, "federation", "new\n"), "it has no such comments")
}

func TestWords(t *testing.T) {
	for want, n := range map[string]float64{"0": 0, "0.3": 0.26, "2": 2, "99.5": 99.5, "101": 100.7, "1,000": 999.7, "17,280": 17280, "1.3 million": 1.26e6} {
		assert.Equal(t, want, count(n))
	}
	for want, n := range map[string]float64{"0 B": 0, "999 B": 999, "1.0 KB": 1000, "12 KB": 12345, "1.0 MB": 999_600, "4.2 GB": 4.2e9} {
		assert.Equal(t, want, bytesOf(n))
	}
}
