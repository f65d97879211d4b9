package architecture

import (
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// pkg is a package as `go list -export -json` gives it.
type pkg struct {
	ImportPath, Dir, Export string
	GoFiles                 []string
}

// list gives all packages of the product and what they import, by path.
func list(t *testing.T) map[string]pkg {
	t.Helper()
	command := exec.CommandContext(t.Context(), "go", "list", "-tags", "goolm", "-export", "-deps", "-json=ImportPath,Dir,Export,GoFiles", module, module+"/internal/...", module+"/keybackup", module+"/roomkvtest")
	command.Stderr = t.Output()
	text, err := command.Output()
	require.NoError(t, err)
	all := map[string]pkg{}
	for d := json.NewDecoder(strings.NewReader(string(text))); ; {
		var p pkg
		if err := d.Decode(&p); errors.Is(err, io.EOF) {
			return all
		} else {
			require.NoError(t, err)
		}
		all[p.ImportPath] = p
	}
}

// uses gives, for each file of a package, which files of the package declare what it uses, and one of the names.
func uses(t *testing.T, all map[string]pkg, of pkg) map[string]map[string]string {
	t.Helper()
	files := token.NewFileSet()
	var parsed []*ast.File
	for _, name := range of.GoFiles {
		file, err := parser.ParseFile(files, filepath.Join(of.Dir, name), nil, parser.SkipObjectResolution)
		require.NoError(t, err)
		parsed = append(parsed, file)
	}
	info := types.Info{Uses: map[*ast.Ident]types.Object{}}
	config := types.Config{Importer: importer.ForCompiler(files, "gc", func(path string) (io.ReadCloser, error) { return os.Open(all[path].Export) })}
	checked, err := config.Check(of.ImportPath, files, parsed, &info)
	require.NoError(t, err)
	fileOf := func(at token.Pos) string { return filepath.Base(files.Position(at).Filename) }
	used := map[string]map[string]string{}
	for name, object := range info.Uses {
		if object.Pkg() != checked || !object.Pos().IsValid() {
			continue
		}
		from, to := fileOf(name.Pos()), fileOf(object.Pos())
		if from == to {
			continue
		}
		if used[from] == nil {
			used[from] = map[string]string{}
		}
		used[from][to] = object.Name()
	}
	return used
}

// backwards are the uses of a file that comes later by one that comes before it, where files are read in that order.
func backwards(used map[string]map[string]string, files []string) (found []string) {
	for i, from := range files {
		for _, to := range files[i+1:] {
			if name := used[from][to]; name != "" {
				found = append(found, fmt.Sprintf("%s uses %s of %s", from, name, to))
			}
		}
	}
	return found
}

// readable is an order of the files with few uses backwards: first the file that uses the fewest of those that are left, and then no file
// can be moved to get fewer.
func readable(used map[string]map[string]string, files []string) (order []string) {
	left := slices.Sorted(slices.Values(files))
	for len(left) > 0 {
		best, fewest := 0, len(files)
		for i, file := range left {
			n := 0
			for _, other := range left {
				if used[file][other] != "" {
					n++
				}
			}
			if n < fewest {
				best, fewest = i, n
			}
		}
		order = append(order, left[best])
		left = slices.Delete(left, best, best+1)
	}
	for better := true; better; {
		better = false
		for from := range order {
			for to := range order {
				moved := slices.Delete(slices.Clone(order), from, from+1)
				moved = slices.Insert(moved, to, order[from])
				if len(backwards(used, moved)) < len(backwards(used, order)) {
					order, better = moved, true
				}
			}
		}
	}
	return order
}

// mostBackwards are the uses backwards that a package may have, where that is not 5. The endpoints of a homeserver all share its users and rooms.
var mostBackwards = map[string]int{"": 0, "internal/fakehs": 40}

// Each package can be read from its first file to its last: what a file uses stands in a file before it. A few uses, of types that know
// each other, go the other way.
func TestReadingOrder(t *testing.T) {
	all := list(t)
	for _, name := range order {
		path := strings.TrimSuffix(module+"/"+name, "/")
		of := all[path]
		used := uses(t, all, of)
		files := readable(used, of.GoFiles)
		against := backwards(used, files)
		t.Logf("%s, %d uses backwards: %s", path, len(against), strings.Join(files, " "))
		for _, use := range against {
			t.Log("\t" + use)
		}
		most, ok := mostBackwards[name]
		if !ok {
			most = 5
		}
		assert.LessOrEqual(t, len(against), most, path)
	}
	used := map[string]map[string]string{"a.go": {"b.go": "B"}, "b.go": {"a.go": "A"}, "c.go": {"a.go": "A"}}
	assert.Equal(t, []string{"a.go uses B of b.go"}, backwards(used, []string{"a.go", "b.go", "c.go"}))
	assert.Equal(t, []string{"a.go", "b.go", "c.go"}, readable(used, []string{"c.go", "b.go", "a.go"}))
}
