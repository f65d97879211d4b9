package main

import (
	"encoding/json"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// files are hard to keep.
func files() map[string]string {
	random := make([]byte, 1<<20)
	source := rand.NewChaCha8([32]byte{1})
	_, _ = source.Read(random) // does not fail
	return map[string]string{
		"random": string(random), "empty": "", "text": "two\nlines\n", "windows": "a\r\n", "no end": "a", "latin1": "caf\xe9", "nul": "a\x00b", "json": "{\"a\": 1.0}\n",
		"base64": "SGVsbG8=", "like one": `{"base64":"SGVsbG8="}`, "half": "\xf0\x9f", "number": "5", "dash": "-", "mark": "\ufeffa",
	}
}

func TestRawFilesComeBack(t *testing.T) {
	t.Parallel()
	for name, file := range files() {
		text, err := json.Marshal(valueOfRaw(file))
		require.NoError(t, err)
		assert.Equal(t, file, string(rawOf(text)), name)
	}
	assert.IsType(t, rawBytes{}, valueOfRaw("a\x00b"), "not every homeserver stores such a text")
	for value, want := range map[string]string{ // of others
		`"Hello!"`: "Hello!", `5`: "5", `{"base64":5}`: `{"base64":5}`, `{"base64":null}`: `{"base64":null}`, `{"base64":"!"}`: `{"base64":"!"}`,
		`{"base64":"QQ==","more":1}`: `{"base64":"QQ==","more":1}`, `{"base64":""}`: "", `[1]`: "[1]", `{"Base64":"QQ=="}`: `{"Base64":"QQ=="}`,
	} {
		assert.Equal(t, want, string(rawOf(json.RawMessage(value))), value)
	}
}

func TestRaw(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	for _, layout := range [][]string{{}, {"--per-key"}, {"--shards", "4"}} {
		for name, file := range files() {
			put := sh.feed(file, append([]string{"put", name, "-", "--raw", "--event-type", "com.example." + strings.Join(layout, "")}, layout...)...)
			require.Zero(t, put.code, put.err)
			got := sh.ok(append([]string{"get", name, "--raw", "--event-type", "com.example." + strings.Join(layout, "")}, layout...)...)
			assert.True(t, file == got, "%s: %d bytes came back as %d", name, len(file), len(got))
			if len(layout) > 0 && name == "random" {
				break
			}
		}
	}
	sh.ok("keybackup", "setup")
	sh.set(envRoom, hstest.EncryptedRoom(t, sh.bot).String())
	file := files()["random"]
	require.Zero(t, sh.feed(file, "put", "random", "-", "--raw").code)
	assert.True(t, file == sh.ok("get", "random", "--raw"))

	assert.Equal(t, exitUsage, sh.run("get", "random", "--raw", "--json").code)
	assert.Equal(t, exitUsage, sh.run("put", "random", "a", "--raw", "--string").code)
}
