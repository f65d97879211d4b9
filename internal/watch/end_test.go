package watch

import (
	"context"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fallback"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/follow"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
)

// What comes after the end of a full queue, as news of account data that another store of the process has written, must not drop the end.
func TestEndIsNotDroppedByWhatComesAfter(t *testing.T) {
	since := int64(0)
	for _, waiting := range []int{maxQueued - 1, maxQueued} {
		q := queuesAt(&since)
		w := q.open(room)
		q.Bring(room, someEvents(waiting))
		q.End()
		w.push(room, news{account: &fallback.Version{}})
		all, _ := take(t, w)
		assert.Contains(t, all, news{closed: true}, "%d wait", waiting)
	}
}

type sink struct{}

func (sink) Left(id.RoomID)                                                          {}
func (sink) Missed(func(event.Type) bool)                                            {}
func (sink) Skipped(id.RoomID)                                                       {}
func (sink) Noticed(*event.Event)                                                    {}
func (sink) Joined(id.RoomID, *mautrix.SyncJoinedRoom, follow.Shows) []*matrix.Event { return nil }

type answers func(*http.Request) string

func (a answers) RoundTrip(request *http.Request) (*http.Response, error) {
	code, text := 200, a(request)
	if text == "" {
		code, text = 404, `{"errcode":"M_NOT_FOUND","error":""}`
	}
	return &http.Response{StatusCode: code, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(text)), Request: request}, nil
}

// A store that is closed while a watch begins must end the watch.
func TestEndWhileAWatchBegins(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
		require.NoError(t, err)
		shared := memory.NewShared(client, memory.Settings{Layout: memory.PerKey{}, EventType: "t", Secret: []byte("sixteen bytes or more")}, sink{})
		queues := &Queues{Since: func() int64 { return 0 }}
		closed := false
		client.Client = &http.Client{Transport: answers(func(r *http.Request) string {
			if !closed { // while the room's seal is asked for
				closed = true
				shared.Follower.Stop()
				queues.End()
			}
			switch {
			case strings.HasSuffix(r.URL.Path, "/sync"):
				return `{"next_batch":"s1","rooms":{"join":{"` + room.String() + `":{"state":{"events":[]},"timeline":{"events":[]}}}}}`
			case strings.HasSuffix(r.URL.Path, "/messages"):
				return `{"start":"t1","chunk":[]}`
			}
			return ""
		})}
		require.NoError(t, shared.Follower.Start())
		w := &Watch{Room: shared.Room(room), Wanted: func(string) bool { return true }, Upgraded: func(context.Context, time.Duration) error { return nil }}
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		err = w.Run(ctx, queues, func(Change, error) bool { return true })
		assert.ErrorIs(t, err, fault.ErrNotFollowing)
	})
}
