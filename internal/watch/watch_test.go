package watch

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

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/wire"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

func watchOf(t *testing.T, settings memory.Settings) *Watch {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	settings.EventType = "org.example.memory"
	return &Watch{Room: memory.NewShared(client, settings, nil).Room(room), Wanted: func(key string) bool { return key != "unwanted" }, dicts: map[string]*watched{}}
}

// dictOf is an event with a dict whose writer had merged the parents, and named none where these are nil.
func dictOf(event id.EventID, at int64, content string, parents ...id.EventID) *matrix.Event {
	evt := &matrix.Event{ID: event, Sender: "@alice:example.org", Time: at, StateKey: new(string), Content: json.RawMessage(content), Listed: true}
	if parents != nil {
		dict, _ := wire.ParseDict(evt.Content)
		dict.Parents = &wire.Parents{Events: parents, By: event.String()}
		evt.Content = dict.Content()
	}
	return evt
}

func TestTell(t *testing.T) {
	const own = `"roomkv.predecessor":{"room_id":"!x"},"roomkv.later":1`
	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	type changes = map[string][2]string
	first := dictOf("$1", 1, `{"b":2,"a":1,"unwanted":0,`+own+`}`)
	for _, step := range []struct {
		about string
		event *matrix.Event
		want  changes
	}{
		{"all that is there", first, changes{"a": {"", `1`}, "b": {"", `2`}}},
		{"once", first, changes{}},
		{"a new value, a deletion and a new key", dictOf("$2", 2, `{"a":3,"c":null,`+own+`}`, "$1"), changes{"a": {`1`, `3`}, "b": {`2`, ""}, "c": {"", `null`}}},
		{"nothing of the user's", dictOf("$3", 3, `{"a":3,"c":null,"unwanted":9}`, "$2"), changes{}},
		{"a writer who had not seen the last", dictOf("$4", 4, `{"a":3,"c":null,"d":4,`+own+`}`, "$2"), changes{"d": {"", `4`}}},
		{"another who had not seen that", dictOf("$5", 5, `{"a":5,"c":null,"unwanted":9}`, "$3"), changes{"a": {`3`, `5`}}},
		{"a merge changes nothing", dictOf("$6", 6, `{"a":5,"c":null,"d":4,"unwanted":9}`, "$4", "$5"), changes{}},
	} {
		got, last := changes{}, ""
		left, err := w.tell(t.Context(), step.event, func(change Change, err error) bool {
			require.NoError(t, err)
			assert.Equal(t, step.event.ID, change.Event, step.about)
			assert.Equal(t, step.event.Time, change.Time.UnixMilli(), step.about)
			assert.Less(t, last, change.Key, "in order")
			last = change.Key
			got[change.Key] = [2]string{string(change.Old), string(change.New)}
			return true
		})
		require.NoError(t, err)
		assert.False(t, left)
		assert.Equal(t, step.want, got, step.about)
	}
}

func TestTellStopsWhereTheLoopIsLeft(t *testing.T) {
	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	told := 0
	left, err := w.tell(t.Context(), dictOf("$1", 1, `{"a":1,"b":2}`), func(Change, error) bool { told++; return false })
	require.NoError(t, err)
	assert.True(t, left)
	assert.Equal(t, 1, told)
}

func TestTellNeedsTheSecret(t *testing.T) {
	sealed := watchOf(t, memory.Settings{Layout: memory.OneDict{}, Secret: []byte("sixteen bytes or more")})
	content := `{"a":1,"roomkv.seal":` + string(sealed.Seal()) + `}`
	for _, test := range []struct {
		secret string
		want   error
	}{{"", fault.ErrWrongSecret}, {"another of sixteen bytes", fault.ErrWrongSecret}, {"sixteen bytes or more", nil}} {
		settings := memory.Settings{Layout: memory.OneDict{}}
		if test.secret != "" {
			settings.Secret = []byte(test.secret)
		}
		_, err := watchOf(t, settings).tell(t.Context(), dictOf("$1", 1, content), func(change Change, _ error) bool {
			assert.Fail(t, "a plain key beside sealed ones", change.Key)
			return true
		})
		assert.ErrorIs(t, err, test.want)
	}
}
