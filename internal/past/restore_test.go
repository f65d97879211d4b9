package past

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestRestorationsChanges(t *testing.T) {
	type changes = map[string]json.RawMessage
	raw := func(text string) json.RawMessage { return json.RawMessage(text) }
	res := restoration{
		holds:  func(string, string) bool { return true },
		was:    map[string]string{"same": `1`, "changed": `2`, "deleted": `3`, "lost": `4`, "broken": `5`},
		stored: changes{"same": raw(`1`), "changed": raw(`2`), "deleted": raw(`"elsewhere"`), "lost": raw(`4`), "broken": raw(`5`)},
		lost:   map[string]bool{"lost": true},
		broken: map[string]memory.Record{"broken": {}, "broken and new": {}},
		layout: memory.PerKey{},
	}
	for _, test := range []struct {
		about string
		now   map[string]string
		want  changes
	}{
		{"all is as it was", map[string]string{"same": `1`, "changed": `2`, "deleted": `3`}, changes{}},
		{"nothing is there", nil, changes{"same": raw(`1`), "changed": raw(`2`), "deleted": raw(`"elsewhere"`)}},
		{"some of it has changed", map[string]string{"same": `1`, "changed": `9`, "new": `9`}, changes{"changed": raw(`2`), "deleted": raw(`"elsewhere"`), "new": nil}},
		{"what cannot come back stays as it is", map[string]string{"same": `1`, "changed": `2`, "deleted": `3`, "lost": `9`, "broken": `9`, "broken and new": `9`}, changes{}},
	} {
		assert.Equal(t, test.want, res.apply(res.names(), test.now), test.about)
	}
}

func TestRestorationsClearValues(t *testing.T) {
	res := restoration{
		holds:  func(string, string) bool { return true },
		stored: map[string]json.RawMessage{"a": json.RawMessage(`{"b": 1, "a": 2}`), "ref": wire.Reference("$1")},
		clear:  map[string]string{"a": "a", "unasked": "unasked"},
	}
	assert.Equal(t, []commit.Value{{Name: "a", Key: "a", Stored: `{"a":2,"b":1}`}}, res.inClear([]string{"a", "ref", "new"}))
}

// In a room that is not encrypted nothing has to be asked for what stood in the clear.
func TestRestorable(t *testing.T) {
	r := roomWith(t, memory.Settings{Layout: memory.PerKey{}})
	record := func(stored string) memory.Record { return memory.Record{Stored: json.RawMessage(stored)} }
	snapshot := &Snapshot{Room: r, Records: map[string]memory.Record{
		"plain": record(`1`), "changed": record(`[2]`), "text": record(`{"json_val":"1.5"}`), "bad": record(`{"json_val":7}`),
		"current reference": record(`{"encrypted_val":"$1"}`), "fields": record(`{"roomkv.fields":{"x":{"encrypted_val":"$2"}}}`),
	}, Broken: map[string]memory.Record{"x": {Err: fault.ErrRedacted}, "y": {Err: fault.ErrCorrupt}}}
	res, err := restorable(t.Context(), r, snapshot, map[string]string{"plain": `1`, "current reference": `{"encrypted_val":"$1"}`},
		func(string, string) bool { return true })
	require.NoError(t, err)
	assert.Equal(t, map[string]string{"plain": "plain", "changed": "changed", "text": "text"}, res.clear)
	assert.Empty(t, res.lost)
	assert.ErrorIs(t, res.left, fault.ErrRedacted, "of the first state key")
	for name, found := range snapshot.Records {
		assert.Equal(t, string(found.Stored), res.was[name])
		assert.Equal(t, found.Stored, res.stored[name])
	}
}
