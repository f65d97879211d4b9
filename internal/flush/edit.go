package flush

import (
	"bytes"
	"encoding/json"
	"errors"
	"time"

	"github.com/roomkv/roomkv/internal/memory"
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
	from  *memory.Old     // what the first function was given, nil where the edit does not depend on what is there
	steps []Function      // that have made the value of that, one after the other
	since time.Time       // of the first of all that it has come from
}

// result is what will be there for the key.
func (e *edit) result() memory.Old { return oldOf(e.value) }

// oldOf is what is there once that was stored, a stored form that this process has made, or removed where it is nil.
func oldOf(stored json.RawMessage) memory.Old {
	if stored == nil {
		return memory.Old{}
	}
	read, err := wire.Decode(stored)
	if err != nil {
		return memory.Old{Value: stored, Found: true}
	}
	return memory.Old{Value: bytes.Clone(read.JSON), Found: true, Expires: read.Expires} // the caller may change the value
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
func (e *edit) again(of memory.Old) (value json.RawMessage, err error) {
	if same(of, *e.from) {
		return e.value, nil
	}
	for _, step := range e.steps {
		if value, err = call(step, of); err != nil {
			return nil, err
		}
		of = oldOf(value)
	}
	return value, nil
}

// errPanicked is the error of a function that panicked when it ran again. What it panicked with can be a value.
var errPanicked = errors.New("roomkv: the function given to Update panicked when it was called again")

// call calls a function that nobody waits for any more, and whose panic would end the process.
func call(step Function, of memory.Old) (value json.RawMessage, err error) {
	returned := false
	defer func() {
		if !returned {
			_ = recover()
			value, err = nil, errPanicked
		}
	}()
	value, err = step(of)
	returned = true
	return value, err
}

func same(a, b memory.Old) bool {
	return a.Found == b.Found && a.Expires == b.Expires && (!a.Found || bytes.Equal(a.Value, b.Value) || wire.Same(a.Value, b.Value))
}
