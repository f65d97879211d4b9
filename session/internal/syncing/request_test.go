package syncing

import (
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const (
	goodEvent = `{"event_id":"$1","type":"m.room.message","sender":"@x:y","content":{}}`
	badEvent  = `{"event_id":5,"type":"m.room.message","sender":"@x:y","content":{}}`
)

func TestReadable(t *testing.T) {
	for before, after := range map[string]string{
		`{"chunk":[EVENTS],"state":[EVENTS]}`:                                  `{"chunk":[GOOD],"state":[GOOD]}`,
		`{"rooms":{"join":{"!r":{"timeline":{"events":[EVENTS]}}}},"to":null}`: `{"rooms":{"join":{"!r":{"timeline":{"events":[GOOD]}}}},"to":null}`,
		`{"rooms":{"invite":{"!r":{"invite_state":{"events":[EVENTS]}}}}}`:     `{"rooms":{"invite":{"!r":{"invite_state":{"events":[GOOD]}}}}}`,
	} {
		got, left, err := readable([]byte(strings.ReplaceAll(before, "EVENTS", badEvent+","+goodEvent)), deepest)
		require.NoError(t, err)
		assert.JSONEq(t, strings.ReplaceAll(after, "GOOD", goodEvent), string(got))
		assert.Equal(t, strings.Count(before, "EVENTS"), left)
	}
}

// A homeserver must not keep the bot busy with an answer that is deep.
func TestReadableOfADeepAnswer(t *testing.T) {
	const depth = 1000
	text := strings.Repeat(`{"a":`, depth) + `"` + strings.Repeat("x", 1<<20) + `"` + strings.Repeat("}", depth)
	before := time.Now()
	got, _, err := readable([]byte(text), deepest)
	require.NoError(t, err)
	assert.Len(t, got, len(text))
	assert.Less(t, time.Since(before), 10*time.Second)
}
