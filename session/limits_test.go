package session

import (
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// A homeserver limits each kind of request that encryption makes, once and then again after a while.
func TestEncryptionWithRateLimits(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		var mu sync.Mutex
		limited := map[string]bool{}
		w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			parts := strings.Split(req.URL.Path, "/")
			kind := req.Method + " " + strings.Join(parts[:min(5, len(parts))], "/") // with the first word of what is asked for
			mu.Lock()
			again := limited[kind]
			limited[kind] = true
			mu.Unlock()
			if again || strings.HasSuffix(req.URL.Path, "/login") || strings.HasSuffix(req.URL.Path, "/versions") {
				return next(req)
			}
			body := io.NopCloser(strings.NewReader(`{"errcode": "M_LIMIT_EXCEEDED", "retry_after_ms": 2000}`))
			return &http.Response{StatusCode: http.StatusTooManyRequests, Header: http.Header{}, Body: body, Request: req}, nil
		})
		bot := w.open(t, w.encrypted("", NewRecoveryKey()))
		room, err := bot.Client.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{InitialState: []*event.Event{{
			Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: "m.megolm.v1.aes-sha2"}},
		}}})
		require.NoError(t, err)
		stop := fakehstest.Sync(t, bot.Client)
		mu.Lock()
		clear(limited)
		mu.Unlock()
		_, err = bot.Client.SendMessageEvent(t.Context(), room.RoomID, event.EventMessage, text("hello"))
		require.NoError(t, err)
		mu.Lock()
		assert.Subset(t, slices.Collect(maps.Keys(limited)), []string{"PUT /_matrix/client/v3/rooms", "PUT /_matrix/client/v3/sendToDevice"})
		mu.Unlock()
		stop()
		require.NoError(t, bot.Close())
	})
}
