package dump_test

import (
	"encoding/json"
	"errors"
	"io"
	"iter"
	"strings"
	"testing"
	"testing/iotest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/dump"
)

func collect(lines iter.Seq2[dump.Line, error]) (all map[string]string, err error) {
	all = map[string]string{}
	for line, err := range lines {
		if err != nil {
			return all, err
		}
		all[line.Key] = string(line.Value)
	}
	return all, nil
}

func TestPlain(t *testing.T) {
	want := map[string]string{"a": "1.50", "": `{"x":[null]}`, "é\n": `"<\u2028>"`}
	for name, file := range map[string]string{
		"object": ` { "a": 1.50, "":{"x":[null]}, "é\n": "<\u2028>" } ` + "\n",
		"lines":  `{"key":"a","value":1.50,"more":1}` + "\n\n" + `{"value":{"x":[null]},"key":""}` + "\r\n" + `{"key":"é\n","value":"<\u2028>"}`,
	} {
		read := dump.ReadObject
		if name == "lines" {
			read = dump.ReadLines
		}
		for _, from := range []io.Reader{strings.NewReader(file), iotest.OneByteReader(strings.NewReader(file)), iotest.DataErrReader(strings.NewReader(file))} {
			all, err := collect(read(from))
			require.NoError(t, err, name)
			assert.Equal(t, want, all, name)
		}
		for range read(strings.NewReader(file)) { // whoever has had enough may stop
			break
		}
		broken := errors.New("broken")
		for at := range file {
			_, err := collect(read(io.MultiReader(strings.NewReader(file[:at]), iotest.ErrReader(broken))))
			require.ErrorIs(t, err, broken, at)
		}
	}
}

func TestPlainDamaged(t *testing.T) {
	for name, file := range map[string]string{
		"nothing": "", "a list": `[1]`, "a number": `7`, "no end": `{"a":1`, "cut in a value": `{"a":[1`, "two": `{"a":1}{"b":2}`, "more": `{"a":1} x`,
		"no names": `{1:2}`, "no value": `{"a":}`, "no UTF-8": `{"a":"` + "\xff" + `"}`, "half a character": `{"a":"` + "\xc3" + `"}`, "cut in a character": "{\"\xc3",
	} {
		_, err := collect(dump.ReadObject(strings.NewReader(file)))
		require.ErrorIs(t, err, dump.ErrDamaged, name)
		_, err = collect(dump.ReadObject(iotest.OneByteReader(strings.NewReader(file))))
		require.ErrorIs(t, err, dump.ErrDamaged, name)
	}
	for name, file := range map[string]string{
		"no value": `{"key":"a"}`, "no key": `{"value":1}`, "a list": `[]`, "cut": `{"key":"a","value":1`, "no UTF-8": `{"key":"a","value":"` + "\xff" + `"}`,
		"two in a line": `{"key":"a","value":1} {"key":"b","value":1}`,
	} {
		_, err := collect(dump.ReadLines(strings.NewReader("{\"key\":\"ok\",\"value\":1}\n" + file + "\n")))
		require.ErrorIs(t, err, dump.ErrDamaged, name)
		assert.ErrorContains(t, err, "line 2", name)
	}
	all, err := collect(dump.ReadLines(strings.NewReader("")))
	require.NoError(t, err)
	assert.Empty(t, all)
}

// FuzzPlain reads hostile text. What is valid JSON comes back.
func FuzzPlain(f *testing.F) {
	f.Add([]byte(`{"a":1,"b":[true]}`))
	f.Add([]byte(`{"key":"a","value":1}` + "\n"))
	f.Fuzz(func(t *testing.T, text []byte) {
		_, _ = collect(dump.ReadLines(strings.NewReader(string(text))))
		all, err := collect(dump.ReadObject(strings.NewReader(string(text))))
		var want map[string]json.RawMessage
		if err == nil && (json.Unmarshal(text, &want) != nil || len(want) != len(all)) {
			t.Fatalf("%q was read as %v", text, all)
		}
	})
}
