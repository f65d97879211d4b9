package inbox_test

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/session/internal/inbox"
)

// secret is an encrypted room of two users with keys.
func secret(t *testing.T, one, two *mautrix.Client) id.RoomID {
	t.Helper()
	room := hstest.EncryptedRoom(t, one, two.UserID)
	_, err := two.JoinRoomByID(t.Context(), room)
	require.NoError(t, err)
	return room
}

// withholds keeps room keys back for so long that are sent from now on.
func withholds(t *testing.T, server *fakehs.Server, d time.Duration) {
	server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if strings.Contains(req.URL.Path, "/sendToDevice/m.room.encrypted/") {
			late := req.Clone(context.WithoutCancel(req.Context()))
			sent := time.AfterFunc(d, func() { _, _ = next(late) })
			t.Cleanup(func() { sent.Stop() })
			return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("{}")), Request: req}, nil
		}
		return next(req)
	})
}

func speak(t *testing.T, client *mautrix.Client, room id.RoomID, text string) {
	t.Helper()
	if client.StateStore != nil {
		_, err := client.JoinedMembers(t.Context(), room)
		require.NoError(t, err)
	}
	_, err := client.SendMessageEvent(t.Context(), room, event.EventMessage, &event.MessageEventContent{MsgType: event.MsgText, Body: text})
	require.NoError(t, err)
}

func TestEncrypted(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		store := hstest.NewCryptoStore()
		_, err := hstest.NewCryptoIn(t.Context(), self, store)
		require.NoError(t, err)
		hstest.Crypto(t, other)
		fakehstest.Sync(t, other)
		room, storage := secret(t, other, self), &files{}
		var heard told
		first := start(t, self, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Second)
		for n := range 3 {
			speak(t, other, room, fmt.Sprint(n))
		}
		time.Sleep(time.Second)
		assert.Equal(t, numbered(0, 3), heard.all())
		require.NoError(t, first.stop())
		for n := range 20 { // the sync leaves some out
			speak(t, other, room, fmt.Sprint(3+n))
		}
		second := process(server, self)
		second.StateStore = self.StateStore
		_, err = hstest.NewCryptoIn(t.Context(), second, store)
		require.NoError(t, err)
		start(t, second, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Minute)
		assert.Equal(t, numbered(0, 23), heard.all())
	})
}

func TestLateKeys(t *testing.T) {
	for name, test := range map[string]struct {
		late time.Duration
		want []string
	}{
		"a little":   {2 * time.Second, []string{"locked", "clear"}},
		"much":       {12 * time.Second, []string{"clear", "locked"}},
		"for ever":   {time.Hour, []string{"clear", "m.room.encrypted"}},
		"with error": {time.Hour, []string{"clear", "m.room.encrypted"}},
	} {
		t.Run(name, func(t *testing.T) {
			each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
				helper := hstest.Crypto(t, self)
				hstest.Crypto(t, other)
				fakehstest.Sync(t, other)
				room, storage := secret(t, other, self), &files{}
				clear := fakehstest.Device(t, server, other) // one without keys
				var heard told
				bot := start(t, self, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) }, func(c *inbox.Config) {
					if name == "with error" {
						c.Limits.Decrypt = time.Hour
					}
				})
				if name == "with error" {
					onError(helper, bot.Undecryptable)
				}
				bot.On(event.EventEncrypted, func(_ context.Context, evt *event.Event) {
					heard.mu.Lock()
					defer heard.mu.Unlock()
					heard.texts = append(heard.texts, evt.Type.Type)
				})
				time.Sleep(time.Second)
				withholds(t, server, test.late)
				speak(t, other, room, "locked")
				speak(t, clear, room, "clear")
				time.Sleep(35 * time.Second)
				assert.Equal(t, test.want, heard.all())
				since := bot.Since()
				speak(t, clear, room, "later")
				time.Sleep(time.Second)
				assert.Equal(t, append(test.want, "later"), heard.all())
				assert.NotEqual(t, since, bot.Since(), "nothing is waited for any more")
			})
		})
	}
}

func onError(helper *cryptohelper.CryptoHelper, f func(*event.Event, error)) {
	helper.DecryptErrorCallback = f
}

// While a key is awaited the token is not saved: after a restart the event is decrypted where the key has come meanwhile.
func TestKilledBeforeTheKeyCame(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		store := hstest.NewCryptoStore()
		_, err := hstest.NewCryptoIn(t.Context(), self, store)
		require.NoError(t, err)
		hstest.Crypto(t, other)
		fakehstest.Sync(t, other)
		room, storage := secret(t, other, self), &files{}
		clear := fakehstest.Device(t, server, other)
		var heard told
		first := start(t, self, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Second)
		withholds(t, server, 20*time.Second)
		speak(t, other, room, "locked")
		speak(t, clear, room, "clear")
		time.Sleep(10 * time.Second)
		assert.Equal(t, []string{"clear"}, heard.all())
		first.kill()
		second := process(server, self)
		second.StateStore = self.StateStore
		_, err = hstest.NewCryptoIn(t.Context(), second, store)
		require.NoError(t, err)
		start(t, second, storage, func(_ context.Context, evt *event.Event) { heard.add(evt) })
		time.Sleep(time.Minute)
		assert.Equal(t, []string{"clear", "locked"}, heard.all())
	})
}
