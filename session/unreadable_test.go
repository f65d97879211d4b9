package session

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// unreadable are events that mautrix cannot read.
var unreadable = []string{
	`{"event_id":"$1","type":"m.room.message","sender":"@x:y","origin_server_ts":"secret","content":{}}`,
	`{"event_id":"$2","type":"m.room.message","sender":"@x:y","origin_server_ts":1.5,"content":{}}`,
	`{"event_id":"$3","type":"m.room.message","sender":5,"content":{}}`,
	`{"event_id":"$4","type":5,"sender":"@x:y","content":{}}`,
	`{"event_id":5,"type":"m.room.message","sender":"@x:y","content":{}}`,
	`{"event_id":"$5","type":"m.room.message","sender":"@x:y","content":"secret"}`,
	`{"event_id":"$6","type":"m.room.message","sender":"@x:y","content":["secret"]}`,
	`{"event_id":"$7","type":"m.room.member","sender":"@x:y","state_key":5,"content":{"membership":"join"}}`,
	`{"event_id":"$8","type":"m.room.message","sender":"@x:y","content":{},"unsigned":{"age":"secret"}}`,
	`{"event_id":"$9","type":"m.room.message","sender":"@x:y","content":{},"unsigned":{"redacted_because":"secret"}}`,
	`"secret"`, `5`, `[]`,
}

// among puts the unreadable events before those of each list of that name in an answer of the homeserver, where the list has some.
func among(resp *http.Response, list string) *http.Response {
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		panic(err)
	}
	text := strings.ReplaceAll(string(body), `"`+list+`":[{`, `"`+list+`":[`+strings.Join(unreadable, ",")+`,{`)
	resp.Body, resp.ContentLength = io.NopCloser(strings.NewReader(text)), int64(len(text))
	return resp
}

// What a member of a room, or a server that invites, makes of an event must not stop the bot.
func TestRunWithEventsThatCannotBeRead(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		w := newWorld(t, fakehs.Forking)
		other := w.someone(t)
		config := w.config("")
		config.Invites = Invites{Allow: []string{"*"}}
		hostile := map[string]bool{}
		w.server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			resp, err := next(req)
			if err != nil || resp.StatusCode != http.StatusOK {
				return resp, err
			}
			switch {
			case strings.HasSuffix(req.URL.Path, "/sync"):
				hostile["sync"] = true
				return among(resp, "events"), nil
			case strings.HasSuffix(req.URL.Path, "/messages") && req.URL.Query().Get("dir") == "f": // which is not a store's
				hostile["messages"] = true
				return among(resp, "chunk"), nil
			}
			return resp, err
		})
		r := w.run(t, config)
		send(t, other, w.room, text("one"))
		time.Sleep(time.Second)
		send(t, other, w.room, text("two"))
		made, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{w.user}})
		require.NoError(t, err)
		time.Sleep(time.Second)
		joined, err := r.bot.Client.JoinedRooms(t.Context())
		require.NoError(t, err)
		assert.Contains(t, joined.JoinedRooms, made.RoomID)

		answering(t, w, "sync", time.Minute, status(http.StatusBadGateway))
		sent := []string{"two"}
		for n := range 120 { // more than a sync brings
			sent = append(sent, fmt.Sprint(n))
			send(t, other, w.room, text(fmt.Sprint(n)))
		}
		time.Sleep(10 * time.Minute)
		r.mu.Lock()
		defer r.mu.Unlock()
		assert.Equal(t, sent, r.heard[max(0, len(r.heard)-len(sent)):])
		assert.Equal(t, map[string]bool{"sync": true, "messages": true}, hostile)
		var told struct{ Events int }
		for line := range strings.Lines(w.log.String()) {
			if strings.Contains(line, "cannot be read") {
				require.NoError(t, json.NewDecoder(bytes.NewReader([]byte(line))).Decode(&told))
				assert.Positive(t, told.Events)
				assert.NotContains(t, line, "secret")
				assert.NotContains(t, line, "@x:y")
			}
		}
		assert.Positive(t, told.Events)
	})
}
