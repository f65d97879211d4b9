package dump

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"unicode/utf8"
)

// ReadLines gives the entries of JSON Lines that any program can write: each line is {"key":…,"value":…}, and empty ones are left out. Nothing tells
// whether the file is a whole one. Errors are ErrDamaged, or those of from.
func ReadLines(from io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		lines := bufio.NewReaderSize(from, 64<<10)
		for n, more := 1, true; more; n++ {
			text, err := lines.ReadBytes('\n')
			if more = err == nil; err != nil && !errors.Is(err, io.EOF) {
				yield(Line{}, err)
				return
			}
			if len(bytes.TrimSpace(text)) == 0 {
				continue
			}
			var entry struct {
				Key   *string         `json:"key"`
				Value json.RawMessage `json:"value"`
			}
			if json.Unmarshal(text, &entry) != nil || !utf8.Valid(text) || entry.Key == nil || entry.Value == nil {
				yield(Line{}, fmt.Errorf(`%w: line %d is not {"key":…,"value":…}`, ErrDamaged, n))
				return
			}
			if !yield(Line{Key: *entry.Key, Value: entry.Value}, nil) {
				return
			}
		}
	}
}

// ReadObject gives the entries of one JSON object: each name in it is a key. Errors are ErrDamaged, or those of from.
func ReadObject(from io.Reader) iter.Seq2[Line, error] {
	return func(yield func(Line, error) bool) {
		text := &utf8Reader{from: from}
		object := json.NewDecoder(text)
		fail := func(err error) {
			switch {
			case text.err != nil:
				err = text.err
			case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
				err = fmt.Errorf("%w: the JSON object has no end", ErrDamaged)
			default:
				err = fmt.Errorf("%w: it is not one JSON object, from byte %d on", ErrDamaged, object.InputOffset())
			}
			yield(Line{}, err)
		}
		if begin, err := object.Token(); err != nil || begin != json.Delim('{') {
			fail(err)
			return
		}
		for object.More() {
			name, err := object.Token()
			key, isText := name.(string)
			var value json.RawMessage
			if err == nil && isText {
				err = object.Decode(&value)
			}
			if err != nil || !isText {
				fail(err)
				return
			}
			if !yield(Line{Key: key, Value: value}, nil) {
				return
			}
		}
		if _, err := object.Token(); err != nil {
			fail(err)
			return
		}
		if _, err := object.Token(); !errors.Is(err, io.EOF) || text.err != nil {
			fail(nil)
		}
	}
}

// utf8Reader fails with ErrDamaged where what it reads is not valid UTF-8, for which a JSON decoder would put U+FFFD.
type utf8Reader struct {
	from io.Reader
	part []byte // of a character that has not come to its end
	err  error  // why it has failed, but for the end of the file
}

func (r *utf8Reader) Read(into []byte) (int, error) {
	n, err := r.from.Read(into)
	text := append(r.part, into[:n]...)
	r.part = nil
	for len(text) > 0 {
		if char, size := utf8.DecodeRune(text); char != utf8.RuneError || size > 1 {
			text = text[size:]
			continue
		}
		if err == nil && !utf8.FullRune(text) {
			r.part = bytes.Clone(text)
			break
		}
		r.err = fmt.Errorf("%w: it is not valid UTF-8", ErrDamaged)
		return 0, r.err
	}
	if err != nil && !errors.Is(err, io.EOF) {
		r.err = err
	}
	return n, err
}
