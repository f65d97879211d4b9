package memory

import (
	"encoding/json"
	"errors"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestMoved(t *testing.T) {
	const largest = 10 << 10
	reference := json.RawMessage(`{"encrypted_val":"$` + strings.Repeat("x", largest) + `"}`)
	attachment := json.RawMessage(`{"media_val":{"url":"` + strings.Repeat("x", largest) + `"}}`)
	value := func(saves int) json.RawMessage { return textOf(saves + wire.MediaSize) }
	type values = map[string]json.RawMessage
	for _, test := range []struct {
		about string
		size  int
		new   values
		old   values // that were in the room before
		want  []string
	}{
		{about: "there is room", size: roomyDict, new: values{"a": value(largest)}},
		{about: "there is room no more", size: roomyDict + 1, new: values{"a": value(largest)}, want: []string{"a"}},
		{about: "just worth it", size: roomyDict + 1, new: values{"a": value(worthMoving)}, want: []string{"a"}},
		{about: "just not worth it", size: roomyDict + 1, new: values{"a": value(worthMoving - 1)}},
		{about: "not worth it up to the end", size: fullDict, new: values{"a": value(worthMoving - 1)}},
		{about: "full", size: fullDict + 1, new: values{"a": value(1)}, want: []string{"a"}},
		{about: "full, and nothing gained", size: fullDict + 1, new: values{"a": value(0)}},
		{about: "the largest first", size: roomyDict + 1, new: values{"a": value(3000), "b": value(5000), "c": value(4000)}, want: []string{"b"}},
		{about: "no more than must", size: roomyDict + 5000, new: values{"a": value(3000), "b": value(5000), "c": value(4000)}, want: []string{"b"}},
		{about: "and then the next", size: roomyDict + 5001, new: values{"a": value(3000), "b": value(5000), "c": value(4000)}, want: []string{"b", "c"}},
		{about: "of equal ones the first by name", size: roomyDict + 1, new: values{"b": value(3000), "a": value(3000), "c": value(3000)}, want: []string{"a"}},
		{about: "small ones stay where the large ones have gone", size: fullDict + 3000, new: values{"a": value(100), "b": value(3000)}, want: []string{"b"}},
		{about: "small ones go too where it is full", size: fullDict + 3001, new: values{"a": value(100), "b": value(3000)}, want: []string{"b", "a"}},
		{about: "all, and it just fits", size: fullDict + 3100, new: values{"a": value(100), "b": value(3000)}, want: []string{"b", "a"}},
		{about: "in vain", size: fullDict + 3101, new: values{"a": value(100), "b": value(3000)}},
		{about: "what was there stays", size: roomyDict + 1, new: values{"a": value(3000)}, old: values{"b": value(5000)}, want: []string{"a"}},
		{about: "what was there stays where it is full", size: fullDict + 1, old: values{"b": value(5000)}},
		{about: "a removed name", size: fullDict + 1, new: values{"a": nil}},
		{about: "what is elsewhere already", size: fullDict + 1, new: values{"a": reference, "b": attachment}},
	} {
		changes, isNew := values{}, map[string]string{}
		for name, stored := range test.new {
			changes[name], isNew[name] = stored, "key"
		}
		for name, stored := range test.old {
			changes[name] = stored
		}
		var got []string
		for _, out := range moved(test.size, changes, isNew) {
			got = append(got, out.name)
			assert.Equal(t, string(changes[out.name]), string(out.text), test.about)
		}
		assert.Equal(t, test.want, got, test.about)
	}
}

func TestMovedIsTheValueItself(t *testing.T) {
	value := "[1.5," + strings.Repeat("0,", 2000) + "0]"
	stored, err := wire.Encode(json.RawMessage(value))
	require.NoError(t, err)
	require.NotEqual(t, value, string(stored), "it stands in the state as a text")
	got := moved(roomyDict+1, map[string]json.RawMessage{"a": stored}, map[string]string{"a": "a"})
	require.Len(t, got, 1)
	assert.Equal(t, value, string(got[0].text))
}

func TestGrowth(t *testing.T) {
	base := testBase{names: map[string]string{"a": `1`, "long": `"` + strings.Repeat("x", 98) + `"`}}
	for _, test := range []struct {
		changes string
		want    int
	}{
		{`{}`, 0},
		{`{"b":22}`, len(`"b":22,`)},
		{`{"a":333}`, 2},
		{`{"a":1}`, 0},
		{`{"long":1}`, -99},
		{`{"a":null,"b":22}`, len(`"b":22,`) - len(`"a":1,`)},
		{`{"none":null}`, 0},
	} {
		var changes map[string]json.RawMessage
		require.NoError(t, json.Unmarshal([]byte(test.changes), &changes))
		for name, stored := range changes {
			if string(stored) == "null" {
				changes[name] = nil
			}
		}
		assert.Equal(t, test.want, growth(base, changes), test.changes)
	}
}

// What does not make a dict larger than it may be makes no request.
func TestFittingLeavesWhatFits(t *testing.T) {
	large := textOf(5000)
	room := roomWith(t, Settings{})
	entry := wire.EntrySize("a", string(large))
	for _, test := range []struct {
		about string
		base  testBase
	}{
		{"it fits", testBase{size: roomyDict - entry}},
		{"it gets no larger", testBase{map[string]string{"a": string(textOf(5000))}, fullDict}},
		{"it gets smaller", testBase{map[string]string{"a": string(textOf(6000))}, fullDict}},
	} {
		edit := room.Fitting(t.Context(), commit.Edit{Values: map[string]string{"a": "a"}, Apply: func(commit.Base) (map[string]json.RawMessage, error) {
			return map[string]json.RawMessage{"a": large}, nil
		}})
		changes, err := edit.Apply(test.base)
		require.NoError(t, err, test.about)
		assert.Equal(t, map[string]json.RawMessage{"a": large}, changes, test.about)
	}

	failed := errors.New("no")
	edit := room.Fitting(t.Context(), commit.Edit{Apply: func(commit.Base) (map[string]json.RawMessage, error) { return nil, failed }})
	_, err := edit.Apply(testBase{})
	assert.ErrorIs(t, err, failed)
}
