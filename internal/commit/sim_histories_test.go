package commit_test

import (
	"encoding/json"
	"errors"
	"flag"
	"os"
	"slices"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

var historiesFile = flag.String("histories", "", "the file, seen from internal/commit, into which TestSimulation writes the operations of each key that it judges")

// keyHistory is a line of that file: the operations that can change a key in a run, and the key's value at the end. The readers of the
// file are in package linearizability, which cannot import a test.
type keyHistory struct {
	Seed       uint64         `json:"seed"` // as -seed takes it
	Mode       string         `json:"mode"` // the kind of homeserver: ordered or forking
	PerKey     bool           `json:"per_key"`
	Key        string         `json:"key"`
	Operations []keyOperation `json:"operations"`
	Final      []string       `json:"final"` // tokens; there are none where the key is missing
	Undecided  bool           `json:"undecided,omitempty"`
}

// keyOperation is an operation in a line of that file.
type keyOperation struct {
	ID      string     `json:"id"` // also the token that it adds to the value
	Process string     `json:"process"`
	Kind    string     `json:"kind"`
	Begin   int64      `json:"begin"`           // in nanoseconds of virtual time since the run began
	End     int64      `json:"end,omitempty"`   // 0 where it never returned
	Outcome string     `json:"outcome"`         // acknowledged, refused, or unknown
	Basis   []string   `json:"basis,omitempty"` // what a CompareAndPut compares with
	Saw     [][]string `json:"saw,omitempty"`   // what was there, each time the new value was made
	Got     []string   `json:"got,omitempty"`   // by a Pop
	Error   string     `json:"error,omitempty"` // for people
}

// record keeps the operations on a key as they are at this moment. Undecided is what the run's own check says of them.
func (w *world) record(key string, final []string, undecided bool) {
	if slices.ContainsFunc(w.on(key), func(o *op) bool { return o.Kind == expire }) { // which the readers of the file do not know
		return
	}
	h := keyHistory{Mode: w.mode(), PerKey: w.OneName, Key: key, Final: final, Undecided: undecided}
	for _, o := range w.on(key) {
		if o.Kind == transact && (o.Looks || o.refused()) { // which the readers of the file do not know
			continue
		}
		k := keyOperation{ID: o.ID, Process: o.process.name, Kind: kindOf(o), Begin: o.start.Sub(w.began).Nanoseconds(), Outcome: "unknown"}
		switch {
		case o.acknowledged():
			k.Outcome = "acknowledged"
		case o.refused():
			k.Outcome = "refused"
		}
		if o.done {
			k.End = o.end.Sub(w.began).Nanoseconds()
		}
		if o.err != nil {
			k.Error = o.err.Error()
		}
		k.Basis, k.Saw, k.Got = slices.Clone(o.basis), o.found(key), slices.Clone(o.got)
		h.Operations = append(h.Operations, k)
	}
	w.recorded = append(w.recorded, h)
}

// kindOf is the operation as one key sees it.
func kindOf(o *op) string {
	if o.Kind == transact {
		return update.String()
	}
	return o.Kind.String()
}

func (w *world) mode() string {
	if w.Forking {
		return "forking"
	}
	return "ordered"
}

// histories is that file while runs are made.
type histories struct {
	mu   sync.Mutex
	file *os.File
}

// openHistories is nil without -histories.
func openHistories(t *testing.T) *histories {
	if *historiesFile == "" {
		return nil
	}
	file, err := os.Create(*historiesFile)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, file.Close()) })
	return &histories{file: file}
}

// write adds the keys of a run.
func (h *histories) write(t *testing.T, seed uint64, recorded []keyHistory) {
	if h == nil {
		return
	}
	h.mu.Lock()
	defer h.mu.Unlock()
	lines := json.NewEncoder(h.file)
	var err error
	for _, line := range recorded {
		line.Seed = seed
		err = errors.Join(err, lines.Encode(line))
	}
	if err != nil {
		t.Error(err)
	}
}
