package merge_test

import (
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

// atomic is conditional, and counts as a whole. It has read those names beside what it changes.
func atomic(event id.EventID, time int64, d dict, reads []string, parents ...id.EventID) merge.Event {
	e := conditional(event, time, d, parents...)
	e.Atomic, e.Reads = true, reads
	return e
}

// readsAll is atomic with an event that has read all names.
func readsAll(event id.EventID, time int64, d dict, parents ...id.EventID) merge.Event {
	e := atomic(event, time, d, nil, parents...)
	e.ReadsAll = true
	return e
}

// yielding is an event that has recorded that nothing of another one counts.
func yielding(e merge.Event, yields id.EventID) merge.Event {
	e.Yields = merge.Yields{yields: {}}
	return e
}

func TestAtomic(t *testing.T) {
	root := marked("$root", 1, dict{"a": "0", "b": "0", "c": "0"})
	tests := []struct {
		name   string
		events []merge.Event // in the order in which they were stored
		want   dict
		counts map[id.EventID]bool // whether what each atomic event did to its names will count
	}{
		{"a put of one name before it", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false}},
		{"a put of one name after it", []merge.Event{
			root, atomic("$t", 2, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"), marked("$p", 3, dict{"a": "p", "b": "0", "c": "0"}, "$root"),
		}, dict{"a": "p", "b": "t", "c": "0"}, map[id.EventID]bool{"$t": true}},
		{"a put of another name", []merge.Event{
			root, marked("$p", 2, dict{"a": "0", "b": "0", "c": "p"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
		}, dict{"a": "t", "b": "t", "c": "p"}, map[id.EventID]bool{"$t": true}},
		{"a put of a name that it read", []merge.Event{
			root, marked("$p", 2, dict{"a": "0", "b": "0", "c": "p"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, []string{"c"}, "$root"),
		}, dict{"a": "0", "b": "0", "c": "p"}, map[id.EventID]bool{"$t": false}},
		{"a put of a new name, after it read all", []merge.Event{
			root, marked("$p", 2, dict{"a": "0", "b": "0", "c": "0", "d": "p"}, "$root"), readsAll("$t", 3, dict{"a": "t", "b": "0", "c": "0"}, "$root"),
		}, dict{"a": "0", "b": "0", "c": "0", "d": "p"}, map[id.EventID]bool{"$t": false}},
		{"one that shares a name with the one before", []merge.Event{
			root, atomic("$s", 2, dict{"a": "s", "b": "s", "c": "0"}, nil, "$root"), atomic("$t", 3, dict{"a": "0", "b": "t", "c": "t"}, nil, "$root"),
		}, dict{"a": "s", "b": "s", "c": "0"}, map[id.EventID]bool{"$s": true, "$t": false}},
		{"each reads what the other changes", []merge.Event{
			root, atomic("$s", 2, dict{"a": "s", "b": "0", "c": "0"}, []string{"b"}, "$root"), atomic("$t", 3, dict{"a": "0", "b": "t", "c": "0"}, []string{"a"}, "$root"),
		}, dict{"a": "s", "b": "0", "c": "0"}, map[id.EventID]bool{"$s": true, "$t": false}},
		{"one that shares a name with one that does not count", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"),
			atomic("$s", 3, dict{"a": "s", "b": "s", "c": "0"}, nil, "$root"), atomic("$t", 4, dict{"a": "0", "b": "t", "c": "t"}, nil, "$root"),
		}, dict{"a": "p", "b": "t", "c": "t"}, map[id.EventID]bool{"$s": false, "$t": true}},
		{"a put that goes on from one that does not count", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			marked("$q", 4, dict{"a": "t", "b": "t", "c": "q"}, "$t"),
		}, dict{"a": "p", "b": "0", "c": "q"}, map[id.EventID]bool{"$t": false}},
		{"one that was computed from one that does not count", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			atomic("$u", 4, dict{"a": "t", "b": "t", "c": "u"}, []string{"b"}, "$t"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false, "$u": false}},
		{"one that has read all goes on from one that does not count", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			readsAll("$u", 4, dict{"a": "t", "b": "t", "c": "u"}, "$t"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false, "$u": false}},
		{"one beside one that was computed from one that does not count, by a clock that is behind", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 30, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			atomic("$u", 31, dict{"a": "t", "b": "t", "c": "u"}, []string{"b"}, "$t"), atomic("$s", 3, dict{"a": "0", "b": "0", "c": "s"}, nil, "$root"),
		}, dict{"a": "p", "b": "0", "c": "s"}, map[id.EventID]bool{"$t": false, "$u": false}},
		{"one that goes on from it and depends on nothing of that", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			atomic("$u", 4, dict{"a": "t", "b": "t", "c": "u"}, nil, "$t"),
		}, dict{"a": "p", "b": "0", "c": "u"}, map[id.EventID]bool{"$t": false, "$u": true}},
		{"a name that was not there before", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "0", "c": "0", "new": "t"}, nil, "$root"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false}},
		{"a name that it has removed", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "c": "0"}, nil, "$root"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false}},
		{"a merge has found that it counts, whatever the order of the list", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			marked("$m", 4, dict{"a": "p", "b": "t", "c": "0"}, "$p", "$t"), marked("$q", 5, dict{"a": "0", "b": "0", "c": "q"}, "$root"),
		}, dict{"a": "p", "b": "t", "c": "q"}, map[id.EventID]bool{"$t": true}},
		{"a merge has found that it does not count", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			yielding(marked("$m", 4, dict{"a": "p", "b": "0", "c": "0"}, "$p", "$t"), "$t"),
		}, dict{"a": "p", "b": "0", "c": "0"}, map[id.EventID]bool{"$t": false}},
		{"a merge has found that it does not count, and somebody has gone on from it", []merge.Event{
			root, marked("$p", 2, dict{"a": "p", "b": "0", "c": "0"}, "$root"), atomic("$t", 3, dict{"a": "t", "b": "t", "c": "0"}, nil, "$root"),
			yielding(marked("$m", 4, dict{"a": "p", "b": "0", "c": "0"}, "$p", "$t"), "$t"), marked("$q", 5, dict{"a": "t", "b": "t", "c": "q"}, "$t"),
		}, dict{"a": "p", "b": "0", "c": "q"}, map[id.EventID]bool{"$t": false}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			h := history(tt.events...)
			for i, e := range tt.events {
				h.Place(e.ID, int64(i), true)
			}
			merged := h.Merge()
			assert.Equal(t, tt.want, merged.Dict)
			changes := map[id.EventID][]string{"$s": {"a"}, "$t": {"b"}, "$u": {"c"}}
			for event, counts := range tt.counts {
				for _, name := range changes[event] {
					assert.Equal(t, counts, h.WillCount(event, name), "%s %s", event, name)
				}
			}
			if len(h.Heads()) < 2 {
				return
			}
			// Whoever reads the merge finds the same, and so does whoever merges with that.
			h.Add(merge.Event{ID: "$merge", Time: 8, Dict: merged.Dict, Parents: merged.Parents, Yields: merged.Yields, Marked: true, Mark: "merge"})
			assert.Equal(t, tt.want, h.Merge().Dict)
			for event, counts := range tt.counts {
				for _, name := range changes[event] {
					assert.Equal(t, counts, h.WillCount(event, name), "%s %s", event, name)
					assert.NotEqual(t, id.EventID("$merge"), h.Origin("$merge", name), "the merge has changed %s by itself", name)
				}
			}
			h.Add(marked("$late", 9, dict{"a": "0", "b": "0", "c": "0", "late": "1"}, "$root"))
			h.Place("$late", 100, true)
			want := dict{"late": "1"}
			for name, value := range tt.want {
				want[name] = value
			}
			assert.Equal(t, want, h.Merge().Dict)
		})
	}
}

// Of an event whose parents nobody has it is not known what it changed: it must not take what others wrote with it.
func TestAtomicWithUnknownParents(t *testing.T) {
	h := history(marked("$p", 2, dict{"a": "p", "b": "0"}, "$old"), atomic("$t", 3, dict{"a": "t", "b": "t", "k": "kept"}, nil, "$x"))
	h.GiveUp()
	h.Place("$p", 1, true)
	h.Place("$t", 2, true)
	assert.Equal(t, "kept", h.Merge().Dict["k"])
}

// A history that was pruned finds what a whole one does: what is left of a fork has changed only what the atomic event has read otherwise.
func TestAtomicAfterPrune(t *testing.T) {
	for _, pruned := range []bool{false, true} {
		d := dict{"a": "0", "b": "0", "c": "0"}
		with := func(name, value string) dict {
			changed := dict{}
			for k, v := range d {
				changed[k] = v
			}
			changed[name] = value
			d = changed
			return d
		}
		var h merge.History
		n := int64(0)
		add := func(e merge.Event) {
			n++
			e.Time = n
			h.Add(e)
			h.Place(e.ID, n, true)
		}
		add(marked("$1", 0, d))
		for range 30 {
			parent := id.EventID(fmt.Sprint("$", n))
			add(marked(id.EventID(fmt.Sprint("$", n+1)), 0, with("a", fmt.Sprint(n)), parent))
		}
		base, fork := d, id.EventID(fmt.Sprint("$", n))
		add(atomic("$t", 0, dict{"a": "t", "b": base["b"], "c": base["c"]}, nil, fork))
		add(marked("$y", 0, dict{"a": base["a"], "b": "y", "c": base["c"]}, fork))
		d = dict{"a": "t", "b": "y", "c": "0"}
		add(marked("$m", 0, d, "$t", "$y"))
		last := id.EventID("$m")
		for i := range 21 {
			next := id.EventID(fmt.Sprint("$z", i))
			add(marked(next, 0, with("a", fmt.Sprint("z", i)), last))
			last = next
		}
		if pruned {
			h.Prune(24)
		}
		add(atomic("$q", 0, dict{"a": base["a"], "b": "y", "c": "q"}, nil, "$y"))
		assert.Equal(t, "q", h.Merge().Dict["c"], "pruned: %v", pruned)
		assert.Empty(t, h.Merge().Yields)
		assert.True(t, h.WillCount("$q", "c"))
	}
}
