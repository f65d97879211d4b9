package graph

import (
	"bytes"
	"encoding/xml"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

var update = flag.Bool("update", false, "write the files in testdata anew")

func at(second int) time.Time { return time.Date(2026, 11, 29, 12, 0, second, 0, time.UTC) }

// forked has two writers who forked and merged, in one state key, and another state key beside.
func forked() []Event {
	return []Event{
		{ID: "$6", Sender: "@alice:example.org", Time: at(6), Parents: []string{"$5"}, Changes: []Change{{Key: "greeting", Removed: true}}},
		{ID: "$5", Sender: "@alice:example.org", Time: at(5), Parents: []string{"$3", "$4"}},
		{ID: "$x", StateKey: "other", Sender: "@opsdroid:example.org", Time: at(5), Parents: []string{"$gone"}, Guessed: true, Cut: true},
		{ID: "$4", Sender: "@bob:example.org", Time: at(3), Parents: []string{"$2"}, Changes: []Change{{Key: "greeting", Value: `"Hello!"`}}},
		{ID: "$3", Sender: "@alice:example.org", Time: at(3), Parents: []string{"$2"}, Changes: []Change{{Key: "visits"}, {Key: "turn", Lost: true}}},
		{ID: "$2", Sender: "@opsdroid:example.org", Time: at(2), Parents: []string{"$1"}, Guessed: true, Changes: []Change{
			{Key: "q83v1kQ7Zx-longer", Sealed: true}, {Key: "a"}, {Key: "b"}, {Key: "c"}, {Key: "d"}, {Key: "e"}, {Key: "f"}, {Key: "g"},
		}},
		{ID: "$1", Sender: "@alice:example.org", Time: at(1), Redacted: true},
	}
}

func draw(t *testing.T, as func(io.Writer, []Event) error, events []Event) string {
	t.Helper()
	var out bytes.Buffer
	require.NoError(t, as(&out, events))
	return out.String()
}

func golden(t *testing.T, name, got string) {
	t.Helper()
	if *update {
		require.NoError(t, os.WriteFile(name, []byte(got), 0o644))
	}
	want, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, string(want), got, "if it should be so: go test ./internal/graph -update")
}

func TestPictures(t *testing.T) {
	golden(t, "testdata/forked.svg", draw(t, SVG, forked()))
	golden(t, "testdata/forked.dot", draw(t, DOT, forked()))
}

func TestForkAndMergeAreVisible(t *testing.T) {
	for _, text := range []string{draw(t, SVG, forked()), draw(t, DOT, forked())} {
		assert.Equal(t, 1, strings.Count(text, "fork into 2"))
		assert.Equal(t, 1, strings.Count(text, "merge of 2"))
	}
	p := layOut(forked())[0]
	var lanes []int
	for _, d := range p.events {
		lanes = append(lanes, d.lane)
	}
	assert.Equal(t, []int{0, 0, 0, 1, 0, 0}, lanes, "the rivals are beside each other")
}

func TestOlderEventsAreNotDrawn(t *testing.T) {
	for _, cut := range []int{3, 6, 7} { // before the fork, and not at all
		events := forked()[:cut]
		events = append(events[:2:2], events[3:]...)
		older := 0
		for _, d := range layOut(events)[0].events {
			if d.older {
				older++
			}
		}
		assert.Equal(t, map[int]int{3: 1, 6: 1, 7: 0}[cut], older, "the first %d", cut)
		assert.Equal(t, older, strings.Count(draw(t, DOT, events), "label=older"))
		assert.Equal(t, older, strings.Count(draw(t, SVG, events), `stroke-dasharray="1 3"`))
	}
}

// No edge goes through an event that it does not lead to, or along another edge.
func TestLanesAreFree(t *testing.T) {
	var events []Event
	for i := 30; i > 0; i-- { // each made from two earlier ones
		events = append(events, Event{ID: fmt.Sprint(i), Parents: []string{fmt.Sprint(i - i%7 - 1), fmt.Sprint(i - 2)}})
	}
	p := layOut(events)[0]
	inLane := map[[2]int]string{} // by lane and row below an event
	for _, d := range p.events {
		for _, e := range d.edges {
			assert.Greater(t, e.to.row, d.row)
			for row := d.row; row < e.to.row; row++ {
				assert.Empty(t, inLane[[2]int{e.lane, row}], "%s to %s", d.ID, e.to.ID)
				inLane[[2]int{e.lane, row}] = d.ID + " to " + e.to.ID
			}
			for _, between := range p.events[d.row+1 : e.to.row] {
				assert.NotEqual(t, e.lane, between.lane, "%s to %s, through %s", d.ID, e.to.ID, between.ID)
			}
		}
	}
}

func TestOrder(t *testing.T) {
	for name, test := range map[string]struct {
		events []Event
		want   string
	}{
		"a parent that is listed first": {[]Event{{ID: "1"}, {ID: "2", Parents: []string{"1"}}, {ID: "0"}}, "2 1 0"},
		"a circle":                      {[]Event{{ID: "1", Parents: []string{"2"}}, {ID: "2", Parents: []string{"1", "2"}}}, "1 2"},
		"an event twice":                {[]Event{{ID: "1", Parents: []string{"1"}}, {ID: "1", Parents: []string{"1"}}}, "1 1"},
		"a parent twice":                {[]Event{{ID: "2", Parents: []string{"1", "1"}}, {ID: "1"}}, "2 1"},
	} {
		p := layOut(test.events)[0]
		var got []string
		for i, d := range p.events {
			got = append(got, d.ID)
			assert.Equal(t, i, d.row, name)
			assert.LessOrEqual(t, d.children, 1, name)
			for _, e := range d.edges {
				assert.Greater(t, e.to.row, d.row, name)
			}
		}
		assert.ElementsMatch(t, strings.Fields(test.want), got, name)
		if name != "an event twice" {
			assert.Equal(t, test.want, strings.Join(got, " "), name)
		}
	}
	assert.Empty(t, layOut(nil))
	assert.Contains(t, draw(t, SVG, nil), "</svg>")
}

// What anybody writes is text in the picture, and nothing else.
func TestHostileText(t *testing.T) {
	for _, evil := range []string{
		`</text></svg><script>alert(1)</script>`, `"]; x [label="`, `\`, `\N \" \l`, "a\nb\x00\x1b[31m", "\u202egnp.exe", "&lt;&#60;", "]]>", "<!--", "\xff\xfe",
		strings.Repeat("long", 10_000), strings.Repeat("\x00", 10_000), "\ufffe\uffff", "-->", "日本語", "é",
	} {
		events := []Event{{ID: evil, StateKey: evil, Sender: evil, Parents: []string{evil, "x"}, Changes: []Change{{Key: evil, Value: evil}, {Key: evil, Sealed: true}}}}
		svg, dot := draw(t, SVG, events), draw(t, DOT, events)
		assert.Less(t, len(svg), 8000, "%.20q", evil)
		assert.Less(t, len(dot), 8000, "%.20q", evil)
		for _, text := range []string{svg, dot} {
			assert.True(t, utf8.ValidString(text), "%.20q", evil)
			assert.NotRegexp(t, `[\x00-\x08\x0b-\x1f]`, text, "%.20q", evil)
			for _, r := range text {
				require.True(t, unicode.IsPrint(r) || r == '\n' || r == '\t', "%.20q: %q", evil, r)
			}
		}
		elements := map[string]int{}
		for reader := xml.NewDecoder(strings.NewReader(svg)); ; {
			token, err := reader.Token()
			if errors.Is(err, io.EOF) {
				break
			}
			require.NoError(t, err, "%.20q", evil)
			if start, ok := token.(xml.StartElement); ok {
				elements[start.Name.Local]++
			}
		}
		assert.Equal(t, map[string]int{"svg": 1, "title": 2, "rect": 1, "text": 4, "g": 1, "path": 1, "polyline": 1}, elements, "%.20q", evil)
		strings, rest := dotStrings(dot)
		assert.Len(t, strings, 3, "%.20q", evil)
		assert.Equal(t, 1, countOf(rest, "label=@\n"), "%.20q", evil)
		assert.Equal(t, 1, countOf(rest, "e0 [label=@, tooltip=@, shape=octagon, style=solid]"), "%.20q: %s", evil, rest)
	}
}

func countOf(text, part string) int { return strings.Count(text, part) }

// dotStrings are the quoted strings of a DOT text, as Graphviz's scanner finds them, and the text with @ in place of each.
func dotStrings(text string) (quoted []string, rest string) {
	for {
		before, after, found := strings.Cut(text, `"`)
		rest += before
		if !found {
			return quoted, rest
		}
		end := 0
		for end < len(after) && after[end] != '"' {
			if after[end] == '\\' {
				end++
			}
			end++
		}
		if end >= len(after) {
			return quoted, rest + "unended"
		}
		quoted, rest, text = append(quoted, after[:end]), rest+"@", after[end+1:]
	}
}

func TestClean(t *testing.T) {
	assert.Equal(t, "abc", clean("abc", 3))
	assert.Equal(t, "ab…", clean("abcd", 3))
	assert.Equal(t, `a\nb`, clean("a\nb", 9))
	assert.Equal(t, `a…`, clean("a\nb", 2), "an escape is not cut")
	assert.Equal(t, "��", clean("\xff\xfe", 9))
	assert.Equal(t, "日本…", clean("日本語で", 3))
}
