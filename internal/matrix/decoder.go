package matrix

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
)

// Decoder reads JSON part by part, while it arrives: each part is of a bounded size, and only that is held in memory.
type Decoder struct {
	json *json.Decoder
	part *part
}

// decoded is for [Request.Read]; see [Stream].
func decoded(read func(*Decoder) error) func(*http.Response, io.Reader) error {
	return func(_ *http.Response, body io.Reader) error {
		part := &part{from: body}
		d := &Decoder{json.NewDecoder(part), part}
		part.begin()
		err := read(d)
		var syntax *json.SyntaxError
		var mismatch *json.UnmarshalTypeError
		if errors.As(err, &syntax) || errors.As(err, &mismatch) || errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return ErrAnswer
		}
		return err
	}
}

// Decode reads the next value.
func (d *Decoder) Decode(into any) error {
	d.part.begin()
	return d.json.Decode(into)
}

// Members reads an object, and hands the values of the members that it knows to their readers. A null is an object without any.
type Members map[string]func(*Decoder) error

// Read reads the object.
func (m Members) Read(d *Decoder) error {
	return Objects(func(name string, d *Decoder) error {
		if read := m[name]; read != nil {
			return read(d)
		}
		return d.skip()
	})(d)
}

// Elements reads an array, each element of it with element. A null is one without any.
func Elements(element func(*Decoder) error) func(*Decoder) error {
	return func(d *Decoder) error {
		return d.each('[', func() error { return element(d) })
	}
}

// Objects reads an object, each member of it with member.
func Objects(member func(name string, d *Decoder) error) func(*Decoder) error {
	return func(d *Decoder) error {
		return d.each('{', func() error {
			name, err := d.token()
			if err != nil {
				return err
			}
			text, _ := name.(string)
			return member(text, d)
		})
	}
}

// each calls f while there is more in the object or array that begins with the delimiter.
func (d *Decoder) each(begin json.Delim, f func() error) error {
	token, err := d.token()
	switch {
	case err != nil || token == nil:
		return err
	case token != begin:
		return ErrAnswer
	}
	for d.part.begin(); d.json.More(); d.part.begin() {
		if err := f(); err != nil {
			return err
		}
	}
	_, err = d.token()
	return err
}

func (d *Decoder) token() (json.Token, error) {
	d.part.begin()
	return d.json.Token()
}

// skip reads over the next value.
func (d *Decoder) skip() error {
	for depth := 0; ; {
		token, err := d.token()
		if err != nil {
			return err
		}
		switch token {
		case json.Delim('{'), json.Delim('['):
			depth++
		case json.Delim('}'), json.Delim(']'):
			depth--
		}
		switch {
		case depth > deep:
			return fmt.Errorf("%w: it is nested too deep", ErrAnswer)
		case depth == 0:
			return nil
		}
	}
}

// part bounds how much is read for one part.
type part struct {
	from io.Reader
	left int
}

func (p *part) begin() { p.left = most }

func (p *part) Read(b []byte) (int, error) {
	if p.left <= 0 {
		return 0, fmt.Errorf("%w: a part of it is larger than %d bytes", ErrAnswer, most)
	}
	n, err := p.from.Read(b[:min(len(b), p.left)])
	p.left -= n
	return n, err
}
