package graph

import (
	"fmt"
	"html"
	"io"
	"slices"
	"strings"
)

// Sizes in an SVG, in pixels.
const (
	rowHeight  = 44
	laneWidth  = 18
	charWidth  = 7.3 // about that of a monospaced letter of 12 pixels
	margin     = 20
	headHeight = 30
)

// colours tell senders apart, beside their names. They are those of Okabe and Ito, which the colour-blind can tell apart.
var colours = []string{"#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9"}

// legend says what the signs mean that are in the picture.
func legend(parts []*part) string {
	said := []string{"newest first"}
	for _, sign := range []struct {
		text  string
		there func(d *drawn) bool
	}{
		{"ring: fork", (*drawn).isFork},
		{"diamond: merge", (*drawn).isMerge},
		{"hollow: not readable", (*drawn).isEmpty},
		{"dashed: it names no parents", func(d *drawn) bool { return d.Guessed && len(d.edges) > 0 }},
		{"dotted: older ones are not here", func(d *drawn) bool { return d.older }},
	} {
		if slices.ContainsFunc(parts, func(p *part) bool { return slices.ContainsFunc(p.events, sign.there) }) {
			said = append(said, sign.text)
		}
	}
	return strings.Join(said, "; ")
}

// SVG writes a picture of the events, the newest of which come first.
func SVG(out io.Writer, events []Event) error {
	parts := layOut(events)
	legend := legend(parts)
	width, height := textWidth(legend), float64(margin)
	var senders []string
	for _, p := range parts {
		height += headHeight + float64(len(p.events)*rowHeight)
		width = max(width, textWidth(p.heading()))
		for _, d := range p.events {
			width = max(width, p.textAt()-margin+max(textWidth(d.title()), textWidth(d.about())))
			if !slices.Contains(senders, d.Sender) {
				senders = append(senders, d.Sender)
			}
		}
	}
	width, height = width+2*margin, height+headHeight
	var text strings.Builder
	fmt.Fprintf(&text, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %.0f %.0f" width="%.0f" height="%.0f" font-family="DejaVu Sans Mono, Menlo, Consolas, monospace" font-size="12" role="img">`+"\n",
		width, height, width, height)
	text.WriteString("<title>The history of a memory</title>\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n")
	top := float64(margin)
	for _, p := range parts {
		fmt.Fprintf(&text, `<text x="%d" y="%.0f" font-weight="bold">%s</text>`+"\n", margin, top, html.EscapeString(p.heading()))
		top += headHeight
		for _, d := range p.events {
			d.drawEdges(&text, top)
		}
		for _, d := range p.events {
			d.draw(&text, p.textAt(), top, colours[slices.Index(senders, d.Sender)%len(colours)])
		}
		top += float64(len(p.events) * rowHeight)
	}
	fmt.Fprintf(&text, `<text x="%d" y="%.0f" fill="#555555">%s</text>`+"\n</svg>\n", margin, top, legend)
	_, err := io.WriteString(out, text.String())
	return err
}

// textAt is where the lines of text begin.
func (p *part) textAt() float64 { return margin + float64(p.lanes*laneWidth) + 4 }

// textWidth is about how wide a text is. Letters of East Asian scripts and pictures take the place of two.
func textWidth(text string) float64 {
	cells := 0
	for _, r := range text {
		if cells++; r >= 0x1100 {
			cells++
		}
	}
	return float64(cells) * charWidth
}

func laneAt(lane int) float64 { return margin + float64(lane*laneWidth) + 6 }

func (d *drawn) at(top float64) (x, y float64) { return laneAt(d.lane), top + float64(d.row*rowHeight) }

// drawEdges draws a line to each parent: over to the edge's lane, down in it, and over to the parent.
func (d *drawn) drawEdges(text *strings.Builder, top float64) {
	x, y := d.at(top)
	dashed := ""
	if d.Guessed {
		dashed = ` stroke-dasharray="4 3"`
	}
	for _, e := range d.edges {
		toX, toY := e.to.at(top)
		points := fmt.Sprintf("%.0f,%.0f", x, y)
		if e.to.row > d.row+1 {
			points += fmt.Sprintf(" %.0f,%.0f %.0f,%.0f", laneAt(e.lane), y+rowHeight/2, laneAt(e.lane), toY-rowHeight/2)
		}
		fmt.Fprintf(text, `<polyline points="%s %.0f,%.0f" fill="none" stroke="#777777" stroke-width="1.5"%s/>`+"\n", points, toX, toY, dashed)
	}
	if d.older {
		fmt.Fprintf(text, `<polyline points="%.0f,%.0f %.0f,%.0f" fill="none" stroke="#777777" stroke-width="1.5" stroke-dasharray="1 3"/>`+"\n", x, y, x, y+rowHeight/2)
	}
}

// draw draws the event, and says beside it what it is.
func (d *drawn) draw(text *strings.Builder, textAt, top float64, colour string) {
	x, y := d.at(top)
	fill := colour
	if d.isEmpty() {
		fill = "white"
	}
	fmt.Fprintf(text, "<g><title>%s</title>\n", html.EscapeString(d.tip()))
	if d.isFork() {
		fmt.Fprintf(text, `<circle cx="%.0f" cy="%.0f" r="8.5" fill="white" stroke="%s" stroke-width="1.5"/>`+"\n", x, y, colour)
	}
	if d.isMerge() {
		fmt.Fprintf(text, `<path d="M%.0f %.0f l6 6 l-6 6 l-6 -6 z" fill="%s" stroke="%s"/>`+"\n", x, y-6, fill, colour)
	} else {
		fmt.Fprintf(text, `<circle cx="%.0f" cy="%.0f" r="5" fill="%s" stroke="%s" stroke-width="1.5"/>`+"\n", x, y, fill, colour)
	}
	fmt.Fprintf(text, `<text x="%.0f" y="%.0f" fill="#555555" xml:space="preserve">%s</text>`+"\n", textAt, y, html.EscapeString(d.title()))
	fmt.Fprintf(text, `<text x="%.0f" y="%.0f">%s</text></g>`+"\n", textAt, y+16, html.EscapeString(d.about()))
}
