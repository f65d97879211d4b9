package load

import (
	"slices"
	"strings"
	"time"
)

// verdict is what a search for a legal order has found.
type verdict int

const (
	legal verdict = iota
	illegal
	undecided // the search has ended before it was through
)

// maxSteps bounds a search.
const maxSteps = 500_000

// final is what is there in the end.
type final struct {
	tokens []string
	found  bool
}

const absent = "\x00" // the state of a key that is not there

func stateOf(tokens []string, found bool) string {
	if !found {
		return absent
	}
	return strings.Join(tokens, " ")
}

// linearizable tells whether there is an order of the calls of one key in which each has the result that it had, the last state is the final
// one, where that is given, and no call comes after one that began when it had ended. A call that failed can have happened once at any moment
// after it began, or never. Herlihy and Wing's definition, Wing and Gong's search.
func linearizable(calls []*Call, end *final) verdict {
	s := search{end: end}
	for _, call := range calls {
		if !call.reads() {
			s.calls = append(s.calls, call)
		}
	}
	slices.SortStableFunc(s.calls, func(a, b *Call) int { return a.Start.Compare(b.Start) })
	s.done = make([]byte, len(s.calls))
	s.seen = map[string]bool{}
	found := s.from(absent)
	switch {
	case found:
		return legal
	case s.steps > maxSteps:
		return undecided
	}
	return illegal
}

type search struct {
	calls []*Call
	end   *final
	done  []byte // 1 for each call that has happened
	seen  map[string]bool
	steps int
}

// from tells whether the calls that are left have a legal order from the state on.
func (s *search) from(state string) bool {
	if s.steps++; s.steps > maxSteps {
		return false
	}
	at := string(s.done) + state
	if s.seen[at] {
		return false
	}
	s.seen[at] = true
	left, first := false, time.Time{} // whether calls are left that have happened, and when the first of them had ended
	for i, call := range s.calls {
		if s.done[i] == 0 && call.Outcome != Failed {
			if !left || call.End.Before(first) {
				first = call.End
			}
			left = true
		}
	}
	if !left && (s.end == nil || state == stateOf(s.end.tokens, s.end.found)) {
		return true
	}
	for i, call := range s.calls {
		if left && call.Start.After(first) {
			break
		}
		if s.done[i] == 1 {
			continue
		}
		next, ok := step(state, call)
		if !ok || call.Outcome == Failed && next == state {
			continue
		}
		s.done[i] = 1
		if s.from(next) {
			return true
		}
		s.done[i] = 0
	}
	return false
}

// step tells what the call makes of the state, and whether it can have had its result there.
func step(state string, call *Call) (next string, ok bool) {
	sure := call.Outcome != Failed
	switch call.Op {
	case Put:
		return call.Token, true
	case Delete:
		return absent, true
	case Append:
		if state == absent {
			return call.Token, !sure || !call.Found
		}
		return state + " " + call.Token, !sure || stateOf(call.Saw, call.Found) == state
	case Create:
		if call.Outcome == Refused {
			return state, state != absent
		}
		return call.Token, state == absent
	case Swap:
		if call.Outcome == Refused { // the value can have been written anew, so that nothing follows
			return state, true
		}
		return call.Token, stateOf(call.Saw, call.Found) == state
	case Pop:
		switch {
		case call.Outcome == Refused:
			return state, state == absent
		case sure:
			return absent, state == stateOf(call.Saw, true)
		}
		return absent, true
	}
	return state, true
}
