package memory

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/wire"
)

func TestOneDict(t *testing.T) {
	for _, key := range []string{"", "bot"} {
		var layout Layout = OneDict{key}
		assert.False(t, layout.Alone())
		assert.True(t, layout.Together(""))
		assert.Equal(t, map[string][]string{key: {"b", wire.SealName, "a"}}, ByEvent(layout, []string{"b", wire.SealName, "a"}))
		assert.True(t, layout == OneDict{key}, "two layouts are equal where they are the same")
		assert.False(t, layout == OneDict{key + "x"})
		for _, name := range []string{"", "a", wire.Name("@a"), sealedName, wire.SealName} {
			assert.Equal(t, key, layout.StateKey(name), name)
		}
		for stateKey, want := range map[string]bool{key: true, key + "x": false, wire.SealName: false, wire.PredecessorName: false, sealedName: false} {
			assert.Equal(t, want, layout.Holds(stateKey), stateKey)
		}
		dict, err := layout.Parse("whatever", json.RawMessage(`{"a":1,"b":{"c":2}}`))
		require.NoError(t, err)
		assert.Equal(t, map[string]string{"a": `1`, "b": `{"c":2}`}, dict.Names)
		_, err = layout.Parse(key, json.RawMessage(`[]`))
		require.ErrorIs(t, err, wire.ErrFormat)
	}
	assert.True(t, OneDict{"bot"}.Holds("bot"))
	assert.False(t, OneDict{"bot"}.Holds(""))
}

func TestPerKey(t *testing.T) {
	var layout Layout = PerKey{}
	assert.True(t, layout.Alone())
	assert.False(t, layout.Together(""))
	assert.False(t, layout.Together("a"), "more keys begin with it")
	assert.Equal(t, map[string][]string{"b": {"b"}, "a": {"a"}}, ByEvent(layout, []string{"b", "a"}))
	assert.True(t, layout == PerKey{})
	assert.False(t, layout == OneDict{})
	long := strings.Repeat("x", 300)
	for name, want := range map[string]string{
		"a": "a", wire.Name(`a"b`): `a"b`, wire.Name("@a"): wire.StateKey("@a"), wire.Name(""): wire.StateKey(""), wire.Name(long): wire.StateKey(long),
		sealedName: sealedName, wire.PredecessorName: wire.PredecessorName, wire.SealName: wire.SealName,
	} {
		assert.Equal(t, want, layout.StateKey(name), name)
	}
	for stateKey, want := range map[string]bool{
		"a": true, sealedName: true, wire.StateKey(""): true,
		"": false, wire.SealName: false, wire.PredecessorName: false,
	} {
		assert.Equal(t, want, layout.Holds(stateKey), stateKey)
	}
	for _, test := range []struct{ stateKey, content, stored string }{
		{"a", `{"a":1}`, `1`},
		{"a", `{"b":1}`, `{"b":1}`}, // as the first version of opsdroid's database stored a dict
		{"a", `{}`, ``},
	} {
		dict, err := layout.Parse(test.stateKey, json.RawMessage(test.content))
		require.NoError(t, err)
		assert.Equal(t, test.stored, dict.Names["a"], test.content)
	}
	_, err := layout.Parse(sealedName, json.RawMessage(`{"a":1}`))
	require.ErrorIs(t, err, wire.ErrFormat, "an event of a sealed key has no other name")
}
