package memory

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/wire"
)

const (
	testRoom = id.RoomID("!room:example.org")
	testType = "org.example.memory"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

// roomWith is a room whose client cannot make requests.
func roomWith(t *testing.T, settings Settings) Room {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	if settings.EventType == "" {
		settings.EventType = testType
	}
	if settings.Layout == nil {
		settings.Layout = OneDict{}
	}
	return NewShared(client, settings, nil).Room(testRoom)
}

// testBase is a dict that an edit begins from.
type testBase struct {
	names map[string]string
	size  int
}

func (testBase) FreshKey(string) (string, bool) { return "", false }

func (b testBase) Stored(name string) (json.RawMessage, bool) {
	stored, there := b.names[name]
	return json.RawMessage(stored), there
}
func (testBase) Fresh(string) bool                 { return false }
func (testBase) Event() id.EventID                 { return "$base" }
func (testBase) Unchanged(string, id.EventID) bool { return false }
func (b testBase) Names() map[string]string        { return b.names }
func (b testBase) Size() int                       { return b.size }
func (testBase) Again() bool                       { return false }

// textOf is a JSON string of so many bytes.
func textOf(bytes int) json.RawMessage {
	return json.RawMessage(`"` + strings.Repeat("x", bytes-2) + `"`)
}

// sealedName is a name that stands for a key which it does not show.
var sealedName = wire.SealedName([32]byte{1})
