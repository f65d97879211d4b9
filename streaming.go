package roomkv

import (
	"encoding/json"
	"errors"
	"io"
)

// members reads an object, and hands the values of the members that it knows to their readers. A null is an object without
// any.
type members map[string]func(*json.Decoder) error

func (m members) walk(decoder *json.Decoder) error {
	return walk(decoder, '{', func() error {
		name, err := decoder.Token()
		if err != nil {
			return err
		}
		text, _ := name.(string)
		if read := m[text]; read != nil {
			return read(decoder)
		}
		return decoder.Decode(new(json.RawMessage))
	})
}

// elements reads an array of events. A null is one without any.
type elements func(*stateEvent)

func (e elements) walk(decoder *json.Decoder) error {
	return walk(decoder, '[', func() error {
		var evt *stateEvent
		err := decoder.Decode(&evt)
		if err == nil {
			e(evt)
		}
		return err
	})
}

// errShape is for JSON that is not of the kind that was asked for.
var errShape = errors.New("not what was asked for")

// walk calls each while there is more in the object or array that begins with the delimiter.
func walk(decoder *json.Decoder, begin json.Delim, each func() error) error {
	token, err := decoder.Token()
	switch {
	case err != nil || token == nil:
		return err
	case token != begin:
		return errShape
	}
	for decoder.More() {
		if err := each(); err != nil {
			return err
		}
	}
	_, err = decoder.Token()
	return err
}

// isMalformed tells errors about the JSON from those of the connection.
func isMalformed(err error) bool {
	var syntax *json.SyntaxError
	var mismatch *json.UnmarshalTypeError
	return errors.As(err, &syntax) || errors.As(err, &mismatch) || errors.Is(err, errShape) || errors.Is(err, io.EOF)
}
