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

// Call is one call of a store's method, as its caller saw it. A PutAll is a Put of each of its keys.
type Call struct {
	Process, Goroutine int
	Op                 Op
	Key                string
	Token              string // what was written
	Saw                []string
	Found              bool // whether the key was there, as the call saw it
	Err                error

	Start, End, Deadline time.Time
}

// acknowledged tells whether the call returned nil.
func (c *Call) acknowledged() bool { return c.Err == nil }

// refused tells whether the call has done nothing because of what was there.
func (c *Call) refused() bool {
	switch c.Op {
	case Create:
		return errors.Is(c.Err, roomkv.ErrExists)
	case Swap:
		return errors.Is(c.Err, roomkv.ErrConflict)
	case Pop, Get:
		return errors.Is(c.Err, roomkv.ErrNotFound)
	}
	return false
}

// uncertain tells whether the call can have happened though it failed.
func (c *Call) uncertain() bool { return c.Err != nil && !c.refused() }

func (c *Call) reads() bool { return c.Op == Get || c.Op == ListAll }

// line describes the call to people, with its times since then.
func (c *Call) line(since time.Time) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%8.3f–%8.3f  process %d.%d  %s %s", c.Start.Sub(since).Seconds(), c.End.Sub(since).Seconds(), c.Process, c.Goroutine, c.Op, c.Key)
	if c.Token != "" {
		fmt.Fprintf(&text, " %s", c.Token)
	}
	if c.Op == Append || c.Op == Swap || c.Op == Pop && c.Err == nil || c.Op == Get {
		fmt.Fprintf(&text, ", saw %s", list(c.Saw, c.Found))
	}
	switch {
	case c.Err == nil:
		text.WriteString(": acknowledged")
	case c.refused():
		fmt.Fprintf(&text, ": refused (%s)", firstLine(c.Err))
	default:
		fmt.Fprintf(&text, ": failed (%s)", firstLine(c.Err))
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
