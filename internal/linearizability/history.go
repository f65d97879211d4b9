// Package linearizability checks the histories that the simulation in internal/commit writes: whether one order of all operations on a key
// explains what each caller was told and what the key is at the end.
//
// The simulation's own check looks for that order too, and gives up after some hundred thousand steps. This one goes on, and shares no
// code with it.
package linearizability

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"iter"
	"strings"
	"time"
)

// History is a line of the file: the operations that can change a key in one run, and the key's value at the end. A value is a list of
// tokens: each operation that stores something adds its ID to what was there, or replaces that.
type History struct {
	Seed       uint64      `json:"seed"` // go test ./internal/commit -run 'TestSimulation$' -seed=K makes the run again
	Mode       string      `json:"mode"` // the kind of homeserver: ordered or forking
	PerKey     bool        `json:"per_key"`
	Key        string      `json:"key"`
	Operations []Operation `json:"operations"`
	Final      []string    `json:"final"`     // there are no tokens where the key is missing
	Undecided  bool        `json:"undecided"` // whether the simulation's own check gave up
}

// Operation is a call of a method that can change a key.
type Operation struct {
	ID      string     `json:"id"`
	Process string     `json:"process"`
	Kind    Kind       `json:"kind"`
	Begin   int64      `json:"begin"` // in nanoseconds of virtual time
	End     int64      `json:"end"`   // 0 where it never returned
	Outcome Outcome    `json:"outcome"`
	Basis   []string   `json:"basis"` // what a CompareAndPut compares with
	Saw     [][]string `json:"saw"`   // what was there, each time the new value was made
	Got     []string   `json:"got"`   // by a Pop
	Error   string     `json:"error"` // for people
}

// Kind is the method of a Store.
type Kind string

// The methods that can change a key.
const (
	Put           Kind = "Put"
	Update        Kind = "Update"
	Create        Kind = "Create"
	CompareAndPut Kind = "CompareAndPut"
	Delete        Kind = "Delete"
	Pop           Kind = "Pop"
)

// Outcome is what the caller knows afterwards.
type Outcome string

// The outcomes.
const (
	Acknowledged Outcome = "acknowledged" // it happened
	Refused      Outcome = "refused"      // it changed nothing, for what was there

	// Unknown is of a call that failed or never returned, or whose account was losing its power. It happened at any time after its
	// begin, or never.
	Unknown Outcome = "unknown"
)

// conditional tells whether what is stored depends on what is there.
func (o Operation) conditional() bool { return o.Kind != Put && o.Kind != Delete }

// Read gives the histories of a file. An error ends the iteration.
func Read(from io.Reader) iter.Seq2[History, error] {
	return func(yield func(History, error) bool) {
		lines := json.NewDecoder(from)
		lines.DisallowUnknownFields() // the simulation has a copy of the types, and a field that it adds must not be overlooked
		for {
			var h History
			err := lines.Decode(&h)
			if errors.Is(err, io.EOF) {
				return
			}
			if err == nil {
				err = h.valid()
			}
			if !yield(h, err) || err != nil {
				return
			}
		}
	}
}

// valid fails for what no simulation writes.
func (h History) valid() error {
	for _, o := range h.Operations {
		switch o.Outcome {
		case Acknowledged, Refused:
			if o.End < o.Begin {
				return fmt.Errorf("seed %d, %s, %s: %s ends before it begins", h.Seed, h.Mode, h.Key, o.ID)
			}
		case Unknown:
		default:
			return fmt.Errorf("seed %d, %s, %s: %s has the outcome %q", h.Seed, h.Mode, h.Key, o.ID, o.Outcome)
		}
		switch o.Kind {
		case Put, Update, Create, CompareAndPut, Delete, Pop:
		default:
			return fmt.Errorf("seed %d, %s, %s: %s is a %q", h.Seed, h.Mode, h.Key, o.ID, o.Kind)
		}
	}
	return nil
}

// String is the history for people, an operation a line.
func (h History) String() string {
	var lines strings.Builder
	for _, o := range h.Operations {
		end := "never returned"
		if o.End != 0 {
			end = fmt.Sprintf("%10.4fs", time.Duration(o.End).Seconds())
		}
		fmt.Fprintf(&lines, "%10.4fs – %s  %s %s: %s", time.Duration(o.Begin).Seconds(), end, o.ID, o.Kind, o.Outcome)
		switch {
		case o.Kind == CompareAndPut:
			fmt.Fprintf(&lines, ", compared with %v", o.Basis)
		case o.Kind == Pop && o.Outcome == Acknowledged:
			fmt.Fprintf(&lines, ", got %v", o.Got)
		case len(o.Saw) > 0:
			fmt.Fprintf(&lines, ", saw %v", o.Saw)
		}
		if o.Error != "" {
			fmt.Fprintf(&lines, " (%s)", o.Error)
		}
		lines.WriteByte('\n')
	}
	return fmt.Sprintf("%sat the end: %v", lines.String(), h.Final)
}
