package linearizability

import (
	"hash/maphash"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/anishathalye/porcupine"
)

// Check looks for an order, and gives porcupine.Unknown where there is neither one nor proof of none within that time.
func (h History) Check(within time.Duration) porcupine.CheckResult {
	return porcupine.CheckOperationsTimeout(model, h.porcupine(), within)
}

// step is an operation as the model sees it.
type step struct {
	Operation
	final  bool     // this is no operation, but what the key is at the end
	unseen bool     // it may have been overwritten by an operation that had not seen it
	saw    []string // as the operation's, each value as one text
	shown  *shown
}

// shown is what a history shows of the values in between.
type shown struct {
	begins         map[state]bool // what the values begin with that somebody is known to have found
	refusedCreates bool           // whether somebody was told only that there was a value
}

func (h History) shown() *shown {
	all := &shown{begins: map[state]bool{}}
	add := func(tokens []string) {
		for n := range tokens {
			all.begins[state(text(tokens[:n+1]))] = true
		}
	}
	add(h.Final)
	for _, o := range h.Operations {
		all.refusedCreates = all.refusedCreates || o.Kind == Create && o.Outcome == Refused
		if o.Outcome != Acknowledged {
			continue
		}
		for _, value := range o.Saw {
			add(value)
		}
		add(o.Basis)
		add(o.Got)
	}
	return all
}

// porcupine gives the operations, and after them a read of the final value. An operation of which nobody knows whether it happened has no
// end. Its place can be after that read, and there nothing counts any more.
func (h History) porcupine() []porcupine.Operation {
	var all []porcupine.Operation
	last, shown := int64(0), h.shown()
	for _, o := range h.Operations {
		s := step{Operation: o, unseen: h.unseen(o), shown: shown}
		for _, value := range o.Saw {
			s.saw = append(s.saw, text(value))
		}
		last = max(last, o.Begin)
		if o.Outcome != Unknown {
			last = max(last, o.End)
		}
		all = append(all, porcupine.Operation{Input: s, Call: o.Begin, Return: o.until()})
	}
	return append(all, porcupine.Operation{Input: step{final: true, Operation: Operation{Got: h.Final}}, Call: last + 1, Return: last + 1})
}

// until is when the operation has happened, if it has.
func (o Operation) until() int64 {
	if o.Outcome == Unknown {
		return math.MaxInt64
	}
	return o.End
}

// unseen tells whether the operation may be without effect though its caller was told that it is done: with a state event for each key a
// Put or a Delete is a request that builds on nothing, and a conditional operation at the same time can have read before it. docs/guarantees.md says so.
// A conditional operation that was refused excuses no Put, for it stored nothing. It excuses a Delete, as in the simulation's own check.
func (h History) unseen(o Operation) bool {
	return h.PerKey && !o.conditional() && o.Outcome == Acknowledged && slices.ContainsFunc(h.Operations, func(other Operation) bool {
		atOnce := other.until() >= o.Begin && o.until() >= other.Begin
		return atOnce && other.conditional() && (o.Kind == Delete || other.Outcome != Refused)
	})
}

// state is what a key is: its tokens as one text, empty where it is missing. After the read of the final value it is over.
type state string

const over state = "\x00"

var seed = maphash.MakeSeed()

var model = (&porcupine.NondeterministicModel{
	Init: func() []any { return []any{state("")} },
	Step: func(at, input, _ any) []any {
		var states []any
		for _, next := range input.(step).from(at.(state)) {
			states = append(states, next)
		}
		return states
	},
	Hash: func(at any) uint64 { return maphash.String(seed, string(at.(state))) },
}).ToModel()

// from gives what the operation can make of a value. There is nothing where it cannot have happened then.
func (s step) from(value state) []state {
	if value == over {
		return []state{over}
	}
	if s.final {
		if text(s.Got) == string(value) {
			return []state{over}
		}
		return nil
	}
	next := s.effect(value)
	if s.Outcome == Unknown {
		next = slices.DeleteFunc(next, func(next state) bool { return s.shown.needless(value, next) })
	}
	if s.unseen {
		next = append(next, value)
	}
	return next
}

// needless tells whether an operation that may never have happened need not have made the one value of the other: an order that has it there
// holds without it too. Until something replaces or removes the value again, nobody finds it who is known to have found anything, nor what
// others like it add to it. All that they change is whether there is a value. The search would take too long without this: it would try
// every set of the operations whose outcome is unknown.
func (s *shown) needless(value, next state) bool {
	if next == "" {
		return value == ""
	}
	return !s.begins[next] && (value != "" || !s.refusedCreates)
}

func (s step) effect(value state) []state {
	if s.Outcome == Refused {
		return s.refused(value)
	}
	known, exists := s.Outcome == Acknowledged, value != ""
	fits := true // whether it can have happened where this was there
	switch s.Kind {
	case Put:
		return []state{state(s.ID)}
	case Delete:
		return []state{""}
	case Pop:
		if fits = !known || exists && text(s.Got) == string(value); fits {
			return []state{""}
		}
		return nil
	case Update:
		fits = !known || slices.Contains(s.saw, string(value))
	case Create:
		fits = !exists
	case CompareAndPut:
		fits = text(s.Basis) == string(value)
	}
	if !fits {
		return nil
	}
	return []state{state(strings.TrimSpace(string(value) + " " + s.ID))}
}

// refused leaves the value as it is, if that is a reason to refuse the operation.
func (s step) refused(value state) []state {
	exists := value != ""
	if s.Kind == Create && !exists || s.Kind == Pop && exists {
		return nil
	}
	return []state{value}
}

// text is a value as one text.
func text(tokens []string) string { return strings.Join(tokens, " ") }
