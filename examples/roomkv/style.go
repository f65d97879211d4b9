package main

import (
	"io"
	"os"
	"strconv"
	"strings"
	"unicode"

	"golang.org/x/term"
)

// style colours text, where it is true.
type style bool

// styleFor colours what goes to a terminal, unless the person does not want that (https://no-color.org) or the terminal
// cannot.
func styleFor(out io.Writer) style {
	return style(isTerminal(out) && os.Getenv("NO_COLOR") == "" && os.Getenv("TERM") != "dumb")
}

func (s style) bold(text string) string  { return s.code("1", text) }
func (s style) dim(text string) string   { return s.code("2", text) }
func (s style) red(text string) string   { return s.code("31", text) }
func (s style) green(text string) string { return s.code("32", text) }

func (s style) code(code, text string) string {
	if !s || text == "" {
		return text
	}
	return "\x1b[" + code + "m" + text + "\x1b[0m"
}

// widthOf is how many cells a line of the terminal has, 0 where it is none or does not say.
func widthOf(stream any) int {
	file, ok := stream.(*os.File)
	if !ok {
		return 0
	}
	width, _, err := term.GetSize(int(file.Fd()))
	if err != nil {
		return 0
	}
	return width
}

func isTerminal(stream any) bool {
	file, ok := stream.(*os.File)
	return ok && term.IsTerminal(int(file.Fd()))
}

// plain is text as it can be shown: what anybody in the room may have written must not move the cursor or change the title
// of the person's terminal. Into files and pipes it goes as it is.
func plain(text string, out io.Writer) string {
	if !isTerminal(out) {
		return text
	}
	return escape(text, "\n\t")
}

// oneLine is text as it can stand in a table.
func oneLine(text string) string { return escape(text, "") }

// escape spells out what does not show, but for the characters in keep.
func escape(text, keep string) string {
	var shown strings.Builder
	for _, r := range text {
		if unicode.IsPrint(r) || strings.ContainsRune(keep, r) {
			shown.WriteRune(r)
		} else {
			shown.WriteString(strings.Trim(strconv.QuoteRune(r), "'"))
		}
	}
	return shown.String()
}
