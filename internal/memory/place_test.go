package memory

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestParsed(t *testing.T) {
	with := func(parents *wire.Parents) json.RawMessage {
		return wire.Dict{Names: map[string]string{"a": `1`}, Parents: parents}.Content()
	}
	for _, test := range []struct {
		about    string
		content  json.RawMessage
		redacted bool
		listed   bool
		want     merge.Event
		err      error
		marked   bool // whether there is a text that named parents
	}{
		{about: "of a writer that names none", content: with(nil), want: merge.Event{Dict: map[string]string{"a": `1`}, Partial: true}},
		{about: "listed", content: with(nil), listed: true, want: merge.Event{Dict: map[string]string{"a": `1`}}},
		{about: "with parents", content: with(&wire.Parents{Events: []id.EventID{"$p"}, Conditional: true, Yields: map[id.EventID][]string{"$y": {"a"}}}), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `1`}, Marked: true, Parents: []id.EventID{"$p"}, Conditional: true, Yields: merge.Yields{"$y": {"a"}}}},
		{about: "with parents, as a whole", content: with(&wire.Parents{Events: []id.EventID{"$p"}, Atomic: &wire.Atomic{Reads: []string{"b"}}, Yields: map[id.EventID][]string{"$y": {}}}), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `1`}, Marked: true, Parents: []id.EventID{"$p"}, Conditional: true, Atomic: true, Reads: []string{"b"}, Yields: merge.Yields{"$y": {}}}},
		{about: "as a whole, and depending on all", content: with(&wire.Parents{Events: []id.EventID{"$p"}, Atomic: &wire.Atomic{All: true}}), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `1`}, Marked: true, Parents: []id.EventID{"$p"}, Conditional: true, Atomic: true, ReadsAll: true}},
		{about: "with none, for nothing was there", content: with(&wire.Parents{Events: []id.EventID{}}), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `1`}, Marked: true, Parents: []id.EventID{}}},
		{about: "of a writer that had read nothing", content: with(&wire.Parents{By: "me"}), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `1`}, Blind: true}},
		{about: "with another's parents", content: json.RawMessage(`{"a":2,"roomkv.parents":{"events":["$p"],"digest":"x"}}`), listed: true, marked: true,
			want: merge.Event{Dict: map[string]string{"a": `2`}}},
		{about: "redacted", content: json.RawMessage(`{}`), redacted: true, listed: true, want: merge.Event{Dict: map[string]string{}, Redacted: true}},
		{about: "no dict", content: json.RawMessage(`["a"]`), listed: true, want: merge.Event{}, err: fault.ErrCorrupt},
	} {
		evt := &matrix.Event{ID: "$e", Sender: "@alice:example.org", Time: 7, StateKey: new(string), Content: test.content, Listed: test.listed}
		evt.Unsigned.ReplacesState = "$r"
		if test.redacted {
			evt.Unsigned.Redaction = json.RawMessage(`{"x":1}`)
		}
		got := roomWith(t, Settings{}).Parsed(evt)
		assert.ErrorIs(t, got.Err, test.err, test.about)
		assert.Equal(t, test.marked, got.Mark != "", test.about)
		got.Err, got.Mark = nil, ""
		want := test.want
		want.ID, want.Sender, want.Time, want.Replaces = "$e", "@alice:example.org", 7, "$r"
		assert.Equal(t, want, got, test.about)
	}
}

func TestReferred(t *testing.T) {
	event := func(content string) *matrix.Event { return &matrix.Event{Content: json.RawMessage(content)} }
	used := Referred(map[string]*matrix.Event{
		"a": event(`{"a":{"encrypted_val":"$a"},"b":{"roomkv.fields":{"x":{"encrypted_val":"$b"},"y":1}},"c":7,"d":{"inner":{"encrypted_val":"$no"}}}`),
		"b": event(`{"e":{"encrypted_val":"$a"},"f":{"encrypted_val":7}}`),
		"c": event(`["hostile"]`),
		"d": event(``),
	})
	assert.Equal(t, map[id.EventID]bool{"$a": true, "$b": true}, used)
}

func TestMoveOfAValue(t *testing.T) {
	stored := json.RawMessage(`2`)
	for _, test := range []struct {
		about string
		to    string
		base  map[string]string
		want  map[string]json.RawMessage
	}{
		{about: "under its name", to: "a", base: map[string]string{"a": `1`}, want: map[string]json.RawMessage{"a": stored}},
		{about: "to another", to: sealedName, base: map[string]string{"a": `1`}, want: map[string]json.RawMessage{"a": nil, sealedName: stored}},
		{about: "where something later is", to: sealedName, base: map[string]string{"a": `1`, sealedName: `3`}, want: map[string]json.RawMessage{"a": nil}},
	} {
		m := move{key: "a", from: `1`, to: test.to, stored: stored}
		assert.Equal(t, test.want, m.changes(testBase{names: test.base}, "a"), test.about)
	}
}
