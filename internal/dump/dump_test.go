package dump_test

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/dump"
)

func write(t testing.TB, lines ...dump.Line) []byte {
	t.Helper()
	var file bytes.Buffer
	w, err := dump.NewWriter(&file, dump.Header{Room: "!r:example.org", EventType: "m.opsdroid.database", Time: time.Unix(1, 0)})
	require.NoError(t, err)
	for _, line := range lines {
		require.NoError(t, w.Write(line))
	}
	require.NoError(t, w.Close())
	return file.Bytes()
}

func read(from io.Reader) (lines []dump.Line, err error) {
	for line, err := range dump.Read(from) {
		if err != nil {
			return lines, err
		}
		lines = append(lines, line)
	}
	return lines, nil
}

var examples = []dump.Line{
	{Key: "", Value: json.RawMessage(`null`), Revision: "$1", Sender: "@a:b", Time: time.UnixMilli(1500).UTC()},
	{Key: "key\n\u2028\x00<", Value: json.RawMessage(`{"a":[1.50,-0,1e999,"\ud800<\u2028"],"a":0}`), Revision: "$2", Encrypted: true, EncryptedBy: "@a:b", Trust: "verified"},
	{Key: "deep", Value: json.RawMessage(strings.Repeat("[", 10_000) + strings.Repeat("]", 10_000))},
	{Key: "as deep as it is written as JSON", Value: json.RawMessage(strings.Repeat("[", 1000) + strings.Repeat("]", 1000))},
	{Key: "large", Value: json.RawMessage(`"` + strings.Repeat("large", 50_000) + `"`)},
	{Key: "lost", Absent: dump.Unreadable},
	{Key: "key", Past: true, Absent: dump.Deleted},
	{Key: "key", Past: true, Absent: dump.Redacted},
	{Key: "key", Past: true, Value: json.RawMessage(`"was"`)},
}

func TestComesBack(t *testing.T) {
	lines, err := read(bytes.NewReader(write(t)))
	require.NoError(t, err)
	assert.Empty(t, lines)
	file := write(t, examples...)
	lines, err = read(iotest.OneByteReader(bytes.NewReader(file)))
	require.NoError(t, err)
	assert.Equal(t, examples, lines)
	for line := range bytes.Lines(file) {
		assert.True(t, json.Valid(line), "%.80s", line)
	}
	for range dump.Read(bytes.NewReader(file)) { // whoever has had enough may stop
		break
	}
}

func TestSpelling(t *testing.T) {
	file := write(t, dump.Line{Key: "<key>", Value: json.RawMessage("{ \"a\" :\n1 }"), Revision: "$r", Sender: "@a:b", Time: time.UnixMilli(1500).In(time.FixedZone("", 3600))})
	assert.Equal(t, `{"format":"roomkv","version":1,"room":"!r:example.org","event_type":"m.opsdroid.database","history":false,"time":"1970-01-01T00:00:01Z"}
{"key":"<key>","value":{"a":1},"revision":"$r","sender":"@a:b","time":"1970-01-01T00:00:01.5Z"}
{"lines":1,"sha256":"afab2e2e6bf8169a93bf206f443374ebfd6d0d3c526b2805c4a2f0bd8eee495f"}
`, string(file))
}

// A file that is cut anywhere, and one with any bit flipped.
func TestDamaged(t *testing.T) {
	file := write(t, dump.Line{Key: "a", Value: json.RawMessage("1")}, dump.Line{Key: "b", Past: true, Absent: dump.Deleted})
	for end := range file {
		_, err := read(bytes.NewReader(file[:end]))
		assert.ErrorIs(t, err, dump.ErrDamaged, end)
	}
	for bit := range 8 * len(file) {
		flipped := bytes.Clone(file)
		flipped[bit/8] ^= 1 << (bit % 8)
		_, err := read(bytes.NewReader(flipped))
		assert.ErrorIs(t, err, dump.ErrDamaged, bit)
	}
	lines := bytes.SplitAfter(file, []byte("\n"))
	for name, other := range map[string][]byte{
		"more":       append(bytes.Clone(file), '\n'),
		"twice":      append(bytes.Clone(file), file...),
		"swapped":    bytes.Join([][]byte{lines[0], lines[2], lines[1], lines[3]}, nil),
		"left out":   bytes.Join([][]byte{lines[0], lines[2], lines[3]}, nil),
		"no header":  bytes.Join(lines[1:], nil),
		"other ends": bytes.ReplaceAll(file, []byte("\n"), []byte("\r\n")),
		"other":      []byte("PK\x03\x04"),
		"no lines":   bytes.Repeat([]byte("x"), 1<<20),
	} {
		_, err := read(bytes.NewReader(other))
		assert.ErrorIs(t, err, dump.ErrDamaged, name)
	}
}

// Files with the right hash that no Writer has written.
func TestForged(t *testing.T) {
	for name, lines := range map[string]string{
		"version":        `{"format":"roomkv","version":2}`,
		"no header":      `{"format":"roomkv",}`,
		"not JSON":       `{"format":"roomkv","version":1}` + "\nx",
		"not an object":  `{"format":"roomkv","version":1}` + "\n[]",
		"nothing":        `{"format":"roomkv","version":1}` + "\n{}",
		"value and none": `{"format":"roomkv","version":1}` + "\n" + `{"key":"a","value":1,"past":true,"absent":"deleted"}`,
		"deleted now":    `{"format":"roomkv","version":1}` + "\n" + `{"key":"a","absent":"deleted"}`,
		"no reason":      `{"format":"roomkv","version":1}` + "\n" + `{"key":"a","absent":"other"}`,
		"no UTF-8":       `{"format":"roomkv","version":1}` + "\n" + `{"key":"a","value":"` + "\xff" + `"}`,
		"text":           `{"format":"roomkv","version":1}` + "\n" + `{"key":"a","value_text":"x"}`,
	} {
		_, err := read(strings.NewReader(sealed(lines + "\n")))
		assert.ErrorIs(t, err, dump.ErrDamaged, name)
		assert.NotContains(t, err.Error(), "SHA", name)
	}
	lines, err := read(strings.NewReader(sealed(`{"format":"roomkv","version":1}` + "\n" + `{"key":"a","value":1,"later":true}` + "\n")))
	require.NoError(t, err)
	assert.Len(t, lines, 1)
}

func TestErrors(t *testing.T) {
	broken := errors.New("broken")
	file := write(t, examples...)
	for _, at := range []int{0, 1, 100, len(file) / 2, len(file) - 1, len(file)} {
		_, err := read(io.MultiReader(bytes.NewReader(file[:at]), iotest.ErrReader(broken)))
		assert.ErrorIs(t, err, broken, at)
		assert.NotErrorIs(t, err, dump.ErrDamaged, at)
	}
	_, err := dump.NewWriter(failing{}, dump.Header{})
	assert.ErrorIs(t, err, errFailing)
	w, err := dump.NewWriter(io.Discard, dump.Header{})
	require.NoError(t, err)
	for _, line := range []dump.Line{{}, {Absent: dump.Deleted}, {Absent: "x"}, {Value: json.RawMessage("1"), Absent: dump.Redacted}} {
		assert.Error(t, w.Write(line))
	}
}

var errFailing = errors.New("failing")

type failing struct{}

func (failing) Write([]byte) (int, error) { return 0, errFailing }
