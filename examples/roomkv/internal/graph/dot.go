package graph

import (
	"fmt"
	"io"
	"strings"
)

// DOT writes the events, the newest of which come first, in the language of Graphviz.
func DOT(out io.Writer, events []Event) error {
	var text strings.Builder
	text.WriteString("digraph memory {\n\trankdir=BT\n\tnode [shape=box, style=rounded, fontname=monospace, fontsize=10]\n")
	n := 0
	for i, p := range layOut(events) {
		fmt.Fprintf(&text, "\tsubgraph cluster%d {\n\t\tlabel=%s\n", i, quoted(p.heading()))
		first := n
		for _, d := range p.events {
			var more string
			switch {
			case d.isMerge():
				more = ", shape=octagon, style=solid"
			case d.isFork():
				more = ", peripheries=2"
			case d.isEmpty():
				more = `, style="rounded,dashed"`
			}
			fmt.Fprintf(&text, "\t\te%d [label=%s, tooltip=%s%s]\n", n, quoted(d.title(), d.about()), quoted(d.tip()), more)
			n++
		}
		text.WriteString("\t}\n")
		for _, d := range p.events {
			style := ""
			if d.Guessed {
				style = " [style=dashed]"
			}
			for _, e := range d.edges {
				fmt.Fprintf(&text, "\te%d -> e%d%s\n", first+e.to.row, first+d.row, style)
			}
			if d.older {
				fmt.Fprintf(&text, "\to%d [label=older, shape=plaintext]\n\to%d -> e%d [style=dotted]\n", first+d.row, first+d.row, first+d.row)
			}
		}
	}
	text.WriteString("}\n")
	_, err := io.WriteString(out, text.String())
	return err
}

// dotEscapes are for text in quotes: Graphviz reads escapes of its own there, and entities of HTML.
var dotEscapes = strings.NewReplacer(`\`, `\\`, `"`, `\"`, "&", "&amp;", "\n", " ")

// quoted is lines of text as a string of Graphviz, each line to the left.
func quoted(lines ...string) string {
	if len(lines) == 1 {
		return `"` + dotEscapes.Replace(lines[0]) + `"`
	}
	var text strings.Builder
	for _, line := range lines {
		text.WriteString(dotEscapes.Replace(line) + `\l`)
	}
	return `"` + text.String() + `"`
}
