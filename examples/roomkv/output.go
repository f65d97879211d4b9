package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"

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
}

func lineOf(e roomkv.Entry) line {
	l := line{Key: e.Key, Value: e.Value, Deleted: e.Deleted, Revision: e.Revision, Sender: e.Sender, Time: e.Time.UTC(), Encrypted: e.Encrypted}
	if e.Encrypted {
		l.EncryptedBy, l.Trust = e.EncryptedBy, e.Trust.String()
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

// maxBrief is how much of a value a line has room for, in characters.
const maxBrief = 60

// brief is a value in a line, cut where it is long.
func brief(value json.RawMessage) string {
	if value == nil {
		return "∅"
	}
	shown := []rune(oneLine(string(value)))
	if len(shown) > maxBrief {
		shown = append(shown[:maxBrief-1], '…')
	}
	return string(shown)
}

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

// table aligns its columns, with the head in bold on a terminal.
type table struct {
	out   io.Writer
	text  bytes.Buffer
	align *tabwriter.Writer
	rows  int
}

func newTable(out io.Writer, head ...string) *table {
	t := &table{out: out}
	t.align = tabwriter.NewWriter(&t.text, 0, 0, 2, ' ', 0)
	fmt.Fprintln(t.align, strings.Join(head, "\t"))
	return t
}

func (t *table) row(cells ...string) {
	fmt.Fprintln(t.align, strings.Join(cells, "\t"))
	t.rows++
}

func (t *table) print() error {
	if err := t.align.Flush(); err != nil {
		return err
	}
	head, rows, _ := strings.Cut(t.text.String(), "\n")
	_, err := fmt.Fprintf(t.out, "%s\n%s", styleFor(t.out).bold(head), rows)
	return err
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
