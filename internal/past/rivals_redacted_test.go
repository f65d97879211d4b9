package past

import (
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
)

// The newest revision is what is there, also where an event between was redacted.
func TestJudgeRivalsBeforeARedactedEvent(t *testing.T) {
	r := roomWith(t, memory.Settings{Layout: memory.OneDict{}})
	for _, last := range []written{{"$4", 15, `{"a":4}`, ids{"$R"}, false}, {id: "$4", at: 15, content: `{"a":4}`}, {"$4", 15, `{"a":4}`, ids{"$R"}, true}} {
		l := line{DictRoom: memory.DictRoom{Room: r}, name: "a"}
		var h merge.History
		for _, w := range []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 20, `{"a":2}`, ids{"$1"}, false}, {"$3", 3, `{"a":3}`, ids{"$1"}, false}, {id: "$R", at: 10}, last} {
			l.events = slices.Insert(l.events, 0, readPast(r, w.event("")))
			h.Add(l.events[0].read)
		}
		found := l.judge(true)
		t.Log(strings.Join(short(found), " "))
		assert.Equal(t, h.Merge().Dict["a"], string(found[0].Stored))
	}
}
