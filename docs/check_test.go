package docs_test

import (
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

// The rules for the README and the pages in docs.
const (
	mostReadmeLines   = 180
	mostReadmeWords   = 1300 // of prose: without code, tables and headings
	mostSentenceWords = 35   // code in a line, and a link, are what they show: code is one word
)

// document is a Markdown file, taken apart.
type document struct {
	name    string   // its path from the repository's root
	lines   int      // of the file
	prose   []string // paragraphs and items of lists, each in one line, without their marks
	cells   []string // of tables
	anchors map[string]bool
	links   []string
	code    []block
}

// block is a fenced block of code.
type block struct {
	language string
	words    []string // what stands behind the language
	line     int      // of its first line
	text     string
}

var (
	itemMark    = regexp.MustCompile(`^([-*]|\d+\.) `)
	tableLine   = regexp.MustCompile(`^\|[ -:|]+\|$`)
	inlineCode  = regexp.MustCompile("`[^`]+`")
	comment     = regexp.MustCompile(`(?s)<!--.*?-->`)
	link        = regexp.MustCompile(`!?\[([^\]]*)\]\(([^)\s]+)\)`)
	emphasis    = regexp.MustCompile(`\*+([^*]+)\*+`)
	sentenceEnd = regexp.MustCompile(`[.!?]['")*]*\s`)
	notInAnchor = regexp.MustCompile(`[^\p{L}\p{N}\-_ ]`)
)

// parse takes the Markdown apart that these pages use: headings with #, paragraphs, lists, tables, fences, comments.
func parse(name, text string) document {
	p := document{name: name, lines: strings.Count(text, "\n"), anchors: map[string]bool{}}
	text = comment.ReplaceAllStringFunc(text, func(c string) string { return strings.Repeat("\n", strings.Count(c, "\n")) })
	var paragraph []string
	end := func() {
		if len(paragraph) > 0 {
			p.prose = append(p.prose, strings.Join(paragraph, " "))
			paragraph = nil
		}
	}
	var fence *block
	for i, line := range strings.Split(text, "\n") {
		trimmed := strings.TrimSpace(line)
		switch {
		case fence != nil && trimmed == "```":
			p.code = append(p.code, *fence)
			fence = nil
			continue
		case fence != nil:
			fence.text += line + "\n"
			continue
		case strings.HasPrefix(trimmed, "```"):
			end()
			info := append(strings.Fields(trimmed[3:]), "")
			fence = &block{language: info[0], words: info[1:], line: i + 2}
			continue
		}
		for _, found := range link.FindAllStringSubmatch(inlineCode.ReplaceAllString(line, "code"), -1) {
			p.links = append(p.links, found[2])
		}
		switch {
		case trimmed == "":
			end()
		case strings.HasPrefix(trimmed, "#"):
			end()
			p.anchors[p.free(anchor(strings.TrimLeft(trimmed, "# ")))] = true
		case tableLine.MatchString(trimmed):
			end()
		case strings.HasPrefix(trimmed, "|"):
			end()
			for cell := range strings.SplitSeq(strings.Trim(inlineCode.ReplaceAllString(trimmed, "code"), "|"), " | ") {
				p.cells = append(p.cells, strings.TrimSpace(cell))
			}
		case itemMark.MatchString(trimmed):
			end()
			paragraph = append(paragraph, itemMark.ReplaceAllString(trimmed, ""))
		default:
			paragraph = append(paragraph, trimmed)
		}
	}
	end()
	return p
}

// anchor is what GitHub and Forgejo make of a heading.
func anchor(heading string) string {
	heading = link.ReplaceAllString(heading, "$1")
	return strings.ReplaceAll(notInAnchor.ReplaceAllString(strings.ToLower(heading), ""), " ", "-")
}

// free is the anchor with a number behind it if there is a heading of that text already.
func (p document) free(name string) string {
	for n, numbered := 1, name; ; n++ {
		if !p.anchors[numbered] {
			return numbered
		}
		numbered = name + "-" + string(rune('0'+n))
	}
}

// shown is the text as a reader counts its words: code in a line is one, a link is its text.
func shown(text string) string {
	text = inlineCode.ReplaceAllString(text, "code")
	return emphasis.ReplaceAllString(link.ReplaceAllString(text, "$1"), "$1")
}

// sentences are those of a paragraph.
func sentences(paragraph string) []string {
	return strings.Split(sentenceEnd.ReplaceAllStringFunc(shown(paragraph), func(end string) string { return strings.TrimSpace(end) + "\n" }), "\n")
}

// words are what is between blanks and has a letter or a digit.
func words(text string) (n int) {
	for word := range strings.FieldsSeq(text) {
		if strings.ContainsFunc(word, func(r rune) bool {
			return r > 127 && r != '–' && r != '×' || r >= '0' && r <= '9' || r|0x20 >= 'a' && r|0x20 <= 'z'
		}) {
			n++
		}
	}
	return n
}

// pages are the README, what is in docs, and the other pages at the root, by their path from the root.
func pages(t *testing.T) map[string]document {
	t.Helper()
	names, err := filepath.Glob("*.md")
	require.NoError(t, err)
	for i := range names {
		names[i] = "docs/" + names[i]
	}
	root, err := filepath.Glob("../*.md")
	require.NoError(t, err)
	for _, name := range root {
		names = append(names, strings.TrimPrefix(name, "../"))
	}
	all := map[string]document{}
	for _, name := range names {
		text, err := os.ReadFile("../" + name)
		require.NoError(t, err)
		all[name] = parse(name, string(text))
	}
	require.Contains(t, all, "README.md")
	return all
}

// written are the names of the pages that have the rules: the README and docs.
func written(all map[string]document) (names []string) {
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if name == "README.md" || strings.HasPrefix(name, "docs/") {
			names = append(names, name)
		}
	}
	return names
}

func TestReadmeIsShort(t *testing.T) {
	readme := pages(t)["README.md"]
	n := 0
	for _, paragraph := range readme.prose {
		n += words(shown(paragraph))
	}
	t.Logf("%d lines, %d words of prose", readme.lines, n)
	assert.LessOrEqual(t, readme.lines, mostReadmeLines, "lines of the README")
	assert.LessOrEqual(t, n, mostReadmeWords, "words of prose in the README")
}

func TestSentencesAreShort(t *testing.T) {
	all := pages(t)
	for _, name := range written(all) {
		for _, text := range slices.Concat(all[name].prose, all[name].cells) {
			for _, sentence := range sentences(text) {
				if n := words(sentence); n > mostSentenceWords {
					t.Errorf("%s: a sentence of %d words, of %d at most: %s", name, n, mostSentenceWords, sentence)
				}
			}
		}
	}
}

// Each relative link leads to a file or folder, and its anchor to a heading. A link to the documentation of package roomkv names what there is.
func TestLinks(t *testing.T) {
	all := pages(t)
	exported := symbols(t)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		for _, to := range all[name].links {
			if symbol, ok := strings.CutPrefix(to, "https://pkg.go.dev/github.com/roomkv/roomkv#"); ok {
				_, known := exported[symbol]
				assert.True(t, known, "%s links to roomkv.%s, which there is not", name, symbol)
			}
			if strings.Contains(to, "://") {
				continue
			}
			file, anchor, hasAnchor := strings.Cut(to, "#")
			path := name
			if file != "" {
				path = filepath.ToSlash(filepath.Join(filepath.Dir(name), file))
			}
			if _, err := os.Stat("../" + path); err != nil {
				t.Errorf("%s links to %s, which there is not", name, to)
			} else if linked, isPage := all[path]; hasAnchor && (!isPage || !linked.anchors[anchor]) {
				t.Errorf("%s links to %s, which has no such heading", name, to)
			}
		}
	}
}

// Each word of the glossary is linked from another page.
func TestGlossary(t *testing.T) {
	all := pages(t)
	linked := map[string]bool{}
	for name, from := range all {
		for _, to := range from.links {
			if _, word, ok := strings.Cut(to, "glossary.md#"); ok && name != "docs/glossary.md" {
				linked[word] = true
			}
		}
	}
	require.Contains(t, all, "docs/glossary.md")
	for word := range all["docs/glossary.md"].anchors {
		if word != "glossary" && !linked[word] {
			t.Errorf("no page links to glossary.md#%s", word)
		}
	}
}

var namedPage = regexp.MustCompile(`\bdocs/[\w-]+\.(?:md|svg)\b`)

// What Go files say of pages in docs is true of their names.
func TestPagesThatCommentsName(t *testing.T) {
	found := 0
	require.NoError(t, filepath.WalkDir("..", func(path string, entry os.DirEntry, err error) error {
		if err != nil || entry.IsDir() || filepath.Ext(path) != ".go" {
			return err
		}
		text, err := os.ReadFile(path)
		if err != nil {
			return err
		}
		for _, name := range namedPage.FindAllString(string(text), -1) {
			found++
			if _, err := os.Stat("../" + name); err != nil {
				t.Errorf("%s names %s, which there is not", path, name)
			}
		}
		return nil
	}))
	assert.Positive(t, found)
}
