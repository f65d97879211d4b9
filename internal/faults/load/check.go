package load

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sort"
	"strings"
	"time"

	"github.com/roomkv/roomkv"
)

// Violation is a guarantee that did not hold.
type Violation struct {
	Kind string // one word or two, for counting
	Key  string
	Text string
}

// The kinds of violations.
const (
	Lost        = "lost"          // what was acknowledged is not there
	Doubled     = "doubled"       // what was done once is there twice
	NotOneOrder = "not one order" // what was acknowledged does not fit into any order of the calls
	OwnUnread   = "own unread"    // a process did not read what it had written
	Vanished    = "vanished"      // a follower did not read again what it had read
	LateReturn  = "late return"   // a call has returned long after its deadline
	Unreadable  = "unreadable"    // what was acknowledged cannot be read
	Unequal     = "unequal"       // a reader reads something else than what the room's state has
	Leak        = "goroutine"     // a goroutine is left
	NotClosed   = "not closed"    // calls fail without faults
	moved       = "moved"         // somebody still writes, a follower that merges for example
)

// tooLate is how long after its deadline a call may return.
const tooLate = 300 * time.Millisecond

func violation(kind, key, format string, args ...any) Violation {
	return Violation{kind, key, fmt.Sprintf(format, args...)}
}

func (r *Run) violated(kind, key, format string, args ...any) {
	r.Violations = append(r.Violations, violation(kind, key, format, args...))
}

const finishTimeout = 60 * time.Second

// closeKeys has a process write once to each key whose writers merge.
func (r *Run) closeKeys(ctx context.Context, by *process) {
	closer := caller{run: r, process: by, timeout: finishTimeout}
	for _, key := range r.keys() {
		switch {
		case slices.Contains(lists, key):
			r.close(ctx, closer, Append, key)
		case slices.Contains(cells, key), slices.Contains(mixed, key):
			r.close(ctx, closer, Create, key)
		}
	}
}

// finish reads all keys with a process that knows nothing, after it has written to them. What a late delivery has done to a single writer's
// memory that writer alone can tell, so there it has written.
func (r *Run) finish(ctx context.Context, reader *process, writers []*member) {
	if !r.Config.SingleWriter {
		r.closeKeys(ctx, reader)
	}
	ctx, cancel := context.WithTimeout(ctx, finishTimeout+redelivery)
	defer cancel()
	fresh := []*process{reader}
	if r.Config.Encrypted && !r.Config.Separate {
		for i, writer := range writers { // the process that comes after it
			next, err := r.open(ctx, -1, writer)
			if err != nil {
				r.violated(Unreadable, "", "process %d cannot be started again: %v", i, err)
				continue
			}
			defer next.stop()
			fresh = append(fresh, next)
		}
	}
	for try := 1; ; try++ {
		found := r.readAll(ctx, fresh)
		has := func(kind string) bool {
			return slices.ContainsFunc(found, func(v Violation) bool { return v.Kind == kind })
		}
		if has(moved) && try < finishTries || has(Unreadable) && r.redelivers() {
			time.Sleep(time.Second)
			continue
		}
		r.Violations = append(r.Violations, found...)
		return
	}
}

// redelivery is how long a Dendrite that was killed can take to serve what it had acknowledged before. What its queues had given out and were
// not told was done they give out again after 30 seconds, NATS's default.
const redelivery = 35 * time.Second

func (r *Run) redelivers() bool { return time.Since(r.restarted) < redelivery }

// closeTries is how often a last call is made until it is acknowledged. Dendrite needs longer than roomkv waits, now and then, to list an event.
const closeTries = 3

func (r *Run) close(ctx context.Context, closer caller, op Op, key string) {
	try := 0
	for ; try < closeTries || r.redelivers(); try++ {
		if call := closer.call(ctx, op, key, fmt.Sprint("closing", try)); call.Outcome != Failed {
			return
		}
		if try >= closeTries {
			time.Sleep(time.Second)
		}
	}
	r.violated(NotClosed, key, "%d calls have failed after all faults had ended", try)
}

// finishTries is how often all is read until nothing changes meanwhile.
const finishTries = 5

// readAll reads all keys with each of the processes, and the room's state where that can be read without.
func (r *Run) readAll(ctx context.Context, fresh []*process) (found []Violation) {
	r.Final = map[string]final{}
	before, err := r.state(ctx)
	if err != nil {
		return append(found, violation(Unreadable, "", "the room's state: %v", err))
	}
	for i, p := range fresh {
		store, err := r.store(p.client)
		if err != nil {
			return append(found, violation(Unreadable, "", "%v", err))
		}
		for _, key := range r.keys() {
			value, err := readKey(ctx, store, key)
			if err != nil {
				found = append(found, violation(Unreadable, key, "reader %d: %v", i, err))
				continue
			}
			if before, ok := r.Final[key]; ok && stateOf(before.tokens, before.found) != stateOf(value.tokens, value.found) {
				found = append(found, violation(Unequal, key, "reader %d reads %s, another has read %s", i, list(value.tokens, value.found), list(before.tokens, before.found)))
			}
			r.Final[key] = value
		}
	}
	after, err := r.state(ctx)
	switch {
	case err != nil:
		return append(found, violation(Unreadable, "", "the room's state: %v", err))
	case !maps.Equal(before.events, after.events):
		found = append(found, violation(moved, "", "the state still changes after all calls have ended"))
	case !r.Config.Encrypted:
		found = append(found, r.compare(after)...)
	}
	return found
}

func readKey(ctx context.Context, store *roomkv.Store, key string) (final, error) {
	var tokens []string
	err := store.Get(ctx, key, &tokens)
	if errors.Is(err, roomkv.ErrNotFound) {
		return final{}, nil
	}
	return final{tokens, err == nil}, err
}

// keys are the keys that calls were made with, sorted.
func (r *Run) keys() (keys []string) {
	for _, call := range r.Calls {
		if call.Key != "" && !slices.Contains(keys, call.Key) {
			keys = append(keys, call.Key)
		}
	}
	sort.Strings(keys)
	return keys
}

// of are the calls with a key.
func (r *Run) of(key string) (calls []*Call) {
	for _, call := range r.Calls {
		if call.Key == key {
			calls = append(calls, call)
		}
	}
	slices.SortStableFunc(calls, func(a, b *Call) int { return a.Start.Compare(b.Start) })
	return calls
}

// check holds the calls against what is promised.
func (r *Run) check(ctx context.Context) {
	for _, key := range r.keys() {
		end, known := r.Final[key]
		if !known { // it could not be read, and that was said
			continue
		}
		calls := r.of(key)
		switch {
		case slices.Contains(lists, key):
			r.checkList(key, calls, end)
		case !slices.ContainsFunc(calls, func(c *Call) bool { return !c.reads() }):
		default:
			r.checkOrder(key, calls, end)
		}
	}
	r.checkReads()
	if len(r.Kills) > 0 && len(r.Violations) > 0 {
		r.excuse(r.displaced(ctx))
	}
}

// checkList checks a key that nothing was done to but to append tokens: the tokens that are there in the end are the order.
func (r *Run) checkList(key string, calls []*Call, end final) {
	at := map[string]int{}
	for i, token := range end.tokens {
		if _, twice := at[token]; twice {
			r.violated(Doubled, key, "%s is there twice: %s", token, list(end.tokens, end.found))
		}
		at[token] = i
	}
	written := map[string]bool{}
	for _, call := range calls {
		if call.Op != Append {
			continue
		}
		written[call.Token] = true
		i, there := at[call.Token]
		switch {
		case call.Outcome != Acknowledged:
		case !there:
			r.violated(Lost, key, "%s was acknowledged and is not in %s", call.Token, list(end.tokens, end.found))
		case !slices.Equal(call.Saw, end.tokens[:i]):
			r.violated(NotOneOrder, key, "%s was appended to %s, and comes after %s", call.Token, list(call.Saw, call.Found), list(end.tokens[:i], true))
		}
	}
	for token := range at {
		if !written[token] {
			r.violated(NotOneOrder, key, "nobody has written %s", token)
		}
	}
	for _, a := range calls {
		for _, b := range calls {
			if a.Op == Append && b.Op == Append && a.Outcome == Acknowledged && b.Outcome == Acknowledged && a.End.Before(b.Start) && at[a.Token] > at[b.Token] {
				r.violated(NotOneOrder, key, "%s comes after %s, which began when it was acknowledged", a.Token, b.Token)
			}
		}
	}
}

// checkOrder checks a key that anything may have been done to.
func (r *Run) checkOrder(key string, calls []*Call, end final) {
	switch linearizable(calls, &end) {
	case legal:
	case undecided:
		r.violated("undecided", key, "the search for an order of %d calls was given up", len(calls))
	case illegal:
		if linearizable(calls, nil) == legal {
			r.violated(Lost, key, "no order of the calls ends with %s", list(end.tokens, end.found))
		} else {
			r.violated(NotOneOrder, key, "no order of the calls gives each the result that it had")
		}
	}
}

// checkReads checks what was read in between: a process reads what it has written, and a follower what it has read.
func (r *Run) checkReads() {
	acknowledged := map[string]time.Time{} // key and token
	for _, call := range r.Calls {
		if call.Op == Append && call.Outcome == Acknowledged {
			acknowledged[call.Key+" "+call.Token] = call.End
		}
	}
	for _, read := range r.Calls {
		if !read.reads() || read.Outcome == Failed {
			continue
		}
		for _, before := range r.Calls {
			if before.Process != read.Process || !before.End.Before(read.Start) {
				continue
			}
			switch {
			case read.Op == Get && before.Op == Append && before.Key == read.Key && before.Outcome == Acknowledged && !slices.Contains(read.Saw, before.Token):
				r.violated(OwnUnread, read.Key, "process %d had appended %s and read %s", read.Process, before.Token, list(read.Saw, read.Found))
			case read.Op == Get && r.Config.Follow && before.Op == Get && before.Key == read.Key:
				for _, token := range before.Saw {
					at, done := acknowledged[read.Key+" "+token]
					if done && at.Before(read.Start) && !slices.Contains(read.Saw, token) {
						r.violated(Vanished, read.Key, "process %d had read %s and then read %s", read.Process, token, list(read.Saw, read.Found))
					}
				}
			case read.Op == ListAll && before.Op == Put && before.Outcome == Acknowledged && strings.HasPrefix(before.Key, "pair/") && !slices.Contains(read.Saw, before.Key):
				r.violated(OwnUnread, before.Key, "process %d had put it, and its Keys does not list it", read.Process)
			}
		}
	}
}

func (r *Run) checkDeadlines(stalls *stalls) {
	for _, call := range r.Calls {
		if late := call.End.Sub(call.Deadline); late > tooLate+stalls.excuse(call.Deadline, call.End) {
			r.violated(LateReturn, call.Key, "%s returned %s after its deadline of %s: %s", call.Op, late.Round(time.Millisecond), call.Deadline.Sub(call.Start), call.line(r.Began))
		}
	}
}
