package load

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/roomkv/roomkv"
)

// Op is what a call does. Each value is a list of tokens, so that one model serves all.
type Op string

const (
	Put     Op = "Put"           // the list becomes the token alone
	Append  Op = "Update"        // the token is appended
	Create  Op = "Create"        // the list becomes the token alone, where there is none
	Swap    Op = "CompareAndPut" // the list becomes the token alone, where it is still the one that was read
	Pop     Op = "Pop"
	Delete  Op = "Delete"
	Get     Op = "Get"
	ListAll Op = "Keys"
)

// Outcome is what a call has ended with.
type Outcome string

const (
	Acknowledged Outcome = "acknowledged" // it has returned nil
	Refused      Outcome = "refused"      // it has done nothing, because of what was there
	Failed       Outcome = "failed"       // it can have happened all the same
)

// Call is one call of a store's method, as its caller saw it. A PutAll is a Put of each of its keys.
type Call struct {
	Process, Goroutine int
	Op                 Op
	Key                string
	Token              string // what was written
	Saw                []string
	Found              bool // whether the key was there, as the call saw it
	Outcome            Outcome
	Why                string // the error's text

	Start, End, Deadline time.Time
}

// outcome tells what an error means.
func (o Op) outcome(err error) Outcome {
	var refusal error
	switch o {
	case Create:
		refusal = roomkv.ErrExists
	case Swap:
		refusal = roomkv.ErrConflict
	case Pop, Get:
		refusal = roomkv.ErrNotFound
	}
	switch {
	case err == nil:
		return Acknowledged
	case refusal != nil && errors.Is(err, refusal):
		return Refused
	}
	return Failed
}

func (c *Call) reads() bool { return c.Op == Get || c.Op == ListAll }

// line describes the call to people, with its times since then.
func (c *Call) line(since time.Time) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%8.3f–%8.3f  process %d.%d  %s %s", c.Start.Sub(since).Seconds(), c.End.Sub(since).Seconds(), c.Process, c.Goroutine, c.Op, c.Key)
	if c.Token != "" {
		fmt.Fprintf(&text, " %s", c.Token)
	}
	if c.Op == Append || c.Op == Swap || c.Op == Pop && c.Outcome == Acknowledged || c.Op == Get {
		fmt.Fprintf(&text, ", saw %s", list(c.Saw, c.Found))
	}
	fmt.Fprintf(&text, ": %s", c.Outcome)
	if c.Why != "" {
		fmt.Fprintf(&text, " (%s)", c.Why)
	}
	return text.String()
}

func list(tokens []string, found bool) string {
	if !found {
		return "nothing"
	}
	return "[" + strings.Join(tokens, " ") + "]"
}

func firstLine(err error) string {
	line, _, _ := strings.Cut(err.Error(), "\n")
	return line[:min(len(line), 200)]
}
