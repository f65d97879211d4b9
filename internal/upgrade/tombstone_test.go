package upgrade

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/policy"
)

// A tombstone whose body is no string replaces the room all the same.
func TestTombstoneWithAnOddBody(t *testing.T) {
	assert.NotNil(t, tombstoneOf(&matrix.Event{ID: "$e", Content: json.RawMessage(`{"body":7,"replacement_room":"!new:example.org"}`)}))
}

// The pauses of another tombstone begin anew.
func TestPausesOfAnotherTombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u := new(Rooms)
		theRoom := memory.NewShared(nil, memory.Settings{}, nil).Room(room)
		for range 8 {
			u.fail(theRoom, &tombstone{event: "$stone"}, errors.New("no"), false)
		}
		u.fail(theRoom, &tombstone{event: "$later"}, errors.New("no"), false)
		time.Sleep(policy.Default().FollowPause)
		assert.NoError(t, u.of(room).failed.of(&tombstone{event: "$later"}))
	})
}
