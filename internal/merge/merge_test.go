package merge_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

type dict = map[string]string

// marked is an event of a writer that names parents, with a mark of its own.
func marked(event id.EventID, time int64, d dict, parents ...id.EventID) merge.Event {
	return merge.Event{ID: event, Time: time, Dict: d, Parents: parents, Marked: true, Mark: "mark of " + event.String()}
}

// conditional is marked, with values computed from those before.
func conditional(event id.EventID, time int64, d dict, parents ...id.EventID) merge.Event {
	e := marked(event, time, d, parents...)
	e.Conditional = true
	return e
}

// plain is an event of a writer that names none.
func plain(event id.EventID, time int64, d dict, replaces id.EventID) merge.Event {
	return merge.Event{ID: event, Time: time, Dict: d, Replaces: replaces}
}

// copied is plain with the mark that its writer found in another event.
func copied(event id.EventID, time int64, d dict, replaces, from id.EventID) merge.Event {
	e := plain(event, time, d, replaces)
	e.Mark = "mark of " + from.String()
	return e
}

func history(events ...merge.Event) *merge.History {
	var h merge.History
	for _, e := range events {
		h.Add(e)
	}
	return &h
}

func ids(events []*merge.Event) []id.EventID {
	found := []id.EventID{}
	for _, e := range events {
		found = append(found, e.ID)
	}
	return found
}

func TestEmptyHistory(t *testing.T) {
	var h merge.History
	assert.Empty(t, h.Heads())
	assert.Zero(t, h.Len())
	assert.Empty(t, h.Merge().Dict)
	assert.Empty(t, h.Merge().Parents)
	assert.Empty(t, h.Line("k"))
	assert.Empty(t, h.Missing())
	assert.Empty(t, h.Origin("$a", "k"))
	assert.False(t, h.Open())
	assert.False(t, h.Has("$a"))
	assert.False(t, h.Descends("$a", "$a"))
	assert.False(t, h.Counts("$a", "k", "$b"))
	h.GiveUp()
	h.Prune(0)
}

func TestHeads(t *testing.T) {
	root := marked("$root", 1, dict{})
	twin := marked("$twin", 5, dict{"k": "1"}, "$root")
	twin.Mark = "mark of $a"
	sameParents := marked("$b", 3, dict{"k": "1"}, "$root")
	reverted := marked("$revert", 9, dict{"k": "1"}, "$root") // opsdroid made of $o what $a was, mark and all
	reverted.Mark, reverted.Replaces = "mark of $a", "$o"
	tests := []struct {
		name   string
		events []merge.Event
		heads  []id.EventID
	}{
		{"one", []merge.Event{root}, []id.EventID{"$root"}},
		{"a line", []merge.Event{root, marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$a")}, []id.EventID{"$b"}},
		{"a fork, in the order added", []merge.Event{root, marked("$b", 3, nil, "$root"), marked("$a", 2, nil, "$root")}, []id.EventID{"$b", "$a"}},
		{"a merged fork", []merge.Event{root, marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$root"), marked("$m", 4, nil, "$a", "$b")}, []id.EventID{"$m"}},
		{"what it replaced says nothing of a marked one", []merge.Event{root, marked("$a", 2, nil, "$root"), {ID: "$b", Time: 3, Marked: true, Mark: "b", Parents: []id.EventID{"$root"}, Replaces: "$a"}}, []id.EventID{"$a", "$b"}},
		{"a plain one follows what it replaced", []merge.Event{root, plain("$a", 2, nil, "$root"), plain("$b", 3, nil, "$a")}, []id.EventID{"$b"}},
		{"plain ones that fork", []merge.Event{root, plain("$a", 2, nil, "$root"), plain("$b", 3, nil, "$root")}, []id.EventID{"$a", "$b"}},
		{"a plain first event", []merge.Event{plain("$a", 1, nil, "")}, []id.EventID{"$a"}},
		{"a copied mark tells what was read, not what was replaced", []merge.Event{
			root, marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$a"), copied("$o", 4, nil, "$b", "$a"),
		}, []id.EventID{"$b", "$o"}},
		{"a copy of a copy", []merge.Event{
			root, marked("$a", 2, nil, "$root"), copied("$o", 3, nil, "$a", "$a"), copied("$p", 4, nil, "$o", "$a"),
		}, []id.EventID{"$p"}},
		{"a copy of a copy that raced", []merge.Event{
			root, marked("$a", 2, nil, "$root"), copied("$o", 3, nil, "$a", "$a"), marked("$b", 4, nil, "$o"), copied("$p", 5, nil, "$b", "$a"),
		}, []id.EventID{"$b", "$p"}},
		{"an opsdroid that undoes what an opsdroid did", []merge.Event{
			root, marked("$a", 2, dict{"k": "1"}, "$root"), copied("$o", 3, dict{"k": "2"}, "$a", "$a"), reverted,
		}, []id.EventID{"$revert"}},
		{"sent twice", []merge.Event{root, marked("$a", 2, dict{"k": "1"}, "$root"), twin}, []id.EventID{"$twin"}},
		{"the same of two writers is two events", []merge.Event{root, marked("$a", 2, dict{"k": "1"}, "$root"), sameParents}, []id.EventID{"$a", "$b"}},
		{"parents that are not there", []merge.Event{marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$root")}, []id.EventID{"$a", "$b"}},
		{"a parent named twice, and itself", []merge.Event{root, marked("$a", 2, nil, "$root", "$root", "$a")}, []id.EventID{"$a"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { assert.Equal(t, test.heads, ids(history(test.events...).Heads())) })
	}
}

func TestDescends(t *testing.T) {
	h := history(
		marked("$root", 1, nil), marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$root"), marked("$c", 4, nil, "$a"),
		marked("$m", 5, nil, "$b", "$c"),
	)
	descends := map[id.EventID][]id.EventID{
		"$root": {"$root"}, "$a": {"$a", "$root"}, "$b": {"$b", "$root"}, "$c": {"$c", "$a", "$root"}, "$m": {"$m", "$a", "$b", "$c", "$root"},
	}
	for event, past := range descends {
		for from := range descends {
			assert.Equal(t, slices.Contains(past, from), h.Descends(event, from), "%s from %s", event, from)
		}
		assert.False(t, h.Descends(event, "$unknown"))
		assert.False(t, h.Descends("$unknown", event))
	}
}

// A long history has more events than a word has bits.
func TestLongHistory(t *testing.T) {
	h := history(marked("$0", 0, dict{"k": "0"}))
	for i := range 2000 {
		h.Add(marked(id.EventID(fmt.Sprint("$", i+1)), int64(i+1), dict{"k": fmt.Sprint(i + 1)}, id.EventID(fmt.Sprint("$", i))))
	}
	assert.Equal(t, []id.EventID{"$2000"}, ids(h.Heads()))
	assert.True(t, h.Descends("$2000", "$0"))
	assert.False(t, h.Descends("$65", "$66"))
	assert.True(t, h.Counts("$1", "k", "$2000"))
}

func TestMissing(t *testing.T) {
	a, b := marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$a")
	partial := merge.Event{ID: "$x", Time: 4, Partial: true}
	tests := []struct {
		name    string
		events  []merge.Event
		missing []id.EventID
		open    bool
	}{
		{"a line with an unknown beginning", []merge.Event{a, b}, nil, false},
		{"a fork after one unknown beginning", []merge.Event{a, b, marked("$c", 3, nil, "$a")}, nil, false},
		{"a fork at an unknown event", []merge.Event{a, marked("$c", 3, nil, "$root")}, []id.EventID{"$root", "$root"}, true},
		{"a head that is its own beginning", []merge.Event{a, marked("$c", 3, nil)}, []id.EventID{"$root"}, true},
		{"a merge of something unknown", []merge.Event{marked("$root", 1, nil), a, marked("$m", 4, nil, "$a", "$other"), marked("$c", 4, nil, "$a")}, []id.EventID{"$other"}, true},
		{"one head over two unknown events", []merge.Event{a, marked("$c", 3, nil, "$other"), marked("$m", 4, nil, "$a", "$c")}, nil, true},
		{"a plain event whose predecessor is not known", []merge.Event{marked("$root", 1, nil), a, partial}, []id.EventID{"unknown, before $x"}, true},
		{"a copied mark whose original is out of sight", []merge.Event{marked("$b", 3, nil, "$root"), copied("$o", 4, nil, "$b", "$a")}, []id.EventID{"$root", "unknown, before $o"}, true},
		{"everything there", []merge.Event{marked("$root", 1, nil), a, marked("$c", 3, nil, "$root")}, nil, false},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			h := history(test.events...)
			assert.Equal(t, test.missing, h.Missing())
			assert.Equal(t, test.open, h.Open())
			heads := ids(h.Heads())
			h.GiveUp()
			assert.Empty(t, h.Missing())
			assert.False(t, h.Open())
			if test.name != "a copied mark whose original is out of sight" {
				assert.Equal(t, heads, ids(h.Heads()))
			}
		})
	}
}

// Dendrite leaves out what an event replaced, and names what is no event of the dict: then it is the one listed before.
func TestListedBefore(t *testing.T) {
	silent := history(marked("$a", 1, dict{"a": "1"}), plain("$b", 3, dict{"b": "1"}, ""), plain("$c", 2, dict{"c": "1"}, ""))
	assert.Equal(t, []id.EventID{"$c"}, ids(silent.Heads()), "whatever the times")
	assert.Empty(t, silent.Missing())
	silent.AddOlder(plain("$before", 9, dict{"k": "1"}, ""))
	assert.True(t, silent.Descends("$c", "$b"))
	assert.False(t, silent.Descends("$a", "$before"), "which names its parents, and has none")

	elsewhere := history(marked("$a", 1, dict{"a": "1"}), plain("$b", 2, dict{"b": "1"}, "$elsewhere"))
	assert.Equal(t, []id.EventID{"$elsewhere"}, elsewhere.Missing(), "it can still turn up")
	assert.Equal(t, []id.EventID{"$a", "$b"}, ids(elsewhere.Heads()))
	elsewhere.GiveUp()
	assert.Equal(t, []id.EventID{"$b"}, ids(elsewhere.Heads()))
	assert.Equal(t, dict{"b": "1"}, elsewhere.Merge().Dict)
	assert.False(t, elsewhere.ParentGivenUp("$b"))

	partial := history(plain("$c", 3, dict{"c": "1"}, ""))
	partial.AddOlder(plain("$b", 2, dict{"b": "1"}, ""))
	partial.Add(merge.Event{ID: "$d", Time: 4, Partial: true})
	assert.Equal(t, []id.EventID{"unknown, before $d"}, partial.Missing(), "an event that was not listed has no place yet")
	partial.Add(plain("$d", 4, dict{"d": "1"}, ""))
	assert.Equal(t, []id.EventID{"$d"}, ids(partial.Heads()))
}

func TestParentGivenUp(t *testing.T) {
	h := history(marked("$a", 1, dict{"k": "a"}), marked("$b", 9, dict{"k": "b"}, "$lost"))
	assert.False(t, h.ParentGivenUp("$b"))
	h.GiveUp()
	assert.True(t, h.ParentGivenUp("$b"))
	assert.False(t, h.ParentGivenUp("$a"))
	assert.False(t, h.ParentGivenUp("$unknown"))
	assert.Equal(t, "a", h.Merge().Dict["k"], "what may have been there all the time counts after what has changed")
}

// A copied mark whose first event is out of sight: what the copier had read is unknown, and not what it replaced.
func TestCopiedMarkOfUnknownEvent(t *testing.T) {
	h := history(marked("$b", 3, dict{"b": "1"}, "$a"), copied("$o", 4, dict{"o": "1"}, "$b", "$a"))
	assert.True(t, h.Open())
	h.AddOlder(marked("$a", 2, dict{}))
	assert.False(t, h.Open())
	assert.Equal(t, dict{"b": "1", "o": "1"}, h.Merge().Dict)
}

func TestGiveUpKeepsAllValues(t *testing.T) {
	h := history(marked("$a", 2, dict{"a": "1", "k": "old"}, "$x"), marked("$b", 3, dict{"b": "1", "k": "new"}, "$y"))
	h.GiveUp()
	assert.Equal(t, dict{"a": "1", "b": "1", "k": "new"}, h.Merge().Dict)
}

func TestPartialIsCompleted(t *testing.T) {
	root := marked("$root", 1, dict{"k": "1"})
	partial := merge.Event{ID: "$o", Time: 3, Dict: dict{"k": "2"}, Partial: true}
	h := history(root, marked("$a", 2, dict{"k": "1", "a": "1"}, "$root"), partial)
	assert.Len(t, h.Heads(), 2)
	assert.False(t, h.Add(partial), "nothing new")
	assert.True(t, h.Add(plain("$o", 3, dict{"k": "2"}, "$root")))
	assert.False(t, h.Add(partial), "what is known stays known")
	assert.Empty(t, h.Missing())
	assert.Equal(t, dict{"k": "2", "a": "1"}, h.Merge().Dict)
}

func TestPrune(t *testing.T) {
	line := []merge.Event{marked("$0", 0, dict{"k": "0"})}
	for i := range 9 {
		line = append(line, marked(id.EventID(fmt.Sprint("$", i+1)), int64(i+1), dict{"k": fmt.Sprint(i + 1)}, id.EventID(fmt.Sprint("$", i))))
	}
	h := history(line...)
	h.Prune(5)
	assert.Equal(t, 10, h.Len(), "not more than twice as many")
	h.Prune(4)
	assert.Equal(t, 4, h.Len())
	assert.Equal(t, []id.EventID{"$9"}, ids(h.Heads()))
	assert.False(t, h.Has("$5"))
	assert.Equal(t, dict{"k": "9"}, h.Merge().Dict)
	assert.False(t, h.Open())
	h.Add(marked("$fork", 10, dict{"k": "7", "f": "1"}, "$7"))
	assert.Empty(t, h.Missing())
	assert.Equal(t, dict{"k": "9", "f": "1"}, h.Merge().Dict)
	h.Prune(1)
	assert.Equal(t, 5, h.Len(), "heads are to be merged first")
}

func TestRedaction(t *testing.T) {
	h := history(marked("$a", 1, dict{"k": "1"}), plain("$b", 2, dict{"k": "2"}, "$a"))
	assert.True(t, h.Add(plain("$b", 2, dict{}, "$a")))
	assert.Empty(t, h.Merge().Dict)
	assert.False(t, h.Add(plain("$b", 2, dict{}, "$a")))
	assert.False(t, h.Add(plain("$b", 2, dict{"k": "2"}, "$a")), "what was redacted does not come back")
	assert.Empty(t, h.Merge().Dict)
}

// Only a homeserver that lies can make a circle.
func TestCircles(t *testing.T) {
	circles := map[string][]merge.Event{
		"itself":       {marked("$a", 1, dict{"k": "1"}, "$a")},
		"each other":   {marked("$a", 1, dict{"k": "1"}, "$b"), marked("$b", 2, dict{"k": "2"}, "$a")},
		"three":        {marked("$a", 1, dict{"k": "1"}, "$c"), marked("$b", 2, nil, "$a"), marked("$c", 3, dict{"c": "1"}, "$b", "$a")},
		"plain":        {plain("$a", 1, dict{"k": "1"}, "$b"), plain("$b", 1, dict{"k": "2"}, "$a")},
		"copied marks": {copied("$a", 1, nil, "$b", "$x"), copied("$b", 2, dict{"k": "2"}, "$a", "$x"), copied("$x", 3, nil, "$b", "$x")},
	}
	for name, events := range circles {
		t.Run(name, func(t *testing.T) {
			var first merge.Merged
			for i := range 2 {
				h := history(events...)
				assert.NotEmpty(t, h.Heads())
				if merged := h.Merge(); i == 0 {
					first = merged
				} else {
					assert.Equal(t, first, merged, "whatever the order of events")
				}
				for _, e := range events {
					h.Counts(e.ID, "k", "$a")
					h.Origin(e.ID, "k")
				}
				h.Missing()
				h.GiveUp()
				h.Prune(1)
				slices.Reverse(events)
			}
		})
	}
}

func TestMerge(t *testing.T) {
	root := marked("$root", 1, dict{"k": "0", "gone": "0"})
	tests := []struct {
		name   string
		events []merge.Event
		want   dict
	}{
		{"keys apart", []merge.Event{marked("$a", 2, dict{"k": "0", "gone": "0", "a": "1"}, "$root"), marked("$b", 3, dict{"k": "0", "gone": "0", "b": "1"}, "$root")}, dict{"k": "0", "gone": "0", "a": "1", "b": "1"}},
		{"a deletion and a change apart", []merge.Event{marked("$a", 2, dict{"k": "0"}, "$root"), marked("$b", 3, dict{"k": "1", "gone": "0"}, "$root")}, dict{"k": "1"}},
		{"deleted twice", []merge.Event{marked("$a", 2, dict{"k": "0"}, "$root"), marked("$b", 3, dict{"k": "0"}, "$root")}, dict{"k": "0"}},
		{"the latest put", []merge.Event{marked("$b", 3, dict{"k": "b"}, "$root"), marked("$a", 2, dict{"k": "a"}, "$root")}, dict{"k": "b"}},
		{"at one time the later ID", []merge.Event{marked("$b", 2, dict{"k": "b"}, "$root"), marked("$a", 2, dict{"k": "a"}, "$root")}, dict{"k": "b"}},
		{"a later deletion", []merge.Event{marked("$a", 2, dict{"k": "a"}, "$root"), marked("$b", 3, dict{}, "$root")}, dict{}},
		{"a later put after a deletion", []merge.Event{marked("$a", 2, dict{}, "$root"), marked("$b", 3, dict{"k": "b"}, "$root")}, dict{"k": "b"}},
		{"a put before a conditional", []merge.Event{marked("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root")}, dict{"k": "a"}},
		{"a put after a conditional", []merge.Event{conditional("$a", 2, dict{"k": "a"}, "$root"), marked("$b", 3, dict{"k": "b"}, "$root")}, dict{"k": "b"}},
		{"a change of what another head holds unchanged", []merge.Event{marked("$a", 2, dict{"k": "a", "gone": "0"}, "$root"), marked("$b", 9, dict{"k": "0", "gone": "0", "b": "1"}, "$root")}, dict{"k": "a", "gone": "0", "b": "1"}},
		{"a later value back to the first", []merge.Event{marked("$a", 2, dict{"k": "a", "gone": "0"}, "$root"), marked("$b", 3, dict{"k": "0", "gone": "0"}, "$a"), marked("$c", 4, dict{"k": "0", "gone": "0", "c": "1"}, "$root")}, dict{"k": "0", "gone": "0", "c": "1"}},
		{"a choice counts against what it left", []merge.Event{
			marked("$a", 2, dict{"k": "a"}, "$root"), marked("$b", 3, dict{"k": "b"}, "$root"),
			marked("$m", 4, dict{"k": "b"}, "$a", "$b"), marked("$c", 5, dict{"k": "a", "c": "1"}, "$a"),
		}, dict{"k": "b", "c": "1"}},
		{"a deletion does not come back by a merge", []merge.Event{
			marked("$a", 2, dict{}, "$root"), marked("$b", 3, dict{"k": "0", "gone": "0", "b": "1"}, "$root"),
			marked("$m", 4, dict{"b": "1"}, "$a", "$b"), marked("$c", 5, dict{"k": "0", "gone": "0", "b": "1", "c": "1"}, "$b"),
		}, dict{"b": "1", "c": "1"}},
		{"a change by a slow clock", []merge.Event{
			marked("$a", 9, dict{"k": "a", "gone": "0"}, "$root"), marked("$b", 5, dict{"k": "b", "gone": "0"}, "$a"),
			marked("$c", 10, dict{"k": "a", "gone": "0", "c": "1"}, "$a"),
		}, dict{"k": "b", "gone": "0", "c": "1"}},
		{"sent again after another's put", []merge.Event{
			marked("$a", 2, dict{"k": "a", "gone": "0"}, "$root"), marked("$b", 3, dict{"k": "b", "gone": "0"}, "$a"),
			{ID: "$again", Time: 4, Dict: dict{"k": "a", "gone": "0"}, Parents: []id.EventID{"$root"}, Marked: true, Mark: "mark of $a", Replaces: "$b"},
		}, dict{"k": "b", "gone": "0"}},
		{"a put within a conditional event's merge", []merge.Event{
			conditional("$a", 2, dict{"k": "a", "gone": "0"}, "$root"), marked("$b", 3, dict{"k": "b", "gone": "0"}, "$root"),
			conditional("$m", 4, dict{"k": "b", "gone": "m"}, "$a", "$b"),
		}, dict{"k": "b", "gone": "m"}},
		{"a put on top of a conditional that began last", []merge.Event{
			conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root"), marked("$c", 4, dict{"k": "c"}, "$b"),
		}, dict{"k": "c"}},
		{"a conditional on top of the latest put", []merge.Event{
			marked("$a", 2, dict{"k": "a"}, "$root"), marked("$b", 3, dict{"k": "b"}, "$root"), conditional("$c", 4, dict{"k": "c"}, "$b"),
			conditional("$d", 5, dict{"k": "d"}, "$a"),
		}, dict{"k": "c"}},
		{"the latest put of a branch, not its last change", []merge.Event{
			marked("$a", 9, dict{"k": "a"}, "$root"), marked("$a2", 3, dict{"k": "a2"}, "$a"), marked("$b", 5, dict{"k": "b"}, "$root"),
		}, dict{"k": "a2"}},
		{"a second fork within the branch that counts", []merge.Event{
			conditional("$a", 2, dict{"k": "a"}, "$root"), marked("$b", 3, dict{"k": "b"}, "$a"), marked("$c", 4, dict{"k": "c"}, "$a"),
			marked("$d", 3, dict{"k": "d"}, "$root"),
		}, dict{"k": "c"}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			events := append(slices.Clone(test.events), root)
			for range 10 {
				assert.Equal(t, test.want, history(events...).Merge().Dict)
				rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			}
		})
	}
}

func TestMergedParents(t *testing.T) {
	h := history(marked("$root", 1, nil), marked("$c", 4, nil, "$root"), marked("$a", 2, nil, "$root"), marked("$b", 3, nil, "$root"))
	assert.Equal(t, []id.EventID{"$a", "$b", "$c"}, h.Merge().Parents)
	assert.Equal(t, []id.EventID{"$a", "$b", "$c"}, h.Merge().Parents, "whoever merges")
	without, ok := h.MergeWithout([]id.EventID{"$a"})
	assert.True(t, ok)
	assert.Equal(t, []id.EventID{"$a", "$b", "$c"}, without.Parents)
}

func TestMergeWithout(t *testing.T) {
	root, a, b := marked("$root", 1, dict{}), marked("$a", 2, dict{"a": "1"}, "$root"), marked("$b", 3, dict{"b": "1"}, "$root")
	own := marked("$own", 4, dict{"b": "1", "own": "1"}, "$b")
	tests := []struct {
		name    string
		h       *merge.History
		without []id.EventID
		want    dict // nil where that cannot be
	}{
		{"a head", history(root, a, b), []id.EventID{"$b"}, dict{"a": "1"}},
		{"the other one", history(root, a, b), []id.EventID{"$a"}, dict{"b": "1"}},
		{"what was made from another's", history(root, a, b, own), []id.EventID{"$own"}, dict{"a": "1", "b": "1"}},
		{"several", history(root, a, b, own), []id.EventID{"$own", "$b"}, dict{"a": "1"}},
		{"what another has gone on from", history(root, a, b, own), []id.EventID{"$b"}, nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			merged, ok := test.h.MergeWithout(test.without)
			assert.Equal(t, test.want != nil, ok)
			assert.Equal(t, test.want, dict(merged.Dict))
		})
	}
}

// Among conditional changes the one listed first counts where it is not known which was stored first, for its writer may have seen no other, but a merging
// writer's own counts after them all, for nobody has been told of it.
func TestFirstListed(t *testing.T) {
	root := marked("$root", 1, dict{})
	a, b := conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root")
	tests := []struct {
		name   string
		h      *merge.History
		want   string
		line   id.EventID
		yields merge.Yields
	}{
		{"the first listed", history(root, a, b), "a", "$a", merge.Yields{"$b": {"k"}}},
		{"whatever its time", history(root, b, a), "b", "$b", merge.Yields{"$a": {"k"}}},
		{"a change of the first", history(root, a, conditional("$own", 5, dict{"k": "own"}, "$a"), b), "own", "$own", merge.Yields{"$b": {"k"}}},
		{"the branch that began first", history(root, a, b, conditional("$a2", 9, dict{"k": "a2"}, "$a")), "a2", "$a2", merge.Yields{"$b": {"k"}}},
		{"a put that was stored later", history(root, a, marked("$p", 1, dict{"k": "p"}, "$root")), "p", "$p", nil},
		{"a put that was stored before", history(root, marked("$p", 1, dict{"k": "p"}, "$root"), a), "p", "$p", merge.Yields{"$a": {"k"}}},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) {
			merged := test.h.Merge()
			assert.Equal(t, test.want, merged.Dict["k"])
			assert.Equal(t, test.yields, merged.Yields)
			assert.Equal(t, test.line, test.h.Line("k"))
		})
	}
}

// Where the order of storage is known, that counts: the first listed was stored when the writer of the other had looked
// back already.
func TestFirstStored(t *testing.T) {
	root := marked("$root", 1, dict{})
	late, early := conditional("$late", 2, dict{"k": "late"}, "$root"), conditional("$early", 3, dict{"k": "early"}, "$root")
	h := history(root, late, early)
	assert.Equal(t, []id.EventID{"$late", "$early"}, h.Unplaced(""))
	h.Place("$late", 8, true)
	assert.Equal(t, []id.EventID{"$early"}, h.Unplaced(""))
	assert.Equal(t, "late", h.Merge().Dict["k"], "one place by itself says nothing")
	h.Place("$early", 7, true)
	h.Place("$unknown", 1, true)
	assert.Empty(t, h.Unplaced(""))
	merged := h.Merge()
	assert.Equal(t, "early", merged.Dict["k"])
	assert.Equal(t, merge.Yields{"$late": {"k"}}, merged.Yields)

	untold := history(root, late, early)
	for _, event := range untold.Unplaced("") {
		untold.Place(event, 0, false)
	}
	assert.Empty(t, untold.Unplaced(""), "nobody is asked twice")
	assert.Equal(t, "late", untold.Merge().Dict["k"])
}

// No place is asked for that decides nothing.
func TestUnplaced(t *testing.T) {
	root := marked("$root", 1, dict{})
	a, b := conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root")
	choice := func(event id.EventID, yields id.EventID) merge.Event {
		m := marked(event, 5, dict{"k": map[id.EventID]string{"$a": "b", "$b": "a"}[yields], event.String(): "1"}, "$a", "$b")
		m.Yields = merge.Yields{yields: {"k"}}
		return m
	}
	twin := a
	twin.ID = "$twin"
	tests := []struct {
		name string
		h    *merge.History
		own  id.EventID
		want []id.EventID
	}{
		{"nothing there", history(), "", nil},
		{"one after the other", history(root, a, conditional("$c", 3, dict{"k": "c"}, "$a")), "$c", nil},
		{"other names", history(root, a, conditional("$c", 3, dict{"c": "c"}, "$root")), "$c", nil},
		{"puts", history(root, marked("$p", 3, dict{"k": "p"}, "$root"), marked("$q", 4, dict{"k": "q"}, "$root")), "$q", nil},
		{"a put and what has not seen it", history(root, a, marked("$p", 3, dict{"k": "p"}, "$root")), "$p", []id.EventID{"$a", "$p"}},
		{"what has been decided", history(root, a, b, choice("$m", "$b"), marked("$n", 6, dict{"n": "1"}, "$root")), "$n", nil},
		{"decided twice, and the same", history(root, a, b, choice("$m", "$b"), choice("$n", "$b")), "$n", nil},
		{"decided twice", history(root, a, b, choice("$m", "$b"), choice("$n", "$a")), "$n", []id.EventID{"$m", "$n"}},
		{"one that was sent twice", history(root, a, b, twin), "", []id.EventID{"$a", "$b", "$twin"}},
		{"sent twice, and the last is merged", history(root, a, twin, marked("$x", 9, dict{"x": "1"}, "$twin")), "$twin", nil},
		{"sent twice, and the last is listed first", history(root, twin, a, marked("$x", 9, dict{"x": "1"}, "$a")), "$twin", []id.EventID{"$a", "$twin"}},
		{"which another sent", history(root, twin, a, marked("$x", 9, dict{"x": "1"}, "$a")), "$x", nil},
	}
	for _, test := range tests {
		t.Run(test.name, func(t *testing.T) { assert.ElementsMatch(t, test.want, test.h.Unplaced(test.own)) })
	}
}

// What an event was made from can have rivals that are not known, where nothing older was listed.
func TestUnverified(t *testing.T) {
	unverified := func(h *merge.History, event id.EventID, oneName bool) (events []id.EventID) {
		for _, e := range h.Unverified(event, oneName) {
			events = append(events, e.ID)
		}
		return events
	}
	root, a := conditional("$root", 1, dict{}), conditional("$a", 2, dict{"k": "a"}, "$root")
	own := conditional("$own", 3, dict{"k": "own"}, "$a")
	current := a
	current.Partial = true

	h := history(current, own)
	assert.Equal(t, []id.EventID{"$a"}, unverified(h, "$own", false))
	assert.Empty(t, unverified(h, "", false), "whoever wrote the head has verified what came before it")
	h.Add(a)
	assert.Equal(t, []id.EventID{"$a"}, unverified(h, "$own", false), "it has been listed, and what was before it has not")
	h.AddOlder(root)
	assert.Empty(t, unverified(h, "$own", false))
	assert.Equal(t, []id.EventID{"$root"}, unverified(h, "$a", false), "others can have begun from nothing too")

	h = history(current)
	assert.Equal(t, []id.EventID{"$a"}, unverified(h, "", false))
	h.Verify("$a")
	assert.Empty(t, unverified(h, "", false))

	var known merge.History
	known.Rooted()
	known.Add(root)
	assert.Empty(t, unverified(&known, "", false), "nothing was there before")

	h = history(root, plain("$plain", 2, dict{"k": "p"}, "$root"))
	assert.Equal(t, []id.EventID{"$root"}, unverified(h, "", false), "a writer that names no parents has verified nothing")
	assert.Empty(t, unverified(h, "", true), "nothing matters that it has replaced")
}

// A merge that two writers made can become current when it is stored again, and then hides what came after it, wherever
// it is listed.
func TestTwinStoredLast(t *testing.T) {
	root := marked("$root", 1, dict{"k": "0"})
	twin, first := marked("$twin", 2, dict{"k": "1"}, "$root"), marked("$first", 3, dict{"k": "1"}, "$root")
	twin.Mark, first.Mark = "same", "same"
	h := history(root, twin, first, marked("$x", 4, dict{"k": "2"}, "$first"))
	assert.Equal(t, []id.EventID{"$x"}, ids(h.Heads()))
	h.Place("$first", 1, true)
	h.Place("$twin", 3, true)
	assert.ElementsMatch(t, []id.EventID{"$x", "$twin"}, ids(h.Heads()))
	assert.Equal(t, "2", h.Merge().Dict["k"])
}

// What a merge chose stays chosen, in whatever order its events are listed elsewhere, and however late another comes.
func TestYields(t *testing.T) {
	m := marked("$m", 5, dict{"k": "b"}, "$a", "$b")
	m.Yields = merge.Yields{"$a": {"k"}}
	events := []merge.Event{
		marked("$root", 1, dict{}), conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root"), m,
		marked("$x", 6, dict{"k": "a", "x": "1"}, "$a"),
	}
	for range 20 {
		h := history(events...)
		merged := h.Merge()
		assert.Equal(t, dict{"k": "b", "x": "1"}, merged.Dict)
		assert.Equal(t, id.EventID("$b"), h.Origin("$m", "k"))
		assert.True(t, h.Counts("$b", "k", "$m"))
		assert.False(t, h.Counts("$a", "k", "$m"))
		rand.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	}
}

// An event that loses under one name can count under another: its writer makes again what did not.
func TestYieldsByName(t *testing.T) {
	events := []merge.Event{
		marked("$root", 1, dict{}), conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$both", 3, dict{"k": "both", "l": "both"}, "$root"),
		conditional("$c", 4, dict{"l": "c"}, "$root"),
	}
	merged := history(events...).Merge()
	assert.Equal(t, merge.Yields{"$both": {"k"}, "$c": {"l"}}, merged.Yields)
	assert.Equal(t, dict{"k": "a", "l": "both"}, merged.Dict)

	m := marked("$m", 5, merged.Dict, merged.Parents...)
	m.Yields = merged.Yields
	h := history(append(events, m)...)
	assert.False(t, h.Counts("$both", "k", "$m"))
	assert.True(t, h.Counts("$both", "l", "$m"))
}

// Merging is not a put: a merge that chose between conditional changes does not count against a conditional change that
// was there first.
func TestChoiceBetweenConditionals(t *testing.T) {
	h := history(
		marked("$root", 1, dict{}), conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root"),
		conditional("$c", 4, dict{"k": "c"}, "$a", "$b"), marked("$m", 5, dict{"k": "a"}, "$a", "$b"),
	)
	assert.Equal(t, "c", h.Merge().Dict["k"])
}

func TestOrigin(t *testing.T) {
	h := history(
		marked("$root", 1, dict{"k": "0", "gone": "0"}), marked("$a", 2, dict{"k": "1", "gone": "0"}, "$root"),
		marked("$b", 3, dict{"k": "0", "b": "1"}, "$root"), marked("$m", 4, dict{"k": "1", "b": "1"}, "$a", "$b"),
		marked("$own", 5, dict{"k": "own", "b": "1"}, "$m"),
	)
	for _, test := range []struct {
		event  id.EventID
		name   string
		origin id.EventID
	}{
		{"$root", "k", "$root"}, {"$a", "k", "$a"}, {"$b", "k", "$root"}, {"$m", "k", "$a"}, {"$m", "b", "$b"}, {"$m", "gone", "$b"},
		{"$own", "k", "$own"}, {"$own", "never", ""}, {"$unknown", "k", ""},
	} {
		assert.Equal(t, test.origin, h.Origin(test.event, test.name), "%s at %s", test.name, test.event)
	}
}

func TestCounts(t *testing.T) {
	h := history(
		marked("$root", 1, dict{}), conditional("$a", 2, dict{"k": "1"}, "$root"), conditional("$b", 3, dict{"k": "1"}, "$root"),
		conditional("$m", 4, dict{"k": "2"}, "$a", "$b"), marked("$end", 5, dict{"k": "2", "x": "1"}, "$m"),
	)
	for _, test := range []struct {
		event, in id.EventID
		counts    bool
	}{
		{"$a", "$a", true}, {"$a", "$m", true}, {"$a", "$end", true}, {"$m", "$end", true}, {"$root", "$end", true},
		{"$b", "$b", true}, {"$b", "$m", false}, {"$b", "$end", false}, {"$a", "$b", false}, {"$end", "$a", false},
		{"$unknown", "$end", false}, {"$a", "$unknown", false},
	} {
		assert.Equal(t, test.counts, h.Counts(test.event, "k", test.in), "%s in %s", test.event, test.in)
	}
}

// The order in which events were added decides nothing between changes that are not conditional, and whose parents
// are known.
func TestOrderOfAdding(t *testing.T) {
	for seed := range uint64(300) {
		rng := rand.New(rand.NewPCG(seed, 0))
		events := randomEvents(rng)
		for i := range events {
			if e := &events[i]; !e.Marked {
				e.Marked, e.Parents = true, []id.EventID{e.Replaces}
			}
			events[i].Mark, events[i].Conditional = events[i].ID.String(), false
		}
		want := history(events...).Merge()
		for range 5 {
			rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
			var h merge.History
			for i, e := range events {
				if h.Add(e); i%3 == 0 {
					h.Merge() // what was worked out before the rest was known does not linger
				}
			}
			assert.Equal(t, want, h.Merge(), "seed %d", seed)
		}
	}
}

// randomEvents is a dozen of events of any sort. Their values tell their order of making.
func randomEvents(rng *rand.Rand) []merge.Event {
	var events []merge.Event
	for i := range 12 {
		e := merge.Event{ID: id.EventID(fmt.Sprint("$", i)), Time: int64(i / 2), Dict: dict{}, Conditional: rng.IntN(2) == 0}
		e.Marked = rng.IntN(2) == 0
		if e.Mark = fmt.Sprint(rng.IntN(9)); e.Mark == "0" {
			e.Mark = ""
		}
		for range rng.IntN(4) {
			e.Dict[fmt.Sprint(rng.IntN(3))] = fmt.Sprint(rng.IntN(12))
			e.Parents = append(e.Parents, id.EventID(fmt.Sprint("$", rng.IntN(i+2))))
		}
		e.Replaces = id.EventID(fmt.Sprint("$", rng.IntN(12)))
		events = append(events, e)
	}
	return events
}

// A look back lists again what was pruned: it must not count as newer than what is known.
func TestPrunedComesBack(t *testing.T) {
	ev := func(i int) merge.Event {
		if i == 4 {
			return plain("$4", 4, dict{"k": "4"}, "")
		}
		return marked(id.EventID(fmt.Sprint("$", i)), int64(i), dict{"k": fmt.Sprint(i)}, id.EventID(fmt.Sprint("$", i-1)))
	}
	var h merge.History
	for i := range 10 {
		h.Add(ev(i))
	}
	h.Prune(4)
	var page []merge.Event
	for i := 10; i >= 4; i-- {
		page = append(page, ev(i))
	}
	h.AddPage(page, h.Now())
	assert.Equal(t, []id.EventID{"$10"}, ids(h.Heads()))
	assert.Equal(t, dict{"k": "10"}, h.Merge().Dict)
}

// What the homeserver gives as current after a later event is listed before that, and so is what is older than both.
func TestCurrentIsListedBefore(t *testing.T) {
	first := merge.Event{ID: "$first", Time: 1, Dict: dict{"k": "first"}, Blind: true, Mark: "first"}
	a, b := conditional("$a", 2, dict{"k": "a"}, "$first"), conditional("$b", 3, dict{"k": "b"}, "$first")
	h := history(b)
	current := a
	current.Partial = true
	h.Add(current)
	h.AddPage([]merge.Event{b, a, first}, h.Now())
	assert.Equal(t, []id.EventID{"$a", "$b"}, ids(h.Heads()))
	assert.Equal(t, "a", h.Merge().Dict["k"], "which was stored first")
}

// What is current is read first, and listed after a rival.
func TestCurrentIsListedLater(t *testing.T) {
	root, a, b := marked("$root", 1, dict{}), conditional("$a", 2, dict{"k": "a"}, "$root"), conditional("$b", 3, dict{"k": "b"}, "$root")
	current := b
	current.Partial = true
	h := history(current)
	h.AddPage([]merge.Event{b, a, root}, h.Now())
	assert.Equal(t, "a", h.Merge().Dict["k"])
}

// What the homeserver has left out of the state does not count in the merge, and everybody can tell so by the merge alone.
func TestMergeTellsWhatItLeavesOut(t *testing.T) {
	a, b := conditional("$a", 1, dict{"k": "a"}), conditional("$b", 2, dict{"k": "b", "other": "b"})
	h := history(a, b)
	h.Drop("$a")
	merged := h.Merge()
	assert.Equal(t, dict{"k": "b", "other": "b"}, merged.Dict)
	assert.Equal(t, []id.EventID{"$a", "$b"}, merged.Parents)
	assert.Equal(t, merge.Yields{"$a": {"k"}}, merged.Yields)
	m := marked("$m", 3, merged.Dict, merged.Parents...)
	m.Yields = merged.Yields
	for _, h := range []*merge.History{h, history(a, b)} {
		h.Add(m)
		assert.True(t, h.WillCount("$b", "k"), "it is not made again")
		assert.False(t, h.WillCount("$a", "k"))
	}
}

// Two conditional changes are rivals, and a merge finds that the later one does not count. That holds also where the value that both had changed
// was put and deleted since, and the merge is not on the way from there.
func TestWhatAMergeHasFoundHolds(t *testing.T) {
	blind := func(event id.EventID, time int64, d dict) merge.Event {
		return merge.Event{ID: event, Time: time, Dict: d, Blind: true, Mark: "blind " + event.String()}
	}
	found := marked("$found", 6, dict{"k": "put"}, "$first", "$put")
	found.Yields = merge.Yields{"$second": {"k"}}
	h := history(
		conditional("$root", 1, dict{"k": "root"}), conditional("$first", 2, dict{"k": "first"}, "$root"), conditional("$second", 3, dict{"k": "second"}, "$root"),
		blind("$put", 4, dict{"k": "put"}), blind("$delete", 5, dict{}), found, marked("$end", 7, dict{}, "$delete", "$found"),
	)
	assert.False(t, h.WillCount("$second", "k"))
}

// The homeserver's clock is set back after the current event was read: what is made from that has an earlier time, and is newer all the same.
func TestNewerByAClockThatWasSetBack(t *testing.T) {
	first := merge.Event{ID: "$first", Time: 10, Dict: dict{"k": "first"}, Blind: true, Mark: "first"}
	a, b, c := marked("$a", 11, dict{"k": "a"}, "$first"), marked("$b", 5, dict{"k": "b"}, "$a"), marked("$c", 6, dict{"k": "c"}, "$b")
	current := first
	current.Partial = true
	h := history(current)
	for _, e := range []merge.Event{a, b, c} { // as a sync brings them
		h.AddPage([]merge.Event{e}, h.Now())
	}
	h.AddPage([]merge.Event{c, b, a, first}, h.Now())
	assert.Equal(t, []id.EventID{"$c"}, ids(h.Heads()))
	assert.Equal(t, "c", h.Merge().Dict["k"])
}

// What was pruned is not looked for again, also where the cut went through a fork.
func TestPruneLeavesNothingOpen(t *testing.T) {
	for most := 3; most < 12; most++ {
		h := history(marked("$root", 1, dict{}))
		last := id.EventID("$root")
		for i := range 10 {
			a, b, m := id.EventID(fmt.Sprint("$a", i)), id.EventID(fmt.Sprint("$b", i)), id.EventID(fmt.Sprint("$m", i))
			h.Add(marked(a, int64(3*i+2), dict{"a": fmt.Sprint(i)}, last))
			h.Add(marked(b, int64(3*i+3), dict{"b": fmt.Sprint(i)}, last))
			h.Add(marked(m, int64(3*i+4), dict{"a": fmt.Sprint(i), "b": fmt.Sprint(i)}, a, b))
			last = m
		}
		h.Prune(most)
		assert.Equal(t, most, h.Len())
		assert.False(t, h.Open(), "%d events", most)
		assert.True(t, h.Had("$a0"))
		assert.False(t, h.Has("$a0"))
		h.Add(marked("$late", 99, dict{}, "$a0"))
		assert.True(t, h.Open(), "which began from one that is gone")
	}
}

// An event can be listed among those that are known already: it was sent at the same time and stored later.
func TestLateEventInAPage(t *testing.T) {
	a, b, late := marked("$a", 1, dict{"a": "1"}), marked("$b", 2, dict{"a": "1", "b": "1"}, "$a"), marked("$late", 3, dict{"a": "1", "l": "1"}, "$a")
	h := history(a, b)
	h.AddPage([]merge.Event{b, late, a}, h.Now())
	assert.Equal(t, dict{"a": "1", "b": "1", "l": "1"}, h.Merge().Dict)
}

// What a sync brings while a list is on its way, and what the list does not show, is newer.
func TestAddedSinceTheListWasAskedFor(t *testing.T) {
	blind := func(event id.EventID, time int64, value string) merge.Event {
		return merge.Event{ID: event, Time: time, Dict: dict{"k": value}, Blind: true, Mark: value}
	}
	var h merge.History
	asked := h.Now()
	h.Add(blind("$c", 3, "c"))
	h.AddPage([]merge.Event{blind("$b", 2, "b"), blind("$a", 1, "a")}, asked)
	assert.Equal(t, []id.EventID{"$c"}, ids(h.Heads()))
	asked = h.Now()
	h.Add(blind("$e", 5, "e"))
	h.AddPage([]merge.Event{blind("$d", 4, "d"), blind("$c", 3, "c")}, asked)
	assert.Equal(t, []id.EventID{"$e"}, ids(h.Heads()))
	assert.Equal(t, dict{"k": "e"}, h.Merge().Dict)
}

// What is listed between two known events is between them: one that names no parents has not replaced it.
func TestListedBetween(t *testing.T) {
	first := plain("$first", 1, dict{"k": "0"}, "")
	own, rival := conditional("$own", 3, dict{"k": "1"}, "$first"), conditional("$rival", 2, dict{"k": "1"}, "$first")
	var h merge.History
	h.AddPage([]merge.Event{rival, first}, h.Now())
	h.AddPage([]merge.Event{rival, own, first}, h.Now())
	assert.Equal(t, []id.EventID{"$own", "$rival"}, ids(h.Heads()))
	assert.False(t, h.Descends("$first", "$own"))
}

// What was redacted before anybody here has read it changes nothing: neither what was made from it nor what nobody has merged.
func TestRedactedBeforeItWasRead(t *testing.T) {
	redacted := func(e merge.Event) merge.Event {
		e.Dict, e.Redacted = dict{}, true
		return e
	}
	base := marked("$a", 1, dict{"k": "1", "x": "1", "secret": "1"})
	rival := marked("$w", 9_000, dict{"k": "1", "x": "2", "secret": "1"}, "$a")
	h := history(base, redacted(plain("$b", 2, nil, "$a")), marked("$c", 10_000, dict{"k": "1", "x": "1"}, "$b"), rival)
	assert.Equal(t, dict{"k": "1", "x": "2"}, h.Merge().Dict, "the rival's change counts, though the copy is later")

	h = history(base, marked("$c", 10_000, dict{"k": "1"}, "$a"), redacted(plain("$b", 2, nil, "$a")))
	assert.Equal(t, dict{"k": "1"}, h.Merge().Dict, "nothing is lost to what was redacted")
	assert.Equal(t, dict{}, dict(history(base, redacted(plain("$b", 2, nil, "$a"))).Merge().Dict), "where it is all there is, nothing is there")
}

// What was redacted while it was current had merged what came before, though its mark is gone with the rest.
func TestRedactedWhileItWasCurrent(t *testing.T) {
	current := merge.Event{ID: "$c", Time: 3, Dict: dict{}, Redacted: true}
	h := history(marked("$a", 1, dict{"k": "a"}), marked("$b", 2, dict{"k": "b"}), current)
	assert.Empty(t, h.Merge().Dict)
	assert.Equal(t, []id.EventID{"$c"}, ids(h.Heads()))
	assert.Equal(t, []id.EventID{"$a", "$b", "$c"}, h.Merge().Parents, "for those who know what it had merged")
}

// A request is delivered again after another account has copied its mark: that changes nothing. But who copies a mark can go back to what stood
// beside it.
func TestLateDeliveryAfterACopy(t *testing.T) {
	by := func(sender id.UserID, e merge.Event) merge.Event {
		e.Sender = sender
		return e
	}
	first := by("@a", marked("$a", 1, dict{"k": "1"}))
	again := func(sender id.UserID) merge.Event {
		e := by(sender, marked("$c", 3, dict{"k": "1"}))
		e.Mark, e.Replaces = first.Mark, "$b"
		return e
	}
	copy := by("@ops", copied("$b", 2, dict{"k": "1", "x": "1"}, "$a", "$a"))
	assert.Equal(t, dict{"k": "1", "x": "1"}, dict(history(first, copy, again("@a")).Merge().Dict))
	assert.Equal(t, dict{"k": "1"}, dict(history(first, copy, again("@ops")).Merge().Dict))

	between := by("@a", marked("$d", 3, dict{"k": "1", "x": "1", "y": "1"}, "$b")) // which the copier did not see
	late := func(sender id.UserID) merge.Event {
		e := again(sender)
		e.Time, e.Replaces = 4, "$d"
		return e
	}
	assert.Equal(t, dict{"k": "1", "x": "1", "y": "1"}, dict(history(first, copy, between, late("@a")).Merge().Dict))
	assert.Equal(t, dict{"k": "1", "y": "1"}, dict(history(first, copy, between, late("@ops")).Merge().Dict))
}

// Somebody copies a mark again after another has written, and the homeserver's clock is set back in between: the second copy was made from the
// first.
func TestCopiedMarkAndAClockThatIsSetBack(t *testing.T) {
	h := history(marked("$a", 100, dict{"k": "1"}), copied("$b", 101, dict{"k": "2"}, "$a", "$a"), marked("$d", 102, dict{"k": "1", "x": "1"}, "$a"),
		copied("$c", 7, dict{"k": "3"}, "$d", "$a"))
	assert.Equal(t, dict{"k": "3", "x": "1"}, dict(h.Merge().Dict))
	assert.Empty(t, h.Missing())
}

// What comes before an event of the state is not known until that is listed.
func TestStateIsOpen(t *testing.T) {
	a, b := marked("$a", 2, dict{}, "$root"), marked("$b", 3, dict{}, "$a")
	current := marked("$c", 4, dict{}, "$b")
	current.Partial = true
	h := history(a, current)
	assert.True(t, h.StateIsOpen())
	h.AddPage([]merge.Event{marked("$c", 4, dict{}, "$b"), b, a}, h.Now())
	assert.False(t, h.StateIsOpen())
}

// Thousands of events that were redacted take no time that anybody would notice: whoever may write state can make them.
func TestManyRedacted(t *testing.T) {
	var h merge.History
	for i := range 2000 {
		h.Add(merge.Event{ID: id.EventID(fmt.Sprint("$", i)), Time: 1, Dict: dict{}, Redacted: true})
	}
	began := time.Now()
	assert.Len(t, h.Heads(), 1)
	assert.Less(t, time.Since(began), time.Second)
}

// Two Creates saw nothing there, and a plain Put took the place of the later one. A merge found that this one does not count. That holds too where
// another plain Put, which has not seen the merge, takes the place of both.
func TestCreateThatAMergeLeftOut(t *testing.T) {
	blind := func(event id.EventID, time int64, d dict, replaces id.EventID) merge.Event {
		return merge.Event{ID: event, Time: time, Dict: d, Blind: true, Mark: "mark of " + event.String(), Replaces: replaces}
	}
	merged := marked("$m", 5, dict{"k": "put"}, "$u", "$p")
	merged.Yields = merge.Yields{"$v": {"k"}}
	h := history(conditional("$u", 1, dict{"k": "u"}), conditional("$v", 2, dict{"k": "v"}), blind("$p", 3, dict{"k": "put"}, "$v"),
		blind("$q", 4, dict{"k": "put again"}, "$p"), merged)
	assert.False(t, h.WillCount("$v", "k"))
}
