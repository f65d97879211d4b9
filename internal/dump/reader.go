package dump

import (
	"bufio"
	"bytes"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"unicode/utf8"
)

// Read gives the entries of a file, line by line.
//
// Only when the iteration has ended without an error was the file a whole one: errors, at the latest with the closing line, are
// ErrDamaged, or those of from. They end the iteration, and have nothing of the file in their texts.
func Read(from io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		r := reader{from: bufio.NewReaderSize(from, 64<<10)}
		if err := r.read(yield); err != nil {
			yield(Line{}, err)
		}
	}
}

// begins is what every file begins with.
const begins = `{"format":"` + Format + `",`

type reader struct {
	from *bufio.Reader
	text []byte // of the line
	n    int    // which
}

// read gives nil where yield had enough.
func (r *reader) read(yield func(Line, error) bool) error {
	hash := sha256.New()
	begin, err := r.from.Peek(len(begins))
	if err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	if string(begin) != begins { // which may have no lines at all
		return fmt.Errorf("%w: it does not begin as an exported memory", ErrDamaged)
	}
	if err := r.next(); err != nil {
		return err
	}
	var header Header
	switch err := json.Unmarshal(r.text, &header); {
	case err != nil:
		return fmt.Errorf("%w: its first line is not a header", ErrDamaged)
	case header.Version != Version:
		return fmt.Errorf("%w: its version is %d, and this roomkv reads version %d", ErrDamaged, header.Version, Version)
	}
	hash.Write(r.text)
	for lines := 0; ; lines++ {
		if err := r.next(); err != nil {
			return err
		}
		if bytes.HasPrefix(r.text, []byte(`{"lines":`)) {
			if string(r.text) != closing(lines, hash.Sum(nil)) {
				return fmt.Errorf("%w: what is before the closing line is not what was written", ErrDamaged)
			}
			return r.end()
		}
		line, err := r.line()
		if err != nil {
			return err
		}
		hash.Write(r.text)
		if !yield(line, nil) {
			return nil
		}
	}
}

// next reads a line with its end.
func (r *reader) next() (err error) {
	r.n++
	if r.text, err = r.from.ReadBytes('\n'); errors.Is(err, io.EOF) {
		return fmt.Errorf("%w: it ends in line %d, before its closing line does", ErrDamaged, r.n)
	}
	return err
}

func (r *reader) line() (Line, error) {
	var line nested
	err := json.Unmarshal(r.text, &line)
	if err == nil && line.Text != "" && line.Value == nil {
		line.Value = json.RawMessage(line.Text)
	}
	if err != nil || !utf8.Valid(r.text) || !line.valid() || line.Value != nil && !json.Valid(line.Value) {
		return Line{}, fmt.Errorf("%w: line %d is not an entry", ErrDamaged, r.n)
	}
	return line.Line, nil
}

// end fails where there is more.
func (r *reader) end() error {
	_, err := r.from.ReadByte()
	switch {
	case err == nil:
		return fmt.Errorf("%w: it goes on after its closing line", ErrDamaged)
	case errors.Is(err, io.EOF):
		return nil
	default:
		return err
	}
}
