package transfer

import (
	"errors"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/fault"
)

func TestLeftOut(t *testing.T) {
	first, second := errors.New("first"), errors.New("second")
	var l leftOut
	assert.Equal(t, `[]`, l.named())
	l.add(`a"`, nil)
	assert.Equal(t, `["a\""]`, l.named())
	l.add("b", first)
	l.add("c", second)
	l.add("d", nil)
	l.add("e", nil)
	assert.Equal(t, `["a\"" "b" "c" "d" "e"]`, l.named(), "as many as are named")
	assert.Equal(t, maxNamed, l.n)
	l.add("f", nil)
	assert.Equal(t, `["a\"" "b" "c" "d" "e"] and 1 more`, l.named())
	for i := range 1000 {
		l.add(fmt.Sprint(i), nil)
	}
	assert.Equal(t, `["a\"" "b" "c" "d" "e"] and 1001 more`, l.named())
	assert.Equal(t, first, l.err, "why the first was not brought")
	assert.Len(t, l.keys, maxNamed, "more are not remembered")
}

func TestLeft(t *testing.T) {
	tooLarge := fault.Of(fault.ErrTooLarge, nil, "the value for key %q", "large")
	for _, test := range []struct {
		about          string
		large          error
		kept, differed []string
		kinds          []error
		holds          []string
	}{
		{about: "nothing"},
		{about: "too large", large: tooLarge, kinds: []error{fault.ErrTooLarge}, holds: []string{`"large"`}},
		{about: "kept", kept: []string{"a", "b"}, kinds: []error{fault.ErrExists}, holds: []string{`"a" "b"`}},
		{about: "differed", differed: []string{"c"}, kinds: []error{fault.ErrConflict}, holds: []string{`"c"`}},
		{about: "all", large: tooLarge, kept: []string{"a"}, differed: []string{"c"}, kinds: []error{fault.ErrTooLarge, fault.ErrExists, fault.ErrConflict}, holds: []string{`"large"`, `"a"`, `"c"`}},
	} {
		var left transfer
		if test.large != nil {
			left.tooLarge.add("large", test.large)
		}
		for _, key := range test.kept {
			left.kept.add(key, nil)
		}
		for _, key := range test.differed {
			left.differed.add(key, nil)
		}
		err := left.left()
		for _, kind := range []error{fault.ErrTooLarge, fault.ErrExists, fault.ErrConflict} {
			assert.Equal(t, contains(test.kinds, kind), errors.Is(err, kind), "%s: %v", test.about, kind)
		}
		for _, text := range test.holds {
			assert.ErrorContains(t, err, text, test.about)
		}
		assert.Equal(t, len(test.kinds) == 0, err == nil, test.about)
	}
}

func contains(errs []error, kind error) bool {
	for _, err := range errs {
		if errors.Is(err, kind) {
			return true
		}
	}
	return false
}
