package wire_test

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

// change sets one name of a content, as opsdroid does: everything else it copies. Without a value it takes the name
// away.
func change(t *testing.T, content json.RawMessage, name, value string) json.RawMessage {
	var names map[string]json.RawMessage
	require.NoError(t, json.Unmarshal(content, &names))
	if names[name] = json.RawMessage(value); value == "" {
		delete(names, name)
	}
	changed, err := json.Marshal(names)
	require.NoError(t, err)
	return changed
}

// sizeOf is the size of the content with these names, by its entries.
func sizeOf(names map[string]string) int {
	size := len("{}")
	for name, stored := range names {
		size += wire.EntrySize(name, stored)
	}
	if len(names) > 0 {
		size -= len(",")
	}
	return size
}

func TestParentsRoundTrip(t *testing.T) {
	for _, events := range [][]id.EventID{nil, {"$a"}, {"$a", "$b:example.org", "$\u2028<&>"}, make64()} {
		for _, stored := range []string{`1`, `"x"`, `{"b":[1,"é"],"a":null}`, `1.5`, `{"json_val":"1.5"}`} {
			dict := wire.Dict{
				Names:   map[string]string{"k": wire.Canonical(json.RawMessage(stored))},
				Parents: &wire.Parents{Events: events, By: "a writer", Conditional: true},
			}
			for _, event := range events {
				dict.Parents.Yields = map[id.EventID][]string{event: {"k", "\u2028 <&>"}}
			}
			inDict, err := wire.ParseDict(dict.Content())
			require.NoError(t, err)
			inPerKey, err := wire.ParsePerKey("k", dict.Content())
			require.NoError(t, err)
			for _, read := range []wire.Dict{inDict, inPerKey} {
				require.NotNil(t, read.Parents, "%s", dict.Content())
				assert.Equal(t, events, read.Parents.Events)
				assert.Equal(t, dict.Parents.Yields, read.Parents.Yields)
				assert.Equal(t, "a writer", read.Parents.By)
				assert.True(t, read.Parents.Conditional)
				assert.NotEmpty(t, read.Parents.Digest)
				assert.NotEmpty(t, read.ParentsText)
				assert.Len(t, read.Names, 1)
			}
		}
	}
}

func make64() []id.EventID {
	events := make([]id.EventID, 64)
	for i := range events {
		events[i] = id.EventID(fmt.Sprintf("$%d", i))
	}
	return events
}

// The server and whoever reads and rewrites the event may order and spell the JSON as they like.
func TestParentsSurviveAnotherSpelling(t *testing.T) {
	content := wire.Dict{
		Names:   map[string]string{"é": wire.Canonical(json.RawMessage(`{"b":"<&>\u2028","a":1}`))},
		Parents: &wire.Parents{Events: []id.EventID{"$a"}},
	}.Content()
	var generic any
	require.NoError(t, json.Unmarshal(content, &generic))
	respelled, err := json.MarshalIndent(generic, "", "  ")
	require.NoError(t, err)
	require.NotEqual(t, string(content), string(respelled))
	dict, err := wire.ParseDict(respelled)
	require.NoError(t, err)
	assert.NotNil(t, dict.Parents)
	original, err := wire.ParseDict(content)
	require.NoError(t, err)
	assert.Equal(t, original.ParentsText, dict.ParentsText)
}

func TestStaleParents(t *testing.T) {
	content := wire.Dict{
		Names:   map[string]string{"a": `1`, "b": `2`},
		Parents: &wire.Parents{Events: []id.EventID{"$a"}},
	}.Content()
	written, err := wire.ParseDict(content)
	require.NoError(t, err)
	tests := []struct{ change, name, value string }{
		{"another value", "a", `3`},
		{"a value of another type", "a", `"1"`},
		{"a key more", "c", `1`},
		{"a null more", "c", `null`},
		{"a field of a later version more", "roomkv.later", `1`},
		{"a key fewer", "b", ""},
	}
	for _, test := range tests {
		t.Run(test.change, func(t *testing.T) {
			dict, err := wire.ParseDict(change(t, content, test.name, test.value))
			require.NoError(t, err)
			assert.Nil(t, dict.Parents)
			assert.Equal(t, written.ParentsText, dict.ParentsText)
		})
	}
	t.Run("changed back", func(t *testing.T) {
		dict, err := wire.ParseDict(change(t, change(t, content, "a", `3`), "a", `1`))
		require.NoError(t, err)
		assert.Equal(t, written.Parents, dict.Parents)
	})
	t.Run("rewritten without parents", func(t *testing.T) {
		dict, err := wire.ParseDict(change(t, content, "a", `3`))
		require.NoError(t, err)
		assert.JSONEq(t, `{"a":3,"b":2}`, string(dict.Content()), "a stale field is not handed on")
	})
}

func TestHostileParents(t *testing.T) {
	valid := wire.Dict{Names: map[string]string{"a": `1`}, Parents: &wire.Parents{}}
	dict, err := wire.ParseDict(valid.Content())
	require.NoError(t, err)
	digest := dict.Parents.Digest
	field := func(events string) string { return fmt.Sprintf(`{"events":%s,"digest":%q}`, events, digest) }
	for _, text := range []string{
		`null`, `true`, `7`, `1.5`, `"$a"`, `""`, `[]`, `["$a"]`, `{}`, `{"events":["$a"]}`, `{"events":["$a"],"digest":7}`,
		`{"events":["$a"],"digest":""}`, `{"events":["$a"],"digest":null}`, `{"events":["$a"],"digest":"` + digest + `="}`,
		field(`"$a"`), field(`7`), field(`[7]`), field(`[["$a"]]`), field(`[{}]`), field(`{"0":"$a"}`),
		field(`[null]`), field(`[""]`), field(`["$a",""]`), field(`[` + strings.Repeat(`"$a",`, 10_000) + `"$a"]`),
		`{"events":["$a"],"conditional":1,"digest":"` + digest + `"}`, `{"events":["$a"],"by":[],"digest":"` + digest + `"}`,
		`{"events":["$a"],"yields":["$a"],"digest":"` + digest + `"}`, `{"events":["$a"],"yields":{"$a":"a"},"digest":"` + digest + `"}`,
		strings.Repeat("[", 5000) + strings.Repeat("]", 5000),
	} {
		content := json.RawMessage(`{"a":1,"roomkv.parents":` + text + `}`)
		for _, parse := range []func(json.RawMessage) (wire.Dict, error){
			wire.ParseDict, func(c json.RawMessage) (wire.Dict, error) { return wire.ParsePerKey("a", c) },
		} {
			dict, err := parse(content)
			require.NoError(t, err)
			assert.Nil(t, dict.Parents, "%.80s", text)
			assert.NotEmpty(t, dict.ParentsText, "%.80s", text)
			assert.Equal(t, map[string]string{"a": `1`}, dict.Names)
		}
	}
	dict, err = wire.ParseDict(json.RawMessage(`{"a":1,"roomkv.parents":` + field(`["$a"]`) + `}`))
	require.NoError(t, err)
	assert.NotNil(t, dict.Parents, "the digest is right")
}

// A user's key never passes for the field.
func TestKeysLikeTheField(t *testing.T) {
	for _, key := range []string{"parents", "roomkv.parents", "roomkv.roomkv.parents", "events", "roomkv."} {
		dict := wire.Dict{Names: map[string]string{wire.Name(key): `{"events":["$user"]}`}}
		for _, parents := range []*wire.Parents{nil, {Events: []id.EventID{"$a"}}} {
			dict.Parents = parents
			inDict, err := wire.ParseDict(dict.Content())
			require.NoError(t, err)
			inPerKey, err := wire.ParsePerKey(wire.StateKey(key), dict.Content())
			require.NoError(t, err)
			for _, read := range []wire.Dict{inDict, inPerKey} {
				assert.Equal(t, dict.Names, read.Names)
				assert.Equal(t, parents != nil, read.Parents != nil)
				assert.Equal(t, parents != nil, read.ParentsText != "")
			}
		}
	}
}

func TestDeletedKeyIsAnEmptyContent(t *testing.T) {
	assert.Equal(t, `{}`, string(wire.Dict{}.Content()))
	assert.Equal(t, `{}`, string(wire.Dict{Names: map[string]string{}}.Content()))
}

func TestNamesRoundTrip(t *testing.T) {
	dict, err := wire.ParseDict(json.RawMessage(
		`{"a":{"y":1,"x":2},"f":1.5,"":null,"a\"b":"é","roomkv.roomkv.x":3,"roomkv.later":{"b":1,"a":2},"roomkv.parents":{"events":["$a"]}}`))
	require.NoError(t, err)
	names := dict.Names
	assert.Equal(t, map[string]string{
		"a": `{"x":2,"y":1}`, "f": `{"json_val":"1.5"}`, "": `null`, "roomkv.a%22b": `"é"`,
		"roomkv.roomkv.x": `3`, "roomkv.later": `{"a":2,"b":1}`,
	}, names, "canonical, and without the field")
	back := wire.Dict{Names: names}
	assert.JSONEq(t, string(dict.Content()), string(back.Content()))
}

func TestEntrySizes(t *testing.T) {
	for _, key := range keys {
		dict := wire.Dict{Names: map[string]string{
			wire.Name(key): "\"\u2028 é <b>\"", "float": `{"json_val":"1.5"}`, "list": `[1,2]`,
		}}
		assert.Equal(t, wire.Size(dict.Content()), sizeOf(dict.Names), "%.40q", key)
	}
	for _, key := range []string{"\u2028", "\u2029", "<&>"} { // encoding/json escapes the first two, canonical JSON does not
		assert.Equal(t, wire.Size(perKey(key, `1`)), sizeOf(map[string]string{wire.Name(key): `1`}), "%q", key)
	}
	assert.Equal(t, wire.Size(json.RawMessage(`{}`)), sizeOf(nil))
}

func TestCanonical(t *testing.T) {
	values := []string{
		`0`, `-0`, `1`, `-1`, `10`, `1e1`, `1E1`, `1.0`, `1.5`, `100`, `9007199254740991`, `9007199254740993`, `1e400`, `true`, `false`, `null`,
		`""`, `" "`, `"a"`, `"\u0061"`, `"A"`, `"é"`, `"\u00e9"`, `"\/"`, `"/"`, `"\u2028"`, "\"\u2028\"", "\"\x7f\"", `"\u007f"`, `"<"`, `"\u003c"`,
		`"null"`, `"1"`, `[]`, `[ ]`, `{}`, `{ }`, `[1,2]`, `[1, 2]`, `[2,1]`, `{"a":1,"b":2}`, `{"b":2,"a":1}`, `{"a":1}`,
		` 1`, "1\n", "\t\"a\"", `"0123456789012345678901234567890123456789"`,
	}
	for _, a := range values {
		for _, b := range values {
			assert.Equal(t, wire.Same(json.RawMessage(a), json.RawMessage(b)), wire.Canonical(json.RawMessage(a)) == wire.Canonical(json.RawMessage(b)), "%s and %s", a, b)
		}
	}
}
