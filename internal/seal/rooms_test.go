package seal

import (
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"

	"github.com/roomkv/roomkv/internal/policy"
)

func TestEncryptedRoomsForgetsNoButNotYes(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var rooms Rooms
		const room = "!room:example.org"
		state := func() [2]bool {
			encrypted, known := rooms.get(room, false, policy.Default().AnswerFor)
			return [2]bool{encrypted, known}
		}
		assert.Equal(t, [2]bool{false, false}, state())
		rooms.Set(room, false, false)
		assert.Equal(t, [2]bool{false, true}, state())
		time.Sleep(policy.Default().AnswerFor)
		assert.Equal(t, [2]bool{false, false}, state(), "somebody may have encrypted it since")
		rooms.Set(room, true, false)
		rooms.Set(room, false, false)
		time.Sleep(1000 * time.Hour)
		assert.Equal(t, [2]bool{true, true}, state(), "what was encrypted stays it, whatever the homeserver says")
	})
}
