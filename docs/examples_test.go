package docs_test

import (
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// mostExampleLines is how long a file of examples may be. One that has a single example is shown whole.
const mostExampleLines = 300

// Each example can be run by itself as documentation shows it, says what it prints, and needs nothing that other programs cannot import.
func TestExamples(t *testing.T) {
	has := map[string]bool{}
	for _, dir := range []string{"", "roomkvtest"} {
		names, err := filepath.Glob(filepath.Join("..", dir, "example*_test.go"))
		require.NoError(t, err)
		assert.NotEmpty(t, names)
		for _, name := range names {
			text, err := os.ReadFile(name)
			require.NoError(t, err)
			assert.LessOrEqual(t, strings.Count(string(text), "\n"), mostExampleLines, "lines of %s", name)
			file, err := parser.ParseFile(token.NewFileSet(), name, text, parser.ParseComments)
			require.NoError(t, err)
			for _, spec := range file.Imports {
				path, err := strconv.Unquote(spec.Path.Value)
				require.NoError(t, err)
				assert.NotContains(t, path, "/internal/", name)
			}
			for _, example := range doc.Examples(file) {
				has[filepath.Join(dir, "Example"+example.Name)] = true
				assert.NotEmpty(t, example.Output, "what Example%s prints", example.Name)
				assert.NotNil(t, example.Play, "Example%s uses what is in another file", example.Name)
			}
		}
	}
	for _, name := range []string{
		"Example", "ExampleStore_InEventRoom", "ExampleUpdate", "ExampleStore_Transact", "ExampleStore_Watch", "ExampleExpireAfter", "ExampleStore_Lease",
		"ExampleWithKeyBackup", "ExampleStore_History", "ExampleStore_Restore", "ExampleStore_Export", "ExampleWithAccountDataFallback", "roomkvtest/Example",
	} {
		assert.True(t, has[name], "there is no %s", name)
	}
}
