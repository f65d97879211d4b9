package merge_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// sweeping is marked, of a writer that took names away because their time was over.
func sweeping(event id.EventID, time int64, d dict, swept string, parents ...id.EventID) merge.Event {
	e := marked(event, time, d, parents...)
	e.Swept = map[string]bool{swept: true}
	return e
}

func TestSweep(t *testing.T) {
	root := marked("$root", 1, dict{"k": "old", "other": "1"})
	for about, test := range map[string]struct {
		events []merge.Event
		want   dict
		yields merge.Yields
	}{
		"nobody minds": {[]merge.Event{sweeping("$s", 2, dict{"other": "2"}, "k", "$root")}, dict{"other": "2"}, nil},
		"a Put counts, whatever its time": {[]merge.Event{
			sweeping("$s", 9, dict{"other": "2"}, "k", "$root"), marked("$p", 2, dict{"k": "new", "other": "1"}, "$root"),
		}, dict{"k": "new", "other": "2"}, nil},
		"an Update that was stored first counts": {[]merge.Event{
			conditional("$u", 2, dict{"k": "new", "other": "1"}, "$root"), sweeping("$s", 1, dict{"other": "2"}, "k", "$root"),
		}, dict{"k": "new", "other": "2"}, merge.Yields{"$s": {"k"}}},
		"an Update that was stored later is made again": {[]merge.Event{
			sweeping("$s", 9, dict{"other": "2"}, "k", "$root"), conditional("$u", 2, dict{"k": "new", "other": "1"}, "$root"),
		}, dict{"other": "2"}, merge.Yields{"$u": {"k"}}},
		"two who take the same away are no rivals": {[]merge.Event{
			sweeping("$s", 2, dict{"other": "2"}, "k", "$root"), sweeping("$t", 3, dict{"other": "3"}, "k", "$root"),
		}, dict{"other": "3"}, nil},
		"what was put after that counts": {[]merge.Event{
			sweeping("$s", 2, dict{"other": "2"}, "k", "$root"), marked("$p", 3, dict{"k": "new", "other": "2"}, "$s"),
			sweeping("$t", 9, dict{"other": "3"}, "k", "$root"),
		}, dict{"k": "new", "other": "3"}, merge.Yields{"$t": {"k"}}},
	} {
		h := history(root)
		for _, e := range test.events {
			h.Add(e)
		}
		merged := h.Merge()
		assert.Equal(t, test.want, merged.Dict, about)
		assert.Equal(t, test.yields, merged.Yields, about)
		if about == "two who take the same away are no rivals" {
			assert.Empty(t, h.Unplaced(""), "nobody need ask which was stored first")
		}
	}
}

// An Update whose writer was told that it counts beside two sweeps does so also where somebody else has merged one of these alone.
func TestTwoSweepsAndAnUpdate(t *testing.T) {
	root := marked("$root", 1, dict{"k": "old", "other": "1"})
	s2 := sweeping("$s2", 9, dict{"other": "2"}, "k", "$root")               // stored first
	u := conditional("$u", 5, dict{"k": "new", "other": "1"}, "$root")       // then
	s1 := sweeping("$s1", 2, dict{"other": "1", "third": "3"}, "k", "$root") // and then, by a clock that is behind
	whole := history(root)
	for _, e := range []merge.Event{s2, u, s1} {
		whole.Add(e)
	}
	first := whole.Merge()
	some := history(root)
	for _, e := range []merge.Event{s2, u} {
		some.Add(e)
	}
	second := some.Merge()
	m := marked("$m", 10, first.Dict, first.Parents...)
	m.Yields = first.Yields
	z := marked("$z", 11, second.Dict, second.Parents...)
	z.Yields = second.Yields
	whole.Add(m)
	told := whole.Counts("$u", "k", "$m") // what the Update's writer finds once that is there
	whole.Add(z)
	last := whole.Merge()
	assert.Equal(t, told, last.Dict["k"] == "new")
}

// Two took different values of a name away. A request that comes late, from before both, brings nothing back.
func TestSweepsOfDifferentValues(t *testing.T) {
	h := history(marked("$root", 1, dict{"k": "old", "other": "1"}))
	h.Add(conditional("$u", 2, dict{"k": "updated", "other": "1"}, "$root"))
	h.Add(marked("$p", 4, dict{"k": "put", "other": "1"}, "$u"))
	h.Add(sweeping("$s", 3, dict{"other": "2"}, "k", "$root"))
	h.Add(sweeping("$t", 5, dict{"other": "1"}, "k", "$p"))
	merged := h.Merge()
	assert.Equal(t, dict{"other": "2"}, merged.Dict)
	m := marked("$m", 6, merged.Dict, merged.Parents...)
	m.Yields = merged.Yields
	h.Add(m)
	h.Add(marked("$late", 7, dict{"k": "updated", "other": "3"}, "$u"))
	assert.Equal(t, dict{"other": "3"}, h.Merge().Dict)
}
