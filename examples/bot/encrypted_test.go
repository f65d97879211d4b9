package main

import (
	"context"
	"encoding/json"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/session"
)

func TestEncryptedRoom(t *testing.T) {
	t.Parallel()
	w := newWorld(t)
	w.config.NoEncryption, w.config.RecoveryKey = false, session.NewRecoveryKey()
	hstest.Crypto(t, w.person)
	var mu sync.Mutex
	var heard []string
	w.person.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, func(_ context.Context, evt *event.Event) {
		if evt.Sender == id.UserID(w.config.User) && evt.Mautrix.EventSource&event.SourceDecrypted != 0 {
			mu.Lock()
			defer mu.Unlock()
			heard = append(heard, evt.Content.AsMessage().Body)
		}
	})
	fakehstest.Sync(t, w.person)
	config := w.config
	config.Dir = filepath.Join(t.TempDir(), "first")
	first, err := session.Open(t.Context(), config) // sets the account up
	require.NoError(t, err)
	require.NoError(t, first.Close())
	w.start(t)
	w.start(t)
	made, err := w.person.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{
		Preset: "private_chat", Invite: []id.UserID{id.UserID(w.config.User)},
		PowerLevelOverride: &event.PowerLevelsEventContent{Users: map[id.UserID]int{w.person.UserID: 100, id.UserID(w.config.User): 50}},
		InitialState: []*event.Event{{
			Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
		}},
	})
	require.NoError(t, err)
	w.joins(t, made.RoomID)
	_, err = w.person.JoinedMembers(t.Context(), made.RoomID)
	require.NoError(t, err)
	want := []string{"Done.", "alice: 1 secrets", "alice: 2 secrets"}
	for n, text := range []string{"!unit secrets", "!score alice", "!score alice"} {
		w.say(t, made.RoomID, text)
		assert.Eventually(t, func() bool {
			mu.Lock()
			defer mu.Unlock()
			return len(heard) > n
		}, 30*time.Second, 20*time.Millisecond)
	}
	time.Sleep(time.Second)
	mu.Lock()
	assert.Equal(t, want, heard, "one replica answers")
	mu.Unlock()
	state, err := w.person.State(t.Context(), made.RoomID)
	require.NoError(t, err)
	text, err := json.Marshal(state)
	require.NoError(t, err)
	assert.Contains(t, string(text), "setting/unit")
	assert.NotContains(t, string(text), "secrets")
}
