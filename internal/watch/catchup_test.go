package watch

import (
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/policy"
)

// refusals counts requests, and refuses them all.
type refusals struct{ n int }

func (r *refusals) RoundTrip(request *http.Request) (*http.Response, error) {
	r.n++
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(`{"errcode":"M_FORBIDDEN"}`)), Request: request}, nil
}

// The homeserver is asked only about what was sent at about the same time. Where it does not tell when it stored an event, the event's place
// in the list counts.
func TestIsFresh(t *testing.T) {
	const told = 100_000
	late := policy.Default().StoredLate.Milliseconds()
	for _, test := range []struct {
		about          string
		at             int64
		after, resumes bool
		want, asks     bool
	}{
		{"listed after what was told", told, true, false, true, false},
		{"also where its clock is far behind", 0, true, false, true, false},
		{"listed before, and sent long before", told - late - 1, false, false, false, false},
		{"listed before, at about the same time", told - late, false, false, false, true},
		{"listed before, and sent after", told + 2*late, false, false, false, true},
		{"resuming, listed after", told + late, true, true, true, true},
		{"resuming, listed after, and sent before", 0, true, true, true, true},
		{"resuming, sent long after", told + late + 1, true, true, true, false},
		{"resuming, listed before", told, false, true, false, true},
	} {
		w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
		w.start, w.last = milestone{event: "$start", asked: true}, milestone{time: told}
		got, err := w.isFresh(t.Context(), dictOf("$e", test.at, `{}`), test.after, test.resumes)
		require.NoError(t, err)
		assert.Equal(t, test.want, got, test.about)

		requests := new(refusals)
		w.Client.Client.Client = &http.Client{Transport: requests}
		w.start.known = true
		_, _ = w.isFresh(t.Context(), dictOf("$e", test.at, `{}`), test.after, test.resumes)
		assert.Equal(t, test.asks, requests.n > 0, test.about)
	}

	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	w.last = milestone{time: told}
	got, err := w.isFresh(t.Context(), dictOf("$e", told, `{}`), false, false)
	require.NoError(t, err)
	assert.True(t, got, "nothing was there when the watch began")
	got, err = w.isFresh(t.Context(), dictOf("$e", told-late-1, `{}`), false, false)
	require.NoError(t, err)
	assert.False(t, got, "it is long before what was told")
}

func TestIsOld(t *testing.T) {
	w := watchOf(t, memory.Settings{Layout: memory.OneDict{}})
	isOld := func(evt *matrix.Event) bool {
		old, err := w.isOld(t.Context(), evt)
		require.NoError(t, err)
		return old
	}
	assert.False(t, isOld(dictOf("$1", 1, `{}`)))
	assert.True(t, w.caught, "nothing was there of the dict")

	w.caught = false
	w.start = milestone{event: "$2", asked: true} // of which the homeserver does not tell when it stored it
	w.add(dictOf("$1", 1, `{"a":1}`, "$0"))
	w.add(dictOf("$2", 2, `{"a":2}`, "$1"))
	assert.False(t, isOld(dictOf("$1", 1, `{"a":1}`, "$0")), "it is known already, and changes nothing")
	assert.False(t, w.caught)
	assert.False(t, isOld(dictOf("$3", 3, `{"a":3}`, "$2")), "what is there was not made from it")
	assert.False(t, isOld(dictOf("$2", 2, `{"a":2}`, "$1")))
	assert.True(t, w.caught, "the sync has come to where the watch began")
}

func TestNewestOf(t *testing.T) {
	assert.Empty(t, newestOf(nil))
	newest := newestOf(map[string]*matrix.Event{"a": dictOf("$1", 5, `{}`), "b": dictOf("$2", 7, `{}`), "c": dictOf("$3", 6, `{}`), "d": dictOf("$4", 7, `{}`)})
	assert.ElementsMatch(t, []id.EventID{"$2", "$4"}, []id.EventID{newest[0].ID, newest[1].ID})
}

func TestLacks(t *testing.T) {
	event := func(stateKey string) *matrix.Event {
		evt := dictOf("$e", 1, `{}`)
		evt.StateKey = &stateKey
		return evt
	}
	type events = []*matrix.Event
	w := watchOf(t, memory.Settings{Layout: memory.PerKey{}})
	w.dicts["known"] = new(watched)
	for _, test := range []struct {
		about         string
		missed, older events
		want          bool
	}{
		{"nothing was missed", nil, events{event("a")}, false},
		{"a dict of which something older is listed", events{event("a")}, events{event("b"), event("a")}, false},
		{"one of which nothing older is", events{event("b"), event("a")}, events{event("b")}, true},
		{"one that is known", events{event("known")}, nil, false},
		{"what is no dict of the layout", events{event("")}, nil, false},
	} {
		assert.Equal(t, test.want, w.lacks(test.missed, test.older), test.about)
	}
}
