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
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/session/internal/inbox"
)

// away has a bot miss 30 messages, and starts it again while pages of messages go through hostile.
func away(t *testing.T, server *fakehs.Server, self, other *mautrix.Client, hostile func(req *http.Request, next fakehs.Next) (*http.Response, error), change ...func(*inbox.Config)) *told {
	room, storage := together(t, other, self), &files{}
	first := start(t, self, storage, func(context.Context, *event.Event) {})
	time.Sleep(time.Second)
	require.NoError(t, first.stop())
	for n := range 30 {
		say(t, other, room, fmt.Sprint(n))
		time.Sleep(time.Second)
	}
	server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
		if strings.HasSuffix(req.URL.Path, "/messages") && req.URL.Query().Get("dir") == "f" {
			return hostile(req, next)
		}
		return next(req)
	})
	var heard told
	start(t, process(server, self), storage, func(_ context.Context, evt *event.Event) { heard.add(evt) }, change...)
	time.Sleep(5 * time.Minute)
	return &heard
}

// emptyPage is a page without events that is not the last one.
func emptyPage(req *http.Request, end string) *http.Response {
	return &http.Response{
		StatusCode: http.StatusOK, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
		Body: io.NopCloser(strings.NewReader(fmt.Sprintf(`{"start":"s","chunk":[],"end":%q}`, end))),
	}
}

// A homeserver may leave all events of a page out, such as those of ignored users, and the page can be one whose events cannot be read.
func TestAnEmptyPageDoesNotEndAGap(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		asked, before := 0, ""
		heard := away(t, server, self, other, func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			asked++
			query := req.URL.Query()
			switch asked {
			case 2, 3:
				if asked == 2 {
					before = query.Get("from")
				}
				return emptyPage(req, fmt.Sprint("empty", asked)), nil
			case 4:
				assert.Equal(t, "empty3", query.Get("from"))
				query.Set("from", before)
				req.URL.RawQuery = query.Encode()
			}
			return next(req)
		})
		assert.Equal(t, numbered(0, 30), heard.all())
	})
}

// Empty pages without an end must not keep the bot busy for ever.
func TestEndlessEmptyPages(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		asked := 0
		heard := away(t, server, self, other, func(req *http.Request, _ fakehs.Next) (*http.Response, error) {
			asked++
			return emptyPage(req, fmt.Sprint("empty", asked)), nil
		})
		assert.Equal(t, numbered(25, 30), heard.all(), "what the sync has brought")
		assert.Equal(t, 100, asked)
	})
}

// Of a long gap the newest events are told.
func TestALongGap(t *testing.T) {
	each(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		heard := away(t, server, self, other, func(req *http.Request, next fakehs.Next) (*http.Response, error) { return next(req) },
			func(c *inbox.Config) { c.Limits.Gap = 7 })
		assert.Equal(t, numbered(18, 30), heard.all())
	})
}
