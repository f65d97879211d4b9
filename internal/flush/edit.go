package flush

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/roomkv/roomkv/internal/wire"
)

// What an edit takes of the memory of a process beside its key and its value, in bytes, and what each function takes. Both are about that.
const (
	editSize = 200
	stepSize = 100
)

// edit is what is to become of a key. It does not change.
type edit struct {
	value json.RawMessage // the stored form, nil where the key is to be removed
	from  *was            // what the first function was given, nil where the edit does not depend on what is there
	steps []Function      // that have made the value of that, one after the other
	since time.Time       // of the first of all that it has come from
}

// was is what was there for a key.
type was struct {
	value json.RawMessage // JSON
	found bool
}

// result is what will be there for the key.
func (e *edit) result() was {
	return wasOf(e.value)
}

// wasOf is what is there once that was stored, or removed where it is nil.
func wasOf(stored json.RawMessage) was {
	if stored == nil {
		return was{}
	}
	return was{text(stored), true}
}

func (e *edit) size(key string) int {
	return len(key) + len(e.value) + editSize + stepSize*len(e.steps)
}

// onto is the edit after one that comes first.
func (e *edit) onto(first *edit) *edit {
	after := &edit{value: e.value, since: first.since}
	if e.from != nil && first.from != nil {
		after.from, after.steps = first.from, append(first.steps[:len(first.steps):len(first.steps)], e.steps...)
	}
	return after
}

// again makes the value of something else than it was made of.
func (e *edit) again(of was) (value json.RawMessage, err error) {
	if of.same(*e.from) {
		return e.value, nil
	}
	for _, step := range e.steps {
		if value, err = call(step, of); err != nil {
			return nil, err
		}
		of = wasOf(value)
	}
	return value, nil
}

// errPanicked is the error of a function that panicked when it ran again. What it panicked with can be a value.
var errPanicked = errors.New("roomkv: the function given to Update panicked when it was called again")

// call calls a function that nobody waits for any more, and whose panic would end the process.
func call(step Function, of was) (value json.RawMessage, err error) {
	returned := false
	defer func() {
		if !returned {
			_ = recover()
			value, err = nil, errPanicked
		}
	}()
	value, err = step(of.value, of.found)
	returned = true
	return value, err
}

func (w was) same(other was) bool {
	return w.found == other.found && (!w.found || bytes.Equal(w.value, other.value) || wire.Same(w.value, other.value))
}

// text is the JSON of a stored form that this process has made.
func text(stored json.RawMessage) json.RawMessage {
	read, err := wire.Decode(stored)
	if err != nil {
		return stored
	}
	return bytes.Clone(read.JSON) // which whoever gets it may change
}
