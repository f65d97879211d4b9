package docs_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

// symbols are the exported names of package roomkv with their doc comments as go doc prints them. A method is Type.Method. Names that are declared
// together have the comment of that declaration.
func symbols(t *testing.T) map[string]string {
	t.Helper()
	set := token.NewFileSet()
	names, err := filepath.Glob("../*.go")
	require.NoError(t, err)
	var files []*ast.File
	for _, name := range names {
		if strings.HasSuffix(name, "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, name, nil, parser.ParseComments)
		require.NoError(t, err)
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(set, files, "github.com/roomkv/roomkv")
	require.NoError(t, err)
	printer := pkg.Printer()
	printer.TextPrefix = "    " // as cmd/doc does, which leaves 76 columns of 80
	all := map[string]string{}
	add := func(name, comment string) { all[name] = string(printer.Text(pkg.Parser().Parse(comment))) }
	values := func(declared []*doc.Value) {
		for _, value := range declared {
			for _, name := range value.Names {
				add(name, value.Doc)
			}
		}
	}
	functions := func(of string, declared []*doc.Func) {
		for _, function := range declared {
			add(of+function.Name, function.Doc)
		}
	}
	values(slices.Concat(pkg.Consts, pkg.Vars))
	functions("", pkg.Funcs)
	for _, of := range pkg.Types {
		add(of.Name, of.Doc)
		values(slices.Concat(of.Consts, of.Vars))
		functions("", of.Funcs)
		functions(of.Name+".", of.Methods)
	}
	return all
}

var (
	apiRow  = regexp.MustCompile(`(?m)^\|.*\|$`)
	apiLink = regexp.MustCompile("\\[`([^`]*)`\\]\\(https://pkg\\.go\\.dev/github\\.com/roomkv/roomkv#([A-Za-z.]+)\\)")
	apiErr  = regexp.MustCompile(`\bErr[A-Z]\w*`)
)

// Each exported name has one row in the table of api.md, and each row is of one that there is.
func TestAPI(t *testing.T) {
	page, err := os.ReadFile("api.md")
	require.NoError(t, err)
	all := symbols(t)
	rows := map[string]string{}
	var header []string
	for _, row := range apiRow.FindAllString(string(page), -1) {
		cells := strings.Split(strings.Trim(row, "|"), "|")
		links := apiLink.FindAllStringSubmatch(cells[0], -1)
		switch {
		case strings.Contains(cells[0], "---"):
			continue
		case len(links) == 0:
			header = cells
			continue
		}
		assert.Len(t, cells, len(header), "cells of the row %s", row)
		for _, link := range links {
			text, name := link[1], link[2]
			_, known := all[name]
			assert.True(t, known, "there is no %s; the row is %s", name, row)
			assert.Empty(t, rows[name], "%s has two rows", name)
			assert.True(t, name == text || strings.HasSuffix(name, "."+text), "the link to %s says %s", name, text)
			rows[name] = row
		}
		for i, cell := range cells {
			assert.NotEmpty(t, strings.TrimSpace(cell), "an empty cell, which takes a – where there is nothing: %s", row)
			if i < len(header) && strings.TrimSpace(header[i]) == "errors" {
				for _, name := range apiErr.FindAllString(cell, -1) {
					_, known := all[name]
					assert.True(t, known, "there is no %s; the row is %s", name, row)
				}
			}
		}
	}
	for _, name := range slices.Sorted(maps.Keys(all)) {
		assert.NotEmpty(t, rows[name], "%s has no row in docs/api.md, which tells how to add one", name)
	}
}

// mostLines is how many lines go doc prints of a doc comment, at most.
const mostLines = 12

// longer are comments that need more, and how many lines. They are from before comments had a limit; a new one is no exception.
var longer = map[string]int{
	"Copy":                    32,
	"Store":                   33,
	"Store.Export":            31,
	"Store.Follow":            47,
	"Store.History":           24,
	"Store.Import":            32,
	"Store.Purge":             33,
	"Store.Restore":           27,
	"Store.Watch":             29,
	"WithAccountDataFallback": 54,
	"WithFlushEvery":          35,
	"WithRoomUpgrades":        50,
}

func TestCommentsAreShort(t *testing.T) {
	all := symbols(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		most, lines := mostLines, strings.Count(all[name], "\n")
		if longer[name] > 0 {
			assert.Greater(t, lines, mostLines, "%s is no exception any more", name)
			most = longer[name]
		}
		assert.LessOrEqual(t, lines, most, "lines of go doc roomkv.%s", name)
	}
	for name := range longer {
		assert.NotEmpty(t, all[name], "%s is no name", name)
	}
}
