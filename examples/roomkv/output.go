package main

import (
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/rivo/uniseg"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// line is an entry as --json prints it.
type line struct {
	Key         string          `json:"key"`
	Value       json.RawMessage `json:"value,omitempty"` // missing where it cannot be read
	Deleted     bool            `json:"deleted,omitempty"`
	Revision    roomkv.Revision `json:"revision"`
	Sender      id.UserID       `json:"sender"`
	Time        time.Time       `json:"time"`
	Encrypted   bool            `json:"encrypted"`
	EncryptedBy id.UserID       `json:"encrypted_by,omitempty"`
	Trust       string          `json:"trust,omitempty"`
	Place       string          `json:"place,omitempty"` // missing for a room's state
}

func lineOf(e roomkv.Entry) line {
	l := line{Key: e.Key, Value: e.Value, Deleted: e.Deleted, Revision: e.Revision, Sender: e.Sender, Time: e.Time.UTC(), Encrypted: e.Encrypted}
	if e.Encrypted {
		l.EncryptedBy, l.Trust = e.EncryptedBy, e.Trust.String()
	}
	if e.Place == roomkv.InAccountData {
		l.Place = e.Place.String()
	}
	return l
}

// changed is a change as --json prints it; a value is null where there is none.
type changed struct {
	Key      string          `json:"key"`
	Old      json.RawMessage `json:"old"`
	New      json.RawMessage `json:"new"`
	Revision roomkv.Revision `json:"revision"`
	Sender   id.UserID       `json:"sender"`
	Time     time.Time       `json:"time"`
}

func changeOf(c roomkv.Change) changed {
	return changed{c.Key, c.Old, c.New, c.Revision, c.Sender, c.Time.UTC()}
}

func printChange(out io.Writer, c roomkv.Change) error {
	style := styleFor(out)
	_, err := fmt.Fprintf(out, "%s %s: %s → %s\n", style.dim(timeOf(c.Time)+" "+oneLine(c.Sender.String())), style.bold(oneLine(c.Key)),
		style.red(brief(c.Old)), style.green(brief(c.New)))
	return err
}

// maxBrief is how much of a value a line has room for, in cells of a terminal.
const maxBrief = 60

// brief is a value in a line, cut where it is long.
func brief(value json.RawMessage) string {
	if value == nil {
		return "∅"
	}
	return cut(beginning(value), maxBrief)
}

// beginning is more of a value than fits into a line, without what would take long to prepare.
func beginning(value json.RawMessage) string {
	return oneLine(strings.ToValidUTF8(string(value[:min(len(value), longestLine)]), ""))
}

const longestLine = 4096 // bytes, more than a terminal's line shows

// text is a value as a person reads it: text without quotes, all else as JSON.
func text(value json.RawMessage) string {
	var s string
	if len(value) > 0 && value[0] == '"' && json.Unmarshal(value, &s) == nil {
		return s
	}
	return string(value)
}

func typeOf(value json.RawMessage) string {
	switch {
	case len(value) == 0:
		return "unreadable"
	case value[0] == '{':
		return "object"
	case value[0] == '[':
		return "array"
	case value[0] == '"':
		return "string"
	case value[0] == 't', value[0] == 'f':
		return "boolean"
	case value[0] == 'n':
		return "null"
	}
	return "number"
}

func sizeOf(value json.RawMessage) string {
	switch n := len(value); {
	case n == 0:
		return "-"
	case n < 1000:
		return fmt.Sprintf("%d B", n)
	case n < 1000*1000:
		return fmt.Sprintf("%.1f KB", float64(n)/1000)
	default:
		return fmt.Sprintf("%.1f MB", float64(n)/1000/1000)
	}
}

func timeOf(t time.Time) string { return t.Local().Format(time.DateTime) }

// table aligns its columns, with the head in bold on a terminal. There the last column is cut to what the terminal has left of a line.
type table struct {
	out  io.Writer
	head []string
	rows [][]string
}

func newTable(out io.Writer, head ...string) *table { return &table{out: out, head: head} }

func (t *table) row(cells ...string) { t.rows = append(t.rows, cells) }

const (
	columnGap  = 2 // between two columns, in cells of the terminal
	leastShown = 8 // of the last column, also where the terminal is too narrow for that
)

func (t *table) print() error {
	rows := append([][]string{t.head}, t.rows...)
	widths := make([]int, len(t.head)-1) // but that of the last one
	before := 0
	for i := range widths {
		for _, row := range rows {
			widths[i] = max(widths[i], uniseg.StringWidth(row[i]))
		}
		before += widths[i] + columnGap
	}
	left := widthOf(t.out) - before
	var text strings.Builder
	for n, row := range rows {
		var line strings.Builder
		for i, width := range widths {
			line.WriteString(row[i] + strings.Repeat(" ", width+columnGap-uniseg.StringWidth(row[i])))
		}
		last := row[len(widths)]
		if isTerminal(t.out) {
			last = cut(last, max(left, leastShown))
		}
		line.WriteString(last)
		if n == 0 {
			text.WriteString(styleFor(t.out).bold(line.String()) + "\n")
		} else {
			text.WriteString(line.String() + "\n")
		}
	}
	_, err := io.WriteString(t.out, text.String())
	return err
}

// cut is the beginning of a text that a terminal shows in so many cells.
func cut(text string, cells int) string {
	if uniseg.StringWidth(text) <= cells {
		return text
	}
	var shown strings.Builder
	for clusters := uniseg.NewGraphemes(text); clusters.Next(); {
		if cells -= clusters.Width(); cells < 1 { // for the ellipsis
			break
		}
		shown.WriteString(clusters.Str())
	}
	return shown.String() + "…"
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}

// part is a part of a [sentence], which is left out where there are none of it.
type part struct {
	n    int
	what string
}

func sentence(begin string, parts []part) string {
	for _, part := range parts {
		if part.n > 0 {
			begin += fmt.Sprintf(", %d %s", part.n, part.what)
		}
	}
	return begin + "."
}
