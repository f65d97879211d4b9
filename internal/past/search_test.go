package past

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// searchOf is a search that has been given these events, the newest first, all with one state key.
func searchOf(r memory.Room, moment Moment, stateKey string, events ...written) *search {
	s := &search{Room: r, moment: moment, found: moment.timed(), events: map[string][]*matrix.Event{}, oldest: map[string]*matrix.Event{}, current: map[string]*matrix.Event{}}
	for _, w := range events {
		s.add(w.event(stateKey))
	}
	return s
}

func idsOf(events []*matrix.Event) (ids []id.EventID) {
	for _, evt := range events {
		ids = append(ids, evt.ID)
	}
	return ids
}

func at(ms int64) Moment { return Moment{Time: time.UnixMilli(ms)} }

func TestSearchTakesWhatLeadsToTheMoment(t *testing.T) {
	events := []written{{id: "$5", at: 50, content: `{}`}, {id: "$4", at: 20, content: `{}`}, {id: "$3", at: 30, content: `{}`}, {id: "$2", at: 20, content: `{}`}, {id: "$1", at: 10, content: `{}`}}
	for _, test := range []struct {
		moment Moment
		found  bool
		want   ids
	}{
		{at(60), true, ids{"$5", "$4", "$3", "$2", "$1"}},
		{at(50), true, ids{"$5", "$4", "$3", "$2", "$1"}},
		{at(49), true, ids{"$4", "$3", "$2", "$1"}},
		{at(25), true, ids{"$4", "$3", "$2", "$1"}}, // by the list $4 came after $3, whatever the clocks say
		{at(19), true, ids{"$1"}},
		{at(9), true, nil},
		{Moment{Revision: "$3"}, true, ids{"$3", "$2", "$1"}},
		{Moment{Revision: "$x"}, false, nil},
	} {
		s := searchOf(roomWith(t, memory.Settings{Layout: memory.OneDict{}}), test.moment, "", events...)
		assert.Equal(t, test.want, ids(idsOf(s.events[""])), "%v", test.moment)
		assert.Equal(t, test.found, s.found, "%v", test.moment)
		assert.Equal(t, id.EventID("$1"), s.oldest[""].ID)
	}
}

func TestSearchLeavesOtherStateKeys(t *testing.T) {
	for _, layout := range []memory.Layout{memory.OneDict{Key: "bot"}, memory.PerKey{}} {
		for _, stateKey := range []string{"", "bot", wire.SealName, wire.PredecessorName} {
			s := searchOf(roomWith(t, memory.Settings{Layout: layout}), Moment{Revision: "$1"}, stateKey, written{id: "$1", content: `{}`})
			assert.Equal(t, layout.Holds(stateKey), s.found, "%v %q", layout, stateKey)
			assert.Equal(t, layout.Holds(stateKey), len(s.events) == 1)
			assert.Equal(t, layout.Holds(stateKey), len(s.oldest) == 1)
		}
	}
}

func TestSearchKnowsWhenItHasEnough(t *testing.T) {
	chain := func(n int, marked bool) (events []written) {
		for i := range n {
			w := written{id: id.EventID(fmt.Sprint("$", n-i)), at: int64(n - i), content: `{"a":1}`}
			if marked {
				w.parents = ids{id.EventID(fmt.Sprint("$", n-i-1))}
			}
			events = append(events, w)
		}
		return events
	}
	oneDict := roomWith(t, memory.Settings{Layout: memory.OneDict{}})
	assert.False(t, searchOf(oneDict, at(1), "").enough(), "nothing was found yet")
	assert.False(t, searchOf(oneDict, at(1e6), "", chain(rivals, true)...).enough(), "a rival can be listed still")
	assert.True(t, searchOf(oneDict, at(1e6), "", chain(rivals+1, true)...).enough())
	open := chain(rivals+5, true)
	open[3].parents = ids{"$elsewhere"}
	assert.False(t, searchOf(oneDict, at(1e6), "", open...).enough(), "something is in between")
	open = chain(farBack, true)
	open[3].parents = ids{"$elsewhere"}
	assert.False(t, searchOf(oneDict, at(1e6), "", open[:farBack-1]...).enough())
	assert.True(t, searchOf(oneDict, at(1e6), "", open...).enough(), "no further back")

	perKey := roomWith(t, memory.Settings{Layout: memory.PerKey{}})
	s := searchOf(perKey, at(1e6), "a", chain(3*rivals, false)...)
	assert.Len(t, s.events["a"], rivals+1, "more can have no rivals")
	assert.True(t, s.enough())
	s.current["b"] = new(matrix.Event)
	assert.False(t, s.enough(), "of another key nothing was found")
	s.add(written{id: "$b", content: `{"b":1}`}.event("b"))
	assert.True(t, s.enough())
}

func TestFollows(t *testing.T) {
	s := searchOf(roomWith(t, memory.Settings{Layout: memory.OneDict{}}), at(1), "")
	assert.True(t, s.follows(nil), "nothing is listed of what is current")
	assert.False(t, s.follows(written{id: "$1", content: `{"a":1}`}.event("")))
	assert.False(t, s.follows(written{id: "$1", content: `{"a":1}`, parents: ids{}}.event("")))
	assert.True(t, s.follows(written{id: "$1", content: `{"a":1}`, parents: ids{"$0"}}.event("")))
	replaces := written{id: "$1", content: `{"a":1}`}.event("")
	replaces.Unsigned.ReplacesState = "$0"
	assert.True(t, s.follows(replaces))
}

func TestSnapshotOfADict(t *testing.T) {
	secret := []byte("sixteen bytes or more")
	sealed := roomWith(t, memory.Settings{Layout: memory.OneDict{}, Secret: secret})
	seal := `"` + wire.SealName + `":` + string(sealed.Seal())
	name := sealed.NameOf("a")
	root := written{"$1", 1, `{"a":1,"gone":0}`, ids{}, false}
	left := written{"$2", 2, `{"a":1,"b":2,"gone":0}`, ids{"$1"}, false}
	right := written{"$3", 3, `{"a":3}`, ids{"$1"}, false}
	for _, test := range []struct {
		about  string
		secret []byte
		moment Moment
		events []written // the newest first
		want   map[string]string
		err    error
	}{
		{about: "one event", moment: at(9), events: []written{root}, want: map[string]string{"a": `1`, "gone": `0`}},
		{about: "rivals are merged", moment: at(9), events: []written{right, left, root}, want: map[string]string{"a": `3`, "b": `2`}},
		{about: "before the rival", moment: at(2), events: []written{right, left, root}, want: map[string]string{"a": `1`, "b": `2`, "gone": `0`}},
		{about: "at a revision", moment: Moment{Revision: "$2"}, events: []written{right, left, root}, want: map[string]string{"a": `1`, "b": `2`, "gone": `0`}},
		{about: "at a revision that had a rival", moment: Moment{Revision: "$3"}, events: []written{right, left, root}, want: map[string]string{"a": `3`, "b": `2`}},
		{about: "at a revision that counts less than its rival", moment: Moment{Revision: "$3"},
			events: []written{right, {"$2", 4, `{"a":2,"b":2,"gone":5}`, ids{"$1"}, false}, root}, want: map[string]string{"a": `3`, "b": `2`}},
		{about: "what the rival of a revision changed counts too", moment: Moment{Revision: "$3"},
			events: []written{{"$3", 3, `{"a":3,"gone":0}`, ids{"$1"}, false}, {"$2", 2, `{"a":1,"gone":5}`, ids{"$1"}, false}, root}, want: map[string]string{"a": `3`, "gone": `5`}},
		{about: "what is older is not listed", moment: at(9), events: []written{right, left}, want: map[string]string{"a": `3`, "b": `2`, "gone": `0`}},
		{about: "what an event had merged that was redacted is not known", moment: at(9), events: []written{right, {id: "$2"}, {"$0", 0, `{"lost":1}`, ids{}, false}}, want: map[string]string{"a": `3`}},
		{about: "redacted", moment: at(9), events: []written{{id: "$2"}, root}, err: fault.ErrRedacted},
		{about: "not to be read", moment: at(9), events: []written{{id: "$2", content: `[]`}, root}, err: fault.ErrCorrupt},
		{about: "the store's own fields", moment: at(9), events: []written{{id: "$1", content: `{"a":1,"roomkv.predecessor":{},"roomkv.later":1}`}}, want: map[string]string{"a": `1`}},
		{about: "sealed", secret: secret, moment: at(9), events: []written{{id: "$1", content: `{"` + name + `":1,"plain":2,` + seal + `}`}}, want: map[string]string{name: `1`}},
		{about: "sealed with another secret", moment: at(9), events: []written{{id: "$1", content: `{"` + name + `":1,` + seal + `}`}}, err: fault.ErrWrongSecret},
	} {
		r := roomWith(t, memory.Settings{Layout: memory.OneDict{}, Secret: test.secret})
		snapshot, err := searchOf(r, test.moment, "", test.events...).snapshot(t.Context())
		require.ErrorIs(t, err, test.err, test.about)
		if test.err != nil {
			continue
		}
		got := map[string]string{}
		for name, found := range snapshot.Records {
			assert.Equal(t, name, found.Name)
			got[name] = string(found.Stored)
		}
		assert.Equal(t, test.want, got, test.about)
		assert.Empty(t, snapshot.Broken)
	}
}

func TestSnapshotOfKeys(t *testing.T) {
	r := roomWith(t, memory.Settings{Layout: memory.PerKey{}})
	escaped := wire.StateKey("@bad")
	s := searchOf(r, at(9), "a", written{id: "$2", at: 2, content: `{"a":2}`}, written{id: "$1", at: 1, content: `{"a":1}`})
	for stateKey, w := range map[string]written{
		"deleted": {id: "$d", at: 2, content: `{}`}, "redacted": {id: "$r", at: 2}, "bad": {id: "$b", at: 2, content: `[]`}, escaped: {id: "$e", at: 2, content: `[]`},
	} {
		s.add(w.event(stateKey))
	}
	snapshot, err := s.snapshot(t.Context())
	require.NoError(t, err)
	assert.Len(t, snapshot.Records, 1)
	assert.Equal(t, `2`, string(snapshot.Records["a"].Stored))
	require.Len(t, snapshot.Broken, 3)
	for stateKey, want := range map[string]struct {
		name string
		err  error
	}{"redacted": {"redacted", fault.ErrRedacted}, "bad": {"bad", fault.ErrCorrupt}, escaped: {"", fault.ErrCorrupt}} {
		assert.Equal(t, want.name, snapshot.Broken[stateKey].Name, stateKey)
		assert.ErrorIs(t, snapshot.Broken[stateKey].Err, want.err, stateKey)
	}

	assert.Equal(t, id.EventID("$2"), snapshot.Find("a").Event)
	assert.ErrorIs(t, snapshot.Find("redacted").Err, fault.ErrRedacted)
	assert.ErrorIs(t, snapshot.Find("@bad").Err, fault.ErrCorrupt)
	assert.Nil(t, snapshot.Find("deleted"))
	assert.Nil(t, snapshot.Find("never"))
	keys, err := snapshot.Keys(t.Context(), memory.Listing{})
	require.NoError(t, err)
	assert.Equal(t, []string{"a"}, keys)
	var all []id.EventID
	for _, found := range snapshot.All(t.Context(), memory.Listing{}) {
		all = append(all, found.Event)
	}
	slices.Sort(all)
	assert.Equal(t, []id.EventID{"$2", "$b", "$e", "$r"}, all)
}

// What counts of another key's rivals is what a merge of them says.
func TestSnapshotAtAnotherKeysRevision(t *testing.T) {
	s := searchOf(roomWith(t, memory.Settings{Layout: memory.PerKey{}}), Moment{Revision: "$a"}, "a", written{id: "$a", at: 9, content: `{"a":1}`})
	for _, w := range []written{{"$b3", 3, `{"b":3}`, ids{"$b1"}, false}, {"$b2", 5, `{"b":2}`, ids{"$b1"}, false}, {"$b1", 1, `{"b":1}`, ids{}, false}} {
		s.add(w.event("b"))
	}
	snapshot, err := s.snapshot(t.Context())
	require.NoError(t, err)
	assert.Equal(t, `1`, string(snapshot.Records["a"].Stored))
	assert.Equal(t, `2`, string(snapshot.Records["b"].Stored))
}

func TestNameOf(t *testing.T) {
	sealed := wire.SealedName([32]byte{1})
	for stateKey, want := range map[string]string{
		"a": "a", `a"b`: wire.Name(`a"b`), sealed: sealed, wire.StateKey("@a"): "", wire.StateKey(""): "", wire.SealName: "",
	} {
		assert.Equal(t, want, nameOf(stateKey), stateKey)
	}
}

func TestSnapshotIsOfOneMemory(t *testing.T) {
	secret := []byte("sixteen bytes or more")
	settings := memory.Settings{Layout: memory.OneDict{Key: "bot"}, Secret: secret}
	r := roomWith(t, settings)
	snapshot := &Snapshot{Room: r}
	assert.True(t, snapshot.Of(r))
	assert.True(t, snapshot.Of(roomWith(t, settings)), "another store of the same memory")
	for about, other := range map[string]memory.Room{
		"room":   r.Of("!other:example.org"),
		"type":   roomWith(t, memory.Settings{Layout: memory.OneDict{Key: "bot"}, Secret: secret, EventType: "org.example.other"}),
		"dict":   roomWith(t, memory.Settings{Layout: memory.OneDict{}, Secret: secret}),
		"layout": roomWith(t, memory.Settings{Layout: memory.PerKey{}, Secret: secret}),
		"secret": roomWith(t, memory.Settings{Layout: memory.OneDict{Key: "bot"}}),
	} {
		assert.False(t, snapshot.Of(other), about)
	}
}
