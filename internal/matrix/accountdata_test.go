package matrix

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
)

// accountAnswer is what a homeserver says of account data.
type accountAnswer struct {
	status int
	body   string
}

func TestAccountData(t *testing.T) {
	const room = id.RoomID("!room:example.org")
	there, empty := accountAnswer{http.StatusOK, `{"k":1}`}, accountAnswer{http.StatusOK, " { } "}
	for name, test := range map[string]struct {
		room    id.RoomID
		answers []accountAnswer
		want    error
		text    string
	}{
		"of the account":      {"", []accountAnswer{there}, nil, there.body},
		"of a room":           {room, []accountAnswer{there}, nil, there.body},
		"none":                {"", []accountAnswer{{http.StatusNotFound, `{"errcode":"M_NOT_FOUND"}`}}, fault.ErrNotFound, "of @bot:example.org,"},
		"none of a room":      {room, []accountAnswer{{http.StatusNotFound, `{"errcode":"M_NOT_FOUND"}`}}, fault.ErrNotFound, "for !room:example.org,"},
		"empty once":          {"", []accountAnswer{empty, there}, nil, there.body},
		"empty":               {"", []accountAnswer{empty, empty}, fault.ErrNotFound, "of @bot:example.org,"},
		"too large":           {"", []accountAnswer{{http.StatusOK, strings.Repeat(" ", MaxAccount+1)}}, fault.ErrTooLarge, "more than 16777216 bytes"},
		"refused":             {"", []accountAnswer{{http.StatusForbidden, `{"errcode":"M_FORBIDDEN","error":"secret"}`}}, mautrix.MForbidden, "M_FORBIDDEN (HTTP 403)"},
		"no homeserver's 404": {"", []accountAnswer{{http.StatusNotFound, `secret`}}, mautrix.HTTPError{}, "HTTP 404"},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := mautrix.NewClient("https://example.org", "@bot:example.org", "token")
			require.NoError(t, err)
			answers := test.answers
			client.Client = &http.Client{Transport: transport(func(req *http.Request) (*http.Response, error) {
				require.NotEmpty(t, answers, "another request")
				path := "/_matrix/client/v3/user/@bot:example.org/account_data/a b/c"
				if test.room != "" {
					path = "/_matrix/client/v3/user/@bot:example.org/rooms/!room:example.org/account_data/a b/c"
				}
				assert.Equal(t, path, req.URL.Path)
				assert.True(t, strings.HasSuffix(req.URL.EscapedPath(), "/a%20b%2Fc"), req.URL.EscapedPath())
				answer := answers[0]
				answers = answers[1:]
				return &http.Response{StatusCode: answer.status, Body: io.NopCloser(strings.NewReader(answer.body)), ContentLength: -1, Request: req}, nil
			})}
			text, err := AccountData(t.Context(), Client{Client: client}, test.room, "a b/c")
			assert.Empty(t, answers, "requests that were not made")
			if test.want == nil {
				require.NoError(t, err)
				assert.Equal(t, test.text, string(text))
				return
			}
			if want, any := test.want.(mautrix.HTTPError); any {
				require.ErrorAs(t, err, &want)
			} else {
				require.ErrorIs(t, err, test.want)
			}
			assert.ErrorContains(t, err, test.text)
			assert.NotContains(t, err.Error(), "secret")
		})
	}
}
