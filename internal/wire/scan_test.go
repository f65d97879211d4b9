package wire

import (
	"encoding/json"
	"fmt"
	"reflect"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"
)

// What is read in the fast way is what the slow ones read.
func TestScan(t *testing.T) {
	for text, plain := range map[string]bool{
		`0`: true, `-1`: true, `9007199254740991`: true, `9007199254740992`: false, `-0`: false, `01`: false, `-`: false, `1.5`: false, `1e3`: false,
		`true`: true, `false`: true, `null`: true, `nul`: false, ``: false, `tru`: false, `x`: false,
		`""`: true, `"é"`: true, "\"\u2028\x7f\"": true, `"\"\\\b\f\n\r\t"`: true, `"\u00e9"`: false, `"\/"`: false, `"`: false, `"\`: false, "\"\n\"": false, "\"\xff\"": false,
		`[]`: true, `[1,"a",{}]`: true, `[1 ]`: false, `[1,]`: false, `[,1]`: false, `[`: false, `[1`: false, `[]]`: false, ` 1`: false, `1 `: false,
		`{}`: true, `{"":1,"a":[2],"b":{"c":null}}`: true, `{"b":1,"a":2}`: false, `{"a":1,"a":2}`: false, `{"a" :1}`: false, `{"a":1,}`: false,
		`{"a\"":1}`: false, `{"a":1`: false, `{1:2}`: false, `{"a"}`: false, `{"":1,"":2}`: false,
		strings.Repeat("[", 100) + strings.Repeat("]", 100): true, strings.Repeat("[", 101) + strings.Repeat("]", 101): false,
	} {
		assert.Equal(t, plain, isPlain(text), "%.20q", text)
		checkPlain(t, text)
	}
}

func FuzzScan(f *testing.F) {
	f.Add(`{"a":1,"roomkv.parents":{"by":"x","digest":""},"z":[null]}`)
	f.Fuzz(func(t *testing.T, text string) {
		checkPlain(t, text)
		if text = string(canonical(json.RawMessage(text))); isPlain(text) {
			checkPlain(t, text)
		}
	})
}

func checkPlain(t *testing.T, text string) {
	t.Helper()
	raw := json.RawMessage(text)
	if isPlain(text) && (!json.Valid(raw) || string(canonical(raw)) != text || hasUnpairedSurrogate(raw) || !consistsOf(raw, plainName, safeInteger)) {
		t.Fatalf("%q is not plain", text)
	}
	fast, expires1, err1 := parse(raw)
	slow, expires2, err2 := parseAny(raw)
	if fmt.Sprint(err1) != fmt.Sprint(err2) || !reflect.DeepEqual(fast, slow) || expires1 != expires2 {
		t.Fatalf("%q reads as %v, %v, and as %v, %v", text, fast, err1, slow, err2)
	}
}

// What is written is read in the fast way, and its digest is right wherever the field stands.
func TestWrittenIsPlain(t *testing.T) {
	for _, names := range []map[string]string{
		{}, {"a": `1`}, {"a": "@1700000000000 1", "z": `2`}, {"a": "@1 {}", "z": `1`}, {"z": `"é"`}, {"a": `[1]`, "z": `{"b":null}`}, {"roomkv.later": `1`, "roomkv.seal": `2`}, {"a<b>&": `"\n"`},
	} {
		content := Dict{Names: names, Parents: &Parents{Events: []id.EventID{"$a"}, Yields: map[id.EventID][]string{"$b": {"x"}}, By: "me"}}.Content()
		assert.True(t, isPlain(string(content)), "%s", content)
		slow := func(content json.RawMessage) (Dict, error) {
			dict, expires, err := parseAny(content)
			dict.expire(expires)
			return dict, err
		}
		for _, parse := range []func(json.RawMessage) (Dict, error){ParseDict, slow} {
			read, err := parse(content)
			require.NoError(t, err)
			assert.NotNil(t, read.Parents, "%s", content)
			assert.Equal(t, names, read.Names)
		}
	}
}
