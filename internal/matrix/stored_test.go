package matrix

import (
	"encoding/json"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
)

func TestPlaceInATokenOfAKnownForm(t *testing.T) {
	for _, test := range []struct {
		name, start string
		before      int
		place       int64
		known       bool
	}{
		{"Synapse", "t9-41136_0_0_0_0_0_0_0_0_0_0_0_0_0", 0, 41136, true},
		{"Synapse, the room alone", "t9-41136", 0, 41136, true},
		{"Synapse, an event from before the join", "t9--17_0_0", 0, -17, true},
		{"Synapse, but the token is another event's", "t9-41136_0_0", 1, 0, false},
		{"Synapse, with the positions of several writers", "m41136~1.41137~2.41139_0_0", 0, 0, false},
		{"Synapse, of a sync", "s41136_0_0", 0, 0, false},
		{"Dendrite", "t9_41136", 1, 41136, true},
		{"Dendrite, where the event before is hidden", "t9_41136", 0, 41136, true},
		{"none", "", 0, 0, false},
		{"a number", "41136", 0, 0, false},
		{"no number", "t9-x", 0, 0, false},
		{"too large a number", "t9_" + strings.Repeat("9", 30), 0, 0, false},
		{"something else", "t9_41136_7", 0, 0, false},
		{"something around it", " t9_41136", 0, 0, false},
	} {
		t.Run(test.name, func(t *testing.T) {
			place, known := Surroundings{Start: test.start, Before: make([]json.RawMessage, test.before)}.Place()
			assert.Equal(t, test.known, known)
			assert.Equal(t, test.place, place)
		})
	}
}

func TestDepthInATokenOfAKnownForm(t *testing.T) {
	for token, depth := range map[string]int64{
		"t9-41136_0_0_0": 9, "t9-41136": 9, "t9--17_0_0": 9, "t9_41136": 10,
		"": 0, "9": 0, "s9_0": 0, "t9": 0, "t9_41136_7": 0, "t-9_41136": 0, " t9_41136": 0, "m9~1.2_0": 0, "t" + strings.Repeat("9", 30) + "_1": 0,
	} {
		assert.Equal(t, depth, depthBefore(token), token)
	}
}

func TestPageAfterATokenOfDendrite(t *testing.T) {
	for end, after := range map[string]string{
		"t9_42136": "t10_41135", "t1_2002": "t2_1001", "t1_1001": "t2_0", "t1_1000": "t1_1000", "t1_7": "t1_7",
		"": "", "t9-41136_0_0_0": "t9-41136_0_0_0", "t9-41136": "t9-41136", "s9_0": "s9_0", "t9_42136_7": "t9_42136_7",
	} {
		assert.Equal(t, after, pageAfter(end), end)
	}
}
