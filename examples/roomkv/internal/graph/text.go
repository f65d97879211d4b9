package graph

import (
	"strconv"
	"strings"
	"unicode"
	"unicode/utf8"
)

// How much of a text there is room for, in characters, and of how many keys.
const (
	maxName  = 40
	maxValue = 40
	maxHash  = 9
	maxKeys  = 6
)

const timeFormat = "2006-01-02 15:04:05"

// clean is the text in one line, with what does not show spelled out, and cut after so many characters.
func clean(text string, most int) string {
	var shown strings.Builder
	left := most
	for i, r := range text {
		if r == utf8.RuneError {
			r = '�'
		}
		spelled := string(r)
		if !unicode.IsPrint(r) {
			spelled = strings.Trim(strconv.QuoteRune(r), "'")
		}
		n := utf8.RuneCountInString(spelled)
		if n > left || n == left && i+utf8.RuneLen(r) < len(text) {
			return shown.String() + "…"
		}
		shown.WriteString(spelled)
		left -= n
	}
	return shown.String()
}

// heading names the part of the picture that has one state key.
func (p *part) heading() string {
	if p.stateKey == "" {
		return "empty state key"
	}
	return "state key " + clean(p.stateKey, maxName)
}

// title is the first line of what is said of an event, about is the second one.
func (d *drawn) title() string {
	title := clean(d.Sender, maxName) + "  " + d.Time.UTC().Format(timeFormat)
	if d.isMerge() {
		title += "  merge of " + strconv.Itoa(len(d.Parents))
	}
	if d.isFork() {
		title += "  fork into " + strconv.Itoa(d.children)
	}
	return title
}

func (d *drawn) about() string {
	switch {
	case d.Redacted:
		return "redacted"
	case d.Unreadable:
		return "unreadable"
	case d.Cut:
		return "what it changed is not known: what it was made from is not here"
	case len(d.Changes) == 0:
		return "no change of its own"
	}
	var said []string
	for _, c := range d.Changes[:min(len(d.Changes), maxKeys)] {
		said = append(said, c.text())
	}
	if more := len(d.Changes) - maxKeys; more > 0 {
		said = append(said, "and "+strconv.Itoa(more)+" more")
	}
	return strings.Join(said, ", ")
}

func (c Change) text() string {
	text := clean(c.Key, maxName)
	if c.Sealed {
		text = "sealed " + clean(c.Key, maxHash)
	}
	if c.Value != "" {
		text += ": " + clean(c.Value, maxValue)
	}
	if c.Removed {
		text += " (removed)"
	}
	if c.Lost {
		text += " (did not count)"
	}
	return text
}

// tip has in full what the picture cuts.
func (d *drawn) tip() string {
	const most = 255 // as long as Matrix lets IDs be
	return clean(d.ID, most) + " " + clean(d.Sender, most) + " " + d.Time.UTC().Format(timeFormat+".000")
}
