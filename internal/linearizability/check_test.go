package linearizability_test

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/anishathalye/porcupine"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/linearizability"
)

// Histories made by hand, as the simulation would write them. An order explains the first of each pair, and none the second.
func TestCheckTellsGoodFromBad(t *testing.T) {
	for name, pair := range map[string][2]string{
		"an Update is lost": {
			`{"operations":[{"id":"a","kind":"Update","begin":1,"end":4,"outcome":"acknowledged","saw":[null]},
				{"id":"b","kind":"Update","begin":2,"end":5,"outcome":"acknowledged","saw":[null,["a"]]}],"final":["a","b"]}`,
			`{"operations":[{"id":"a","kind":"Update","begin":1,"end":4,"outcome":"acknowledged","saw":[null]},
				{"id":"b","kind":"Update","begin":2,"end":5,"outcome":"acknowledged","saw":[null]}],"final":["b"]}`,
		},
		"an earlier Put counts": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":3,"outcome":"acknowledged"},
				{"id":"b","kind":"Put","begin":3,"end":4,"outcome":"acknowledged"}],"final":["a"]}`,
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Put","begin":3,"end":4,"outcome":"acknowledged"}],"final":["a"]}`,
		},
		"a Put is nowhere": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"unknown"}],"final":null}`,
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"}],"final":null}`,
		},
		"a failed Put counts before it began": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"unknown"},
				{"id":"b","kind":"Update","begin":3,"end":4,"outcome":"acknowledged","saw":[null]},
				{"id":"c","kind":"Update","begin":5,"end":6,"outcome":"acknowledged","saw":[["a"]]}],"final":["a","c"]}`,
			`{"operations":[{"id":"b","kind":"Update","begin":1,"end":2,"outcome":"acknowledged","saw":[["a"]]},
				{"id":"a","kind":"Put","begin":3,"end":4,"outcome":"unknown"}],"final":["a","b"]}`,
		},
		"two Creates succeed": {
			`{"operations":[{"id":"a","kind":"Create","begin":1,"end":4,"outcome":"acknowledged"},
				{"id":"b","kind":"Create","begin":2,"end":3,"outcome":"refused","error":"it exists"}],"final":["a"]}`,
			`{"operations":[{"id":"a","kind":"Create","begin":1,"end":4,"outcome":"acknowledged"},
				{"id":"b","kind":"Create","begin":2,"end":3,"outcome":"acknowledged"}],"final":["a"]}`,
		},
		"a Create is refused for nothing": {
			`{"operations":[{"id":"a","kind":"Update","begin":1,"end":2,"outcome":"unknown"},
				{"id":"b","kind":"Create","begin":3,"end":4,"outcome":"refused"},
				{"id":"c","kind":"Delete","begin":5,"end":6,"outcome":"acknowledged"}],"final":null}`,
			`{"operations":[{"id":"b","kind":"Create","begin":3,"end":4,"outcome":"refused"},
				{"id":"a","kind":"Update","begin":5,"end":6,"outcome":"unknown"},
				{"id":"c","kind":"Delete","begin":7,"end":8,"outcome":"acknowledged"}],"final":null}`,
		},
		"a CompareAndPut compares with an old value": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"CompareAndPut","begin":3,"end":4,"outcome":"acknowledged","basis":["a"]}],"final":["a","b"]}`,
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"c","kind":"Put","begin":3,"end":4,"outcome":"acknowledged"},
				{"id":"b","kind":"CompareAndPut","begin":5,"end":6,"outcome":"acknowledged","basis":["a"]}],"final":["a","b"]}`,
		},
		"two Pops get one value": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Pop","begin":3,"end":6,"outcome":"acknowledged","got":["a"]},
				{"id":"c","kind":"Pop","begin":4,"end":5,"outcome":"refused"}],"final":null}`,
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Pop","begin":3,"end":6,"outcome":"acknowledged","got":["a"]},
				{"id":"c","kind":"Pop","begin":4,"end":5,"outcome":"acknowledged","got":["a"]}],"final":null}`,
		},
		"what was deleted comes back": {
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":3,"outcome":"acknowledged"},
				{"id":"b","kind":"Delete","begin":2,"end":4,"outcome":"acknowledged"}],"final":["a"]}`,
			`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Delete","begin":3,"end":4,"outcome":"acknowledged"}],"final":["a"]}`,
		},
		"a Put is overwritten unseen, but not with one state event": {
			`{"per_key":true,"operations":[{"id":"a","kind":"Put","begin":1,"end":3,"outcome":"acknowledged"},
				{"id":"b","kind":"Update","begin":2,"end":4,"outcome":"acknowledged","saw":[null]},
				{"id":"c","kind":"Update","begin":5,"end":6,"outcome":"acknowledged","saw":[["b"]]}],"final":["b","c"]}`,
			`{"operations":[{"id":"a","kind":"Put","begin":3,"end":5,"outcome":"acknowledged"},
				{"id":"d","kind":"Update","begin":1,"end":2,"outcome":"acknowledged","saw":[null]},
				{"id":"b","kind":"Update","begin":4,"end":6,"outcome":"acknowledged","saw":[["d"]]},
				{"id":"c","kind":"Update","begin":7,"end":8,"outcome":"acknowledged","saw":[["d","b"]]}],"final":["d","b","c"]}`,
		},
		"a Put is overwritten unseen, by what came later": {
			`{"per_key":true,"operations":[{"id":"a","kind":"Put","begin":1,"end":3,"outcome":"acknowledged"},
				{"id":"b","kind":"Update","begin":3,"end":4,"outcome":"acknowledged","saw":[null]}],"final":["b"]}`,
			`{"per_key":true,"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Update","begin":3,"end":4,"outcome":"acknowledged","saw":[null]}],"final":["b"]}`,
		},
		"a Put is overwritten unseen, by what came earlier": {
			`{"per_key":true,"operations":[{"id":"b","kind":"Update","begin":1,"end":3,"outcome":"acknowledged","saw":[null]},
				{"id":"a","kind":"Put","begin":3,"end":4,"outcome":"acknowledged"}],"final":["b"]}`,
			`{"per_key":true,"operations":[{"id":"b","kind":"Update","begin":1,"end":2,"outcome":"acknowledged","saw":[null]},
				{"id":"a","kind":"Put","begin":3,"end":4,"outcome":"acknowledged"}],"final":["b"]}`,
		},
		"a refused CompareAndPut is beside a Delete, or a Put": {
			`{"per_key":true,"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Delete","begin":3,"end":5,"outcome":"acknowledged"},
				{"id":"c","kind":"CompareAndPut","begin":4,"end":6,"outcome":"refused"}],"final":["a"]}`,
			`{"per_key":true,"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"acknowledged"},
				{"id":"b","kind":"Put","begin":3,"end":5,"outcome":"acknowledged"},
				{"id":"c","kind":"CompareAndPut","begin":4,"end":6,"outcome":"refused"}],"final":["a"]}`,
		},
	} {
		assert.Equal(t, porcupine.Ok, parse(t, pair[0]).Check(time.Minute), "%s: the good one", name)
		assert.Equal(t, porcupine.Illegal, parse(t, pair[1]).Check(time.Minute), "%s: the bad one", name)
	}
}

func parse(t *testing.T, text string) linearizability.History {
	t.Helper()
	for h, err := range linearizability.Read(strings.NewReader(text)) {
		require.NoError(t, err)
		return h
	}
	require.Fail(t, "no history")
	return linearizability.History{}
}

// A file that the simulation cannot have written is an error.
func TestReadRefuses(t *testing.T) {
	for _, text := range []string{
		`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"done"}]}`,
		`{"operations":[{"id":"a","kind":"Get","begin":1,"end":2,"outcome":"acknowledged"}]}`,
		`{"operations":[{"id":"a","kind":"Put","begin":1,"outcome":"acknowledged"}]}`,
		`{"operations":[{"id":"a","kind":"Put","begin":1,"end":2,"outcome":"unknown","also":1}]}`,
		`{"operations":[`,
	} {
		for _, err := range linearizability.Read(strings.NewReader(text)) {
			assert.Error(t, err, text)
		}
	}
}

// Small random histories get the result of a search that leaves nothing out.
func TestCheckAgreesWithAFullSearch(t *testing.T) {
	results := map[porcupine.CheckResult]int{}
	for seed := range uint64(20_000) {
		h := invent(rand.New(rand.NewPCG(seed, 0)))
		want := porcupine.Illegal
		if (search{h}).from(0, nil) {
			want = porcupine.Ok
		}
		results[want]++
		require.Equal(t, want, h.Check(time.Minute), "%d\nper key: %v\n%s", seed, h.PerKey, h)
	}
	t.Log(results)
	assert.Greater(t, results[porcupine.Ok], 2000)
	assert.Greater(t, results[porcupine.Illegal], 2000)
}

// invent makes a history: an order of operations with what each finds, of which most are right.
func invent(rng *rand.Rand) linearizability.History {
	h := linearizability.History{PerKey: rng.IntN(2) == 0}
	kinds := []linearizability.Kind{"Put", "Update", "Create", "CompareAndPut", "Delete", "Pop"}
	var value []string
	for i := range 1 + rng.IntN(6) {
		at := int64(10 * (i + 1))
		o := linearizability.Operation{ID: string(rune('a' + i)), Kind: kinds[rng.IntN(len(kinds))], Begin: at - rng.Int64N(15), End: at + rng.Int64N(15),
			Outcome: linearizability.Acknowledged}
		found := slices.Clone(value)
		if rng.IntN(3) == 0 && len(found) > 0 {
			found = found[:len(found)-1]
		}
		exists := len(value) > 0
		switch o.Kind {
		case linearizability.Put:
			value = []string{o.ID}
		case linearizability.Update:
			o.Saw = [][]string{found}
			value = append(slices.Clone(value), o.ID)
		case linearizability.CompareAndPut:
			o.Basis = found
			value = append(slices.Clone(value), o.ID)
		case linearizability.Delete:
			value = nil
		case linearizability.Create:
			if exists {
				o.Outcome = linearizability.Refused
			} else {
				value = []string{o.ID}
			}
		case linearizability.Pop:
			if o.Got = found; exists {
				value = nil
			} else {
				o.Outcome = linearizability.Refused
			}
		}
		if o.Outcome == linearizability.Acknowledged && rng.IntN(3) == 0 {
			o.Outcome = linearizability.Unknown
			if rng.IntN(2) == 0 && len(value) > 0 && value[len(value)-1] == o.ID { // it never happened
				value = value[:len(value)-1]
			}
		}
		h.Operations = append(h.Operations, o)
	}
	h.Final = value
	return h
}

// search tries every order of the operations, with and without those that need not have happened.
type search struct{ linearizability.History }

func (s search) from(done int, value []string) bool {
	finished := true
	for i, o := range s.Operations {
		if done&(1<<i) != 0 {
			continue
		}
		finished = finished && o.Outcome == linearizability.Unknown
		first := true
		for j, other := range s.Operations {
			first = first && (done&(1<<j) != 0 || !endsBefore(other, o))
		}
		if !first {
			continue
		}
		if next, ok := effect(o, value); ok && s.from(done|1<<i, next) {
			return true
		}
		if s.overwritten(o) && s.from(done|1<<i, value) {
			return true
		}
	}
	return finished && slices.Equal(value, s.Final)
}

func endsBefore(o, other linearizability.Operation) bool {
	return o.Outcome != linearizability.Unknown && o.End < other.Begin
}

func (s search) overwritten(o linearizability.Operation) bool {
	for _, other := range s.Operations {
		plain := other.Kind == linearizability.Put || other.Kind == linearizability.Delete
		if plain || endsBefore(o, other) || endsBefore(other, o) || other.Outcome == linearizability.Refused && o.Kind != linearizability.Delete {
			continue
		}
		if s.PerKey && o.Outcome == linearizability.Acknowledged && (o.Kind == linearizability.Put || o.Kind == linearizability.Delete) {
			return true
		}
	}
	return false
}

func effect(o linearizability.Operation, value []string) (next []string, ok bool) {
	exists, refused, known := len(value) > 0, o.Outcome == linearizability.Refused, o.Outcome == linearizability.Acknowledged
	added := append(slices.Clone(value), o.ID)
	switch o.Kind {
	case linearizability.Put:
		return []string{o.ID}, true
	case linearizability.Update:
		return added, !known || slices.ContainsFunc(o.Saw, func(saw []string) bool { return slices.Equal(saw, value) })
	case linearizability.Create:
		if refused {
			return value, exists
		}
		return added, !exists
	case linearizability.CompareAndPut:
		return added, slices.Equal(o.Basis, value)
	case linearizability.Delete:
		return nil, true
	case linearizability.Pop:
		if refused {
			return nil, !exists
		}
		return nil, !known || exists && slices.Equal(o.Got, value)
	}
	return nil, false
}
