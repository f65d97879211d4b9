package wire_test

import (
	"encoding/json"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/crypto/canonicaljson"

	"github.com/roomkv/roomkv/internal/wire"
)

func nested(depth int) string {
	return strings.Repeat("[", depth) + strings.Repeat("]", depth)
}

func TestValueRoundTrip(t *testing.T) {
	plain := []string{
		`null`, `true`, `false`, `0`, `-1`, `9007199254740991`, `-9007199254740991`,
		`""`, `"text"`, `"nul \u0000 here"`, `"quote \" backslash \\ newline \n"`, `"\u2028"`, `"<b>&"`,
		`"\ud83d\ude00"`, `"\\ud800"`, `"ゆ🎉"`, `[]`, `{}`, `[1,[2,{"a":null}]]`, nested(100),
		`{"encrypted_val":"x","more":1}`, `{"value":{"encrypted_val":"x"}}`, `["encrypted_val"]`,
		`{"Encrypted_val":"x"}`, `{"":1}`, `{"a.b":1,"roomkv.parents":2}`,
	}
	for _, value := range plain {
		stored, err := wire.Encode(json.RawMessage(value))
		require.NoError(t, err, value)
		assert.Equal(t, value, string(stored), "should be stored as it is")
	}
	wrapped := []string{
		`1.5`, `1.0`, `1e3`, `1E3`, `-0`, `9007199254740992`, `-9007199254740992`, `1152921504606846976`, `[0.1]`,
		`{"a":{"b":[1e400]}}`, `99999999999999999999999999`, nested(101),
		`{"encrypted_val":"x"}`, `{"json_val":"1"}`, `{"media_val":{}}`, `{"encrypted_val":7}`, ` {"json_val":null} `,
		`"\ud800"`, `"\uDC00 low first"`, `"\ud83dx"`, `"\ud83d\n"`, `["\ud83d"]`, `{"\ud800":1}`,
		`{"a\"b":1}`, `{"a\\b":1}`, `{"a\u0000b":1}`, `{"a\nb":1}`, `[{"x":{"\t":1}}]`,
	}
	for _, value := range wrapped {
		stored, err := wire.Encode(json.RawMessage(value))
		require.NoError(t, err, value)
		assert.Contains(t, string(stored), `{"json_val":"`, value)
		again, err := wire.Encode(stored)
		require.NoError(t, err)
		assert.NotEqual(t, stored, again, "a stored value is a value of its own when stored again")
	}
	for _, value := range append(plain, wrapped...) {
		stored, err := wire.Encode(json.RawMessage(value))
		require.NoError(t, err, value)
		decoded, err := wire.Decode(stored)
		require.NoError(t, err, value)
		assert.Equal(t, strings.TrimSpace(value), string(decoded.JSON))
		assert.Empty(t, decoded.Event)
		assert.Nil(t, decoded.Media)
	}
}

func TestEncodeRefuses(t *testing.T) {
	for _, value := range []string{``, `{`, `nul`, `"\xff"`, "\"\xff\"", `1 2`, `01`, `+1`, `NaN`, "\"\x00\""} {
		_, err := wire.Encode(json.RawMessage(value))
		assert.ErrorIs(t, err, wire.ErrFormat, value)
	}
}

func TestDecodeMarkers(t *testing.T) {
	reference, err := wire.Decode(json.RawMessage(`{"encrypted_val":"$event:example.org"}`))
	require.NoError(t, err)
	assert.EqualValues(t, "$event:example.org", reference.Event)

	media, err := wire.Decode(json.RawMessage(`{"media_val":{"url":"mxc://a/b"}}`))
	require.NoError(t, err)
	assert.JSONEq(t, `{"url":"mxc://a/b"}`, string(media.Media))

	for _, stored := range []string{
		`{"encrypted_val":7}`, `{"encrypted_val":null}`, `{"encrypted_val":""}`, `{"encrypted_val":{}}`,
		`{"json_val":7}`, `{"json_val":null}`, `{"json_val":""}`, `{"json_val":"{"}`, `{"json_val":{"a":1}}`,
		`{"media_val":"x"}`, `{"media_val":null}`, `{"media_val":[]}`,
	} {
		_, err := wire.Decode(json.RawMessage(stored))
		assert.ErrorIs(t, err, wire.ErrFormat, stored)
	}
}

// keys that Matrix, a homeserver or a proxy has something against, and some that they have not.
var keys = []string{
	"a", "a b", " ", "a/b", "/", "//", "..//", "50%", "%", "%41", "%2F", "?q=1#f", "+", "é", "日本", "🎉", "e\u0301",
	"\u202e", "\ufeff", "\ufffd", "\uffff", "\U0010ffff", "...", "a@b", "!room:x", "$event", "*", "'", "a\x7f",
	"", ".", "..", "@", "@alice:example.org", "\x00", "a\x00b", "\n", "\t", `"`, `\`, `a\.b`,
	"redacts", "m.relates_to", "m.mentions", "m.new_content", "org.matrix.labels",
	"roomkv.", "roomkv.parents", "roomkv.%", "roomkv.%%", "roomkv.%%abc", "roomkv.@alice:example.org", "roomkv", "roomkv.roomkv.x",
	strings.Repeat("x", 255), strings.Repeat("x", 256), strings.Repeat("x", 257),
	"@" + strings.Repeat("x", 247), "@" + strings.Repeat("x", 248), "@" + strings.Repeat("x", 249),
	strings.Repeat("é", 127), strings.Repeat("é", 128), strings.Repeat("🎉", 5000),
}

func TestNames(t *testing.T) {
	seen := map[string]string{}
	for _, key := range keys {
		name := wire.Name(key)
		assert.NotContains(t, seen, name, "%q and %q share a name", key, seen[name])
		seen[name] = key
		back, ok := wire.KeyOf(name)
		assert.True(t, ok, "%q", name)
		assert.Equal(t, key, back)
		assert.False(t, strings.ContainsAny(name, "\"\\\x00\n\t"), "%q", name)
	}
	for _, reserved := range []string{"roomkv.parents", "roomkv.", "roomkv.%", "roomkv.%zz", "roomkv.a", "roomkv.%61"} {
		_, ok := wire.KeyOf(reserved)
		assert.False(t, ok, reserved)
	}
}

// perKey is the content of a key's event in the per-key layout.
func TestInside(t *testing.T) {
	content := func(names ...string) map[string]json.RawMessage {
		all := map[string]json.RawMessage{"other": nil}
		for i, name := range names {
			all[name] = json.RawMessage(strconv.Itoa(i))
		}
		return all
	}
	for _, key := range append(keys, "m.relates_to", "roomkv.a%22b", "roomkv.parents") {
		got, found := wire.Inside(content(wire.Name(key)), key)
		assert.True(t, found, key)
		assert.Equal(t, "0", string(got), key)
		if wire.Name(key) == key {
			continue
		}
		got, found = wire.Inside(content(wire.Name(key), key), key)
		assert.True(t, found, key)
		assert.Equal(t, "0", string(got), "what roomkv wrote comes first: %q", key)
		_, found = wire.Inside(content(key), key)
		assert.Equal(t, key != "m.relates_to" && !strings.HasPrefix(key, "roomkv."), found, "as opsdroid writes it: %q", key)
	}
}

func perKey(key, stored string) json.RawMessage {
	return wire.Dict{Names: map[string]string{wire.Name(key): stored}}.Content()
}

func TestStateKeys(t *testing.T) {
	seen := map[string]string{}
	for _, key := range keys {
		stateKey := wire.StateKey(key)
		assert.NotContains(t, seen, stateKey, "%q and %q share a state key", key, seen[stateKey])
		seen[stateKey] = key
		assert.LessOrEqual(t, len(stateKey), wire.MaxStateKey)
		assert.NotEmpty(t, stateKey)
		assert.NotEqual(t, byte('@'), stateKey[0])
		assert.NotContains(t, stateKey, "\x00")
		assert.NotContains(t, []string{".", ".."}, stateKey)

		found, err := wire.ParsePerKey(stateKey, perKey(key, `1`))
		require.NoError(t, err)
		assert.Equal(t, map[string]string{wire.Name(key): `1`}, found.Names)
	}
	for _, key := range []string{"a", "a b", "a/b", "50%", "日本", `a"b`, "a\nb", strings.Repeat("x", 255)} {
		assert.Equal(t, key, wire.StateKey(key), "opsdroid finds it under the key itself")
	}
}

func TestParsePerKey(t *testing.T) {
	tests := []struct {
		name, stateKey, content string
		key, stored             string // no key: not found
		corrupt                 bool
	}{
		{name: "today's", stateKey: "k", content: `{"k":1}`, key: "k", stored: `1`},
		{name: "today's with null", stateKey: "k", content: `{"k":null}`, key: "k", stored: `null`},
		{name: "opsdroid's with an unescaped name", stateKey: `a"b`, content: `{"a\"b":1}`, key: `a"b`, stored: `1`},
		{name: "opsdroid's beside an escaped name", stateKey: "redacts", content: `{"redacts":2,"roomkv.redacts":1,"roomkv.parents":7}`, key: "redacts", stored: `2`},
		{name: "deleted", stateKey: "k", content: `{}`},
		{name: "deleted by a writer that names parents", stateKey: "k", content: `{"roomkv.parents":{"events":["$a"]}}`},
		{name: "a copied field of another's beside it", stateKey: "k", content: `{"k":1,"roomkv.parents":7}`, key: "k", stored: `1`},
		{name: "a later version's field beside it", stateKey: "k", content: `{"k":1,"roomkv.parents":7,"roomkv.later":8}`, key: "k", stored: `1`},
		{name: "the first version's with a name like a field", stateKey: "k", content: `{"roomkv.later":8}`, key: "k", stored: `{"roomkv.later":8}`},
		{name: "the other layout's dict", stateKey: "", content: `{"a":1,"b":2}`},
		{name: "the first version's", stateKey: "k", content: `{"a":1,"b":2}`, key: "k", stored: `{"a":1,"b":2}`},
		{name: "the first version's with one name", stateKey: "k", content: `{"a":1}`, key: "k", stored: `{"a":1}`},
		{name: "the first version's like a marker", stateKey: "k", content: `{"json_val":"1"}`, key: "k", stored: `{"json_val":"{\"json_val\":\"1\"}"}`},
		{name: "another key inside an escaped state key", stateKey: "roomkv.@a:b", content: `{"@c:d":1}`, corrupt: true},
		{name: "two keys inside an escaped state key", stateKey: "roomkv.@a:b", content: `{"@a:b":1,"x":2}`, corrupt: true},
		{name: "a hash of something else", stateKey: wire.StateKey(strings.Repeat("x", 300)), content: `{"y":1}`, corrupt: true},
		{name: "a string", stateKey: "k", content: `"k"`, corrupt: true},
		{name: "a list", stateKey: "k", content: `["k"]`, corrupt: true},
		{name: "null", stateKey: "k", content: `null`, corrupt: true},
		{name: "nothing", stateKey: "k", content: ``, corrupt: true},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			dict, err := wire.ParsePerKey(test.stateKey, json.RawMessage(test.content))
			if test.corrupt {
				require.ErrorIs(t, err, wire.ErrFormat)
				return
			}
			require.NoError(t, err)
			if test.key == "" {
				assert.Empty(t, dict.Names)
				return
			}
			assert.Equal(t, map[string]string{wire.Name(test.key): test.stored}, dict.Names)
		})
	}
}

func TestDict(t *testing.T) {
	content := json.RawMessage(`{"a":1,"nothing":null,"":2,"roomkv.roomkv.x":3,"roomkv.a%22b":4,"roomkv.later":{"p":["$x"]},"ref":{"encrypted_val":"$e"}}`)
	dict, err := wire.ParseDict(content)
	require.NoError(t, err)
	assert.Equal(t, map[string]string{
		"a": `1`, "nothing": `null`, "": `2`, "roomkv.roomkv.x": `3`, "roomkv.a%22b": `4`, "roomkv.later": `{"p":["$x"]}`, "ref": `{"encrypted_val":"$e"}`,
	}, dict.Names)
	assert.JSONEq(t, string(content), string(dict.Content()), "what it does not know it keeps")

	empty, err := wire.ParseDict(json.RawMessage(`{}`))
	require.NoError(t, err)
	assert.Equal(t, `{}`, string(empty.Content()))

	for _, content := range []string{``, `null`, `[]`, `"x"`, `7`, `{`} {
		_, err := wire.ParseDict(json.RawMessage(content))
		assert.ErrorIs(t, err, wire.ErrFormat, content)
	}
}

// opsdroid does not see what roomkv has under an escaped name, and keeps it beside what it stores.
func TestDictPrefersWhatOpsdroidHasStoredSince(t *testing.T) {
	dict, err := wire.ParseDict(json.RawMessage(`{"a\"b":"opsdroid's","roomkv.a%22b":"ours","c\\d":"opsdroid's alone"}`))
	require.NoError(t, err)
	assert.JSONEq(t, `{"roomkv.a%22b":"opsdroid's","roomkv.c%5Cd":"opsdroid's alone"}`, string(dict.Content()))
}

// In rooms of versions 1 to 5 another client can put a float into a dict, which the server would refuse from us.
func TestDictMendsWhatCannotBeSent(t *testing.T) {
	dict, err := wire.ParseDict(json.RawMessage(`{"f":1.5,"i":1}`))
	require.NoError(t, err)
	assert.JSONEq(t, `{"f":{"json_val":"1.5"},"i":1}`, string(dict.Content()))
}

func TestSizeAndSame(t *testing.T) {
	assert.Equal(t, len(`{"a":"é\u0000<","b":1}`), wire.Size(json.RawMessage(`{ "b": 1, "a": "\u00e9\u0000\u003c" }`)))
	assert.True(t, wire.Same(json.RawMessage(`{"a":[1, "é"],"b":null}`), json.RawMessage(`{"b":null,"a":[1,"\u00e9"]}`)))
	assert.False(t, wire.Same(json.RawMessage(`[1,2]`), json.RawMessage(`[2,1]`)))
	assert.False(t, wire.Same(json.RawMessage(`1`), json.RawMessage(`"1"`)))
}

// mautrix encrypts canonical JSON, which takes what follows an unpaired surrogate for its other half, whatever it is.
func TestSealedValuesLeaveTheNextAlone(t *testing.T) {
	for _, value := range []string{
		`"\ud800"`, `"\udc00"`, `["\ud83d",1]`, `{"\ud800":1}`, `"\ud83d\n\ud83d\u0000"`, `"\ud83d\ude00"`, `1e400`, `-0`, `1.50`, nested(101), `"\\ud800"`,
		`{"b":1,"a":2}`, `"nul \u0000 \u001f\u007f"`, `"\ud800` + strings.Repeat("x", wire.MaxEvent) + `"`,
	} {
		stored, err := wire.Encode(json.RawMessage(value))
		require.NoError(t, err, value)
		inside, err := wire.Seal(stored)
		require.NoError(t, err, value)
		sent, err := canonicaljson.Marshal(map[string]json.RawMessage{"a": inside, "b": json.RawMessage(`2`)})
		require.NoError(t, err, value)
		var got map[string]json.RawMessage
		require.NoError(t, json.Unmarshal(sent, &got), "%.60s", value)
		assert.Equal(t, `2`, string(got["b"]), "%.60s", value)
		unsealed, err := wire.Unseal(got["a"])
		require.NoError(t, err, "%.60s", value)
		assert.True(t, wire.Same(json.RawMessage(value), unsealed.JSON), "%.60s came back as %.60s", value, unsealed.JSON)
	}
	assert.False(t, wire.Same(json.RawMessage(`["\ud800","1"]`), json.RawMessage(`["\ud800","2"]`)), "they are compared by what they hold")
	assert.False(t, wire.Same(json.RawMessage(`["\ud800"]`), json.RawMessage(`["\udbff"]`)))
}

func TestRefers(t *testing.T) {
	for stored, want := range map[string]bool{
		`{"encrypted_val":"$event"}`: true, ` { "encrypted\u005fval" : "$event" } `: true, `{"roomkv.fields":{"a":{"encrypted_val":"$event"},"b":1}}`: true,
		`{"roomkv.fields":{"b":1}}`: false, `{"encrypted_val":""}`: false, `{"encrypted_val":7}`: false, `{"encrypted_val":"$event","more":1}`: false,
		`{"inner":{"encrypted_val":"$event"}}`: false, `{"json_val":"{\"encrypted_val\":\"$event\"}"}`: false, `"encrypted_val"`: false, `7`: false,
	} {
		assert.Equal(t, want, wire.Refers(wire.Canonical(json.RawMessage(stored))), stored)
	}
}
