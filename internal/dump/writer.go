package dump

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"hash"
	"io"
)

// Writer writes a file line by line. After an error the file is not to be gone on with.
type Writer struct {
	to    io.Writer
	hash  hash.Hash
	lines int
}

// NewWriter begins a file with the header, whose Format and Version it sets.
func NewWriter(to io.Writer, header Header) (*Writer, error) {
	w := &Writer{to: to, hash: sha256.New()}
	header.Format, header.Version, header.Time = Format, Version, header.Time.UTC()
	return w, w.encode(header)
}

// Write adds a line. Its value is spelled without white space.
func (w *Writer) Write(line Line) error {
	if !line.valid() {
		return fmt.Errorf("the line of revision %s has neither a value nor a reason, or both", line.Revision)
	}
	line.Time = line.Time.UTC()
	w.lines++
	if !deep(line.Value) {
		return w.encode(line)
	}
	text := string(line.Value)
	line.Value = nil
	return w.encode(nested{line, text})
}

// Close ends the file. It does not close what it is written to.
func (w *Writer) Close() error {
	_, err := io.WriteString(w.to, closing(w.lines, w.hash.Sum(nil)))
	return err
}

func (w *Writer) encode(v any) error {
	encoder := json.NewEncoder(io.MultiWriter(w.to, w.hash))
	encoder.SetEscapeHTML(false) // people read it too
	return encoder.Encode(v)
}

// maxNesting is how many levels of a value are written as JSON; encoding/json reads 10,000 at most, and other programs less.
const maxNesting = 1000

// deep tells whether a JSON text nests deeper than that. What is in strings it takes for brackets too, for it need not be exact.
func deep(text json.RawMessage) bool {
	depth := 0
	for _, c := range text {
		switch c {
		case '{', '[':
			if depth++; depth > maxNesting {
				return true
			}
		case '}', ']':
			depth--
		}
	}
	return false
}
