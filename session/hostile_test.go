package session

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// A homeserver that answers nonsense is asked again, and the bot goes on.
func TestRunOfAHostileHomeserver(t *testing.T) {
	for _, body := range []string{
		`null`, `[]`, `{}`, `"x"`, `{"next_batch": 5}`, `{"next_batch": null}`, `{"next_batch": ""}`,
		`{"next_batch":"x","rooms":null}`, `{"next_batch":"x","rooms":{"join":{"!a:b":null}}}`,
		`{"next_batch":"x","rooms":{"join":{"!a:b":{"timeline":null}}, "invite": {"!a:b": null}, "leave": {"!a:b": null}}}`,
		`{"next_batch":"x","rooms":{"invite": {"!a:b": {"invite_state": {"events": [null]}}}}}`,
		`{"next_batch":"x","rooms":{"join":{"!a:b":{"timeline":{"events":[null]}}}}}`,
		`{"next_batch":"x","rooms":{"join":{"!a:b":{"state":{"events":[null, {"type": "m.room.member", "state_key": null, "content": null}]}}}}}`,
		`{"next_batch":"x","rooms":{"join":{"!a:b":{"timeline":{"events":[{"event_id":"$a","type":"m.room.member","sender":5,"state_key":"@bot:fakehs","content":{"membership":5},"unsigned":{"prev_content":null}}]}}}}}`,
		`{"next_batch":"x","rooms":{"join":{"!a:b":{"timeline":{"events":[{"event_id":"$b","type":"m.room.message","sender":"@x:y","content":null,"unsigned":null},{"event_id":"$c","type":"m.room.message","sender":"@x:y","content":[],"unsigned":[]},{"event_id":"$d","type":"m.room.message","sender":"@x:y","content":{"m.relates_to":null,"msgtype":5}}]}}}}}`,
		`{"next_batch":"x","to_device":{"events":[null]},"account_data":{"events":[null]},"presence":{"events":[null]}}`,
	} {
		t.Run(body[:min(len(body), 40)], func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				w := newWorld(t, fakehs.Forking)
				other := w.someone(t)
				config := w.config("")
				config.LeaveEmpty = true
				config.Invites = Invites{Allow: []string{"*"}}
				r := w.run(t, config)
				time.Sleep(time.Second)
				said := 0
				remove := w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
					if strings.HasSuffix(req.URL.Path, "/sync") && req.Header.Get("Authorization") == "Bearer "+r.bot.keeper.Token().AccessToken {
						said++
						assert.NotEmpty(t, req.URL.Query().Get("since"), "the sync does not begin anew")
						time.Sleep(time.Second)
						text := body
						if said == 1 { // the token stays usable
							text = strings.Replace(text, `"next_batch":"x"`, `"next_batch":"`+req.URL.Query().Get("since")+`"`, 1)
						} else {
							return &http.Response{StatusCode: 502, Header: http.Header{}, Body: http.NoBody, Request: req}, nil
						}
						return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Body: io.NopCloser(strings.NewReader(text)), Request: req}, nil
					}
					return next(req)
				})
				send(t, other, w.room, text("wake"))
				time.Sleep(5 * time.Second)
				send(t, other, w.room, text("between"))
				time.Sleep(5 * time.Second)
				remove()
				send(t, other, w.room, text("still here"))
				time.Sleep(2 * time.Minute)
				select {
				case err := <-r.over:
					t.Errorf("Run has ended: %v", err)
					r.over <- err
				default:
				}
				r.mu.Lock()
				heard := slices.DeleteFunc(r.heard, func(text string) bool { return strings.Contains(text, "!a:b") }) // where the bot is not
				assert.Equal(t, []string{"wake", "between", "still here"}, heard)
				r.mu.Unlock()
			})
		})
	}
}

// null answers a request for an endpoint with null, so many times.
func null(w *world, last string, times int64) (remove func()) {
	var left atomic.Int64
	left.Store(times)
	return w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if !strings.HasSuffix(req.URL.Path, "/"+last) || left.Add(-1) < 0 {
			return next(req)
		}
		return &http.Response{StatusCode: 200, Header: http.Header{}, Body: io.NopCloser(strings.NewReader("null")), Request: req}, nil
	})
}

func TestOpenWhereTheHomeserverAnswersNull(t *testing.T) {
	t.Parallel()
	w := newWorld(t, fakehs.Forking)
	config := w.config("")
	config.NoEncryption, config.RecoveryKey = false, NewRecoveryKey()
	remove := null(w, "query", 1)
	_, err := open(t.Context(), config, w.server)
	require.ErrorContains(t, err, "null")
	remove()
	defer null(w, "devices", 1)()
	require.NoError(t, w.open(t, config).Close())
}

func TestRunWhereTheHomeserverAnswersNull(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		config := w.config("")
		config.Invites, config.LeaveEmpty = Invites{Allow: []string{"*"}}, true
		r := w.run(t, config)
		made, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{w.user}})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		defer null(w, "members", 1)()
		_, err = other.LeaveRoom(t.Context(), made.RoomID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		joined, err := r.bot.Client.JoinedRooms(t.Context())
		require.NoError(t, err)
		assert.Equal(t, []id.RoomID{w.room}, joined.JoinedRooms)

		defer null(w, "messages", 1)()
		answering(t, w, "sync", time.Minute, status(http.StatusBadGateway))
		var sent []string
		for n := range 120 {
			sent = append(sent, fmt.Sprint(n))
			send(t, other, w.room, text(sent[n]))
		}
		time.Sleep(10 * time.Minute)
		r.hears(t, sent...)
		assert.Positive(t, w.requests("messages"))
	})
}

// A function for invites that panics does not end the bot.
func TestInvitesThatPanic(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		config := w.config("")
		config.Invites.Func = func(context.Context, Invite) bool { panic("a value") }
		r := w.run(t, config)
		time.Sleep(time.Second)
		_, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{w.user}})
		require.NoError(t, err)
		send(t, other, w.room, text("one"))
		r.hears(t, "one")
		assert.Contains(t, w.log.String(), "A task of a room has panicked")
		assert.NotContains(t, w.log.String(), `"a value"`)
	})
}
