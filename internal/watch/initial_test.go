package watch

import (
	"encoding/json"
	"fmt"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// spelled are changes as lines.
type spelled []string

func (s *spelled) add(change Change, err error) bool {
	line := fmt.Sprintf("%s %s->%s %s", change.Key, change.Old, change.New, change.Event)
	if change.EndOfInitial {
		line = fmt.Sprintf("end %s", change.Event)
	}
	if err != nil {
		line += " corrupt"
	}
	*s = append(*s, line)
	return true
}

// What is told first is what the first change is told against, also where two writers have not seen one another.
func TestTellInitial(t *testing.T) {
	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	w.start = milestone{event: "$3"}
	w.add(dictOf("$1", 1, `{"b":2,"a":1,"unwanted":0,"roomkv.later":1}`))
	w.add(dictOf("$2", 2, `{"b":3,"a":1,"unwanted":0}`, "$1"))
	w.add(dictOf("$3", 3, `{"b":2,"a":1,"c":4}`, "$1"))
	var told spelled
	left, err := w.tellInitial(t.Context(), told.add)
	require.NoError(t, err)
	assert.False(t, left)
	assert.Equal(t, spelled{"a ->1 $3", "b ->3 $3", "c ->4 $3", "end $3"}, told)

	told = nil
	_, err = w.tell(t.Context(), dictOf("$4", 4, `{"b":5,"c":4}`, "$2", "$3"), told.add)
	require.NoError(t, err)
	assert.Equal(t, spelled{"a 1-> $4", "b 3->5 $4"}, told)

	for times := range 3 {
		n := 0
		left, err = w.tellInitial(t.Context(), func(Change, error) bool { n++; return n <= times })
		require.NoError(t, err)
		assert.True(t, left)
		assert.Equal(t, times+1, n, "the loop is left")
	}
}

func TestTellInitialOfNothing(t *testing.T) {
	var told spelled
	_, err := watchOf(t, memory.Settings{Layout: memory.PerKey{}}).tellInitial(t.Context(), told.add)
	require.NoError(t, err)
	assert.Equal(t, spelled{"end "}, told)
}

// An event that cannot be read is told as an error, and others all the same.
func TestTellInitialWithWhatCannotBeRead(t *testing.T) {
	w := watchOf(t, memory.Settings{Layout: memory.PerKey{}})
	at := func(stateKey string, evt *matrix.Event) *matrix.Event {
		evt.StateKey = &stateKey
		return evt
	}
	for _, evt := range []*matrix.Event{
		at("a", dictOf("$a", 1, `{"a":1}`)), at("gone", dictOf("$gone", 1, `{}`)), at("unwanted", dictOf("$u", 1, `{"unwanted":1}`)),
		at("bad", dictOf("$bad", 1, `[]`)), at("marker", dictOf("$m", 1, `{"marker":{"json_val":5}}`)),
	} {
		w.add(evt)
	}
	var told spelled
	_, err := w.tellInitial(t.Context(), told.add)
	require.NoError(t, err)
	assert.Equal(t, spelled{" -> $bad corrupt", "a ->1 $a", "marker -> $m corrupt", "end "}, told)
}

func TestTellInitialNeedsTheSecret(t *testing.T) {
	sealed := watchOf(t, memory.Settings{Layout: memory.OneDict{}, Secret: []byte("sixteen bytes or more")})
	content := `{"a":1,"roomkv.seal":` + string(sealed.Seal()) + `}`
	for secret, want := range map[string]error{"": fault.ErrWrongSecret, "another of sixteen bytes": fault.ErrWrongSecret, "sixteen bytes or more": nil} {
		settings := memory.Settings{Layout: memory.OneDict{}}
		if secret != "" {
			settings.Secret = []byte(secret)
		}
		w := watchOf(t, settings)
		w.add(dictOf("$1", 1, content))
		var told spelled
		_, err := w.tellInitial(t.Context(), told.add)
		require.ErrorIs(t, err, want)
		if want == nil {
			assert.Equal(t, spelled{"end "}, told, "a plain key beside sealed ones is none")
		}
	}
}

// Whoever has a change may change what it holds.
func TestTellInitialSharesNothing(t *testing.T) {
	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	w.add(dictOf("$1", 1, `{"a":{"b":1}}`))
	for range 2 {
		_, err := w.tellInitial(t.Context(), func(change Change, err error) bool {
			if !change.EndOfInitial {
				assert.Equal(t, json.RawMessage(`{"b":1}`), change.New)
				change.New[1] = 'x'
			}
			return assert.NoError(t, err)
		})
		require.NoError(t, err)
	}
}
