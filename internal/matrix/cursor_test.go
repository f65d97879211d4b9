package matrix

import (
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/roomkv/roomkv/internal/fault"
)

func TestCursor(t *testing.T) {
	assert.Equal(t, cursor{}, cursorOf(""))
	assert.Equal(t, cursor{token: "t1-2 3 4 5"}, cursorOf("t1-2 3 4 5"), "from elsewhere")
	assert.Empty(t, cursor{}.next("", nil))
	stateKey := "key"
	event := &Event{ID: "$e", StateKey: &stateKey}
	at := cursorOf(cursor{}.next("a token with spaces 1 2 3", nil))
	assert.Equal(t, cursor{pages: 1, empty: 1, token: "a token with spaces 1 2 3"}, at)
	at = cursorOf(at.next("2", []*Event{event}))
	assert.Equal(t, cursor{pages: 2, held: event.Size(), token: "2"}, at)
	assert.Equal(t, cursor{pages: 2, token: "2"}, cursorOf(LetGo(at.String())))
	at = cursorOf(at.next("3", nil))
	assert.Equal(t, cursor{pages: 3, empty: 1, held: event.Size(), token: "3"}, at)
	require.NoError(t, at.check("!room:example.org"))
	for _, at := range []cursor{{pages: maxPages}, {empty: maxEmpty}, {held: maxHeld + 1}, {token: strings.Repeat("x", maxToken+1)}} {
		require.ErrorIs(t, at.check("!room:example.org"), fault.ErrCorrupt)
	}
}
