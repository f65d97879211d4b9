package main

import (
	"encoding/json"
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestValueOf(t *testing.T) {
	for _, test := range []struct {
		given    string
		asString bool
		want     any // nil where it is refused
	}{
		{given: "Hello!", want: "Hello!"},
		{given: "Hello!\n", want: "Hello!"},
		{given: "", want: ""},
		{given: "5", want: json.RawMessage("5")},
		{given: "5\n", want: json.RawMessage("5\n")},
		{given: "01067", want: "01067"},
		{given: "null", want: json.RawMessage("null")},
		{given: `{"a": 1}`, want: json.RawMessage(`{"a": 1}`)},
		{given: `{"a": 1`},
		{given: ` [1, 2`},
		{given: `"unfinished`},
		{given: `"finished"`, want: json.RawMessage(`"finished"`)},
		{given: `{"a": 1`, asString: true, want: `{"a": 1`},
		{given: "5\n", asString: true, want: "5\n"},
		{given: "caf\xe9"}, {given: "caf\xe9", asString: true}, {given: "\"caf\xe9\""}, {given: "{\"caf\xe9\": 1}"},
		{given: "\ufffd", want: "\ufffd"},
	} {
		got, err := valueOf(test.given, test.asString)
		if test.want == nil {
			assert.ErrorAs(t, err, new(usageError), test.given)
			assert.NotContains(t, err.Error(), test.given)
			continue
		}
		require.NoError(t, err, test.given)
		assert.Equal(t, test.want, got, test.given)
	}
}

func TestEscape(t *testing.T) {
	assert.Equal(t, "grün → 😀", escape("grün → 😀", ""))
	assert.Equal(t, `a\x1b[2Jb\nc`, oneLine("a\x1b[2Jb\nc"))
	assert.Equal(t, "a\n\tb\\r", escape("a\n\tb\r", "\n\t"))
	assert.Equal(t, `\u202e`, oneLine("\u202e"), "what turns the direction of text is spelled out")
}

func TestFilesAreWholeAndPrivate(t *testing.T) {
	name := filepath.Join(t.TempDir(), "export.jsonl")
	write := func(text string, force bool, failure error) error {
		file, err := newFile(name, force)
		if err != nil {
			return err
		}
		_, err = file.WriteString(text)
		require.NoError(t, err)
		return file.close(failure)
	}
	require.ErrorIs(t, write("half", false, os.ErrDeadlineExceeded), os.ErrDeadlineExceeded)
	assert.NoFileExists(t, name)
	require.NoError(t, write("first", false, nil))
	assert.Error(t, write("second", false, nil))
	require.ErrorIs(t, write("half", true, os.ErrDeadlineExceeded), os.ErrDeadlineExceeded)
	text, err := os.ReadFile(name)
	require.NoError(t, err)
	assert.Equal(t, "first", string(text))
	require.NoError(t, write("third", true, nil))

	info, err := os.Stat(name)
	require.NoError(t, err)
	assert.Equal(t, os.FileMode(0o600), info.Mode().Perm())
	left, err := os.ReadDir(filepath.Dir(name))
	require.NoError(t, err)
	assert.Len(t, left, 1, "nothing is left behind")
}
