package past

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/wire"
)

// noRequests fails the test for each request.
type noRequests struct{ t *testing.T }

func (r noRequests) RoundTrip(request *http.Request) (*http.Response, error) {
	assert.Fail(r.t, "a request", "%s %s", request.Method, request.URL)
	refusal := `{"errcode":"M_FORBIDDEN","error":"there is no network"}` // which is not tried again
	return &http.Response{StatusCode: http.StatusForbidden, Header: http.Header{}, Body: io.NopCloser(strings.NewReader(refusal)), Request: request}, nil
}

func roomWith(t *testing.T, settings memory.Settings) memory.Room {
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: noRequests{t}}
	if settings.EventType == "" {
		settings.EventType = "org.example.memory"
	}
	return memory.NewShared(client, settings, nil).Room("!room:example.org")
}

// written is an event as a test writes it down.
type written struct {
	id          id.EventID
	at          int64
	content     string       // empty where the event was redacted
	parents     []id.EventID // nil where the writer names none
	conditional bool
}

func (w written) event(stateKey string) *matrix.Event {
	evt := &matrix.Event{ID: w.id, Sender: "@alice:example.org", Time: w.at, StateKey: &stateKey, Content: json.RawMessage(w.content), Listed: true}
	if w.content == "" {
		evt.Content, evt.Unsigned.Redaction = json.RawMessage(`{}`), json.RawMessage(`{"type":"m.room.redaction"}`)
	}
	if w.parents != nil {
		dict, _ := wire.ParseDict(evt.Content)
		dict.Parents = &wire.Parents{Events: w.parents, By: w.id.String(), Conditional: w.conditional}
		evt.Content = dict.Content()
	}
	return evt
}

// short tells revisions as the last part of an ID, and what is stored.
func short(found []*Revision) (texts []string) {
	for _, rev := range found {
		switch {
		case errors.Is(rev.Err, fault.ErrRedacted):
			texts = append(texts, rev.Event.String()+" redacted")
		case rev.Err != nil:
			texts = append(texts, rev.Event.String()+" corrupt")
		case rev.Deleted:
			texts = append(texts, rev.Event.String()+" deleted")
		default:
			texts = append(texts, rev.Event.String()+"="+string(rev.Stored))
		}
	}
	return texts
}

type ids = []id.EventID

func TestJudge(t *testing.T) {
	oneDict := memory.OneDict{}
	for _, test := range []struct {
		about  string
		layout memory.Layout // OneDict where it is nil
		events []written     // the oldest first
		want   string        // the newest first
	}{
		{about: "never there", events: []written{{id: "$1", content: `{"b":1}`}, {id: "$2", content: `{"b":2}`}}},
		{about: "what changed something else is none", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2", content: `{"a":1,"b":1}`}, {id: "$3", content: `{"a":2,"b":1}`}}, want: "$3=2 $1=1"},
		{about: "with parents", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 2, `{"a":1,"b":1}`, ids{"$1"}, false}, {"$3", 3, `{"a":2,"b":1}`, ids{"$2"}, false}}, want: "$3=2 $1=1"},
		{about: "deleted and there again", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2", content: `{}`}, {id: "$3", content: `{"b":1}`}, {id: "$4", content: `{"a":1,"b":1}`}},
			want: "$4=1 $2 deleted $1=1"},
		{about: "null is a value", events: []written{{id: "$1", content: `{"a":null}`}, {id: "$2", content: `{}`}}, want: "$2 deleted $1=null"},
		{about: "a merge is none", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 2, `{"a":2}`, ids{"$1"}, false}, {"$3", 3, `{"a":1,"b":1}`, ids{"$1"}, false},
			{"$4", 4, `{"a":2,"b":1}`, ids{"$2", "$3"}, false}}, want: "$2=2 $1=1"},
		{about: "a merge that changes it too", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 2, `{"a":2}`, ids{"$1"}, false}, {"$3", 3, `{"a":1,"b":1}`, ids{"$1"}, false},
			{"$4", 4, `{"a":5,"b":1}`, ids{"$2", "$3"}, false}}, want: "$4=5 $2=2 $1=1"},
		{about: "of rivals the later one counts", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 9, `{"a":2}`, ids{"$1"}, false}, {"$3", 8, `{"a":3}`, ids{"$1"}, false}}, want: "$2=2 $3=3 $1=1"},
		{about: "also where it is listed later", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 8, `{"a":2}`, ids{"$1"}, false}, {"$3", 9, `{"a":3}`, ids{"$1"}, false}}, want: "$3=3 $2=2 $1=1"},
		{about: "of rivals of one time that with the higher ID", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$3", 9, `{"a":3}`, ids{"$1"}, false}, {"$2", 9, `{"a":2}`, ids{"$1"}, false}},
			want: "$3=3 $2=2 $1=1"},
		{about: "a writer whose clock is behind has seen the other", events: []written{{"$1", 9, `{"a":1}`, ids{}, false}, {"$2", 1, `{"a":2}`, ids{"$1"}, false}}, want: "$2=2 $1=1"},
		{about: "a plain one counts beside a later conditional one", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 8, `{"a":2}`, ids{"$1"}, false}, {"$3", 9, `{"a":3}`, ids{"$1"}, true}},
			want: "$2=2 $3=3 $1=1"},
		{about: "and beside an earlier one", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 9, `{"a":2}`, ids{"$1"}, true}, {"$3", 8, `{"a":3}`, ids{"$1"}, false}}, want: "$3=3 $2=2 $1=1"},
		{about: "of conditional ones the first counts", events: []written{{"$1", 1, `{"a":1}`, ids{}, false}, {"$2", 8, `{"a":2}`, ids{"$1"}, true}, {"$3", 9, `{"a":3}`, ids{"$1"}, true}},
			want: "$2=2 $3=3 $1=1"},
		{about: "redacted in between", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2"}, {id: "$3", content: `{"a":2}`}}, want: "$3=2 $2 redacted $1=1"},
		{about: "redacted in between, and nothing has changed", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2"}, {id: "$3"}, {id: "$4", content: `{"a":1}`}}, want: "$1=1"},
		{about: "two redacted in between", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2"}, {id: "$3"}, {id: "$4", content: `{"a":2}`}}, want: "$4=2 $3 redacted $2 redacted $1=1"},
		{about: "redacted before it was there", events: []written{{id: "$1", content: `{}`}, {id: "$2"}, {id: "$3", content: `{"a":2}`}}, want: "$3=2 $2 redacted"},
		{about: "never there, and redacted", events: []written{{id: "$1", content: `{}`}, {id: "$2"}, {id: "$3", content: `{"b":2}`}}},
		{about: "the latest is redacted", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2"}}, want: "$2 redacted $1=1"},
		{about: "the first is redacted", events: []written{{id: "$1"}, {id: "$2", content: `{"a":1}`}}, want: "$2=1 $1 redacted"},
		{about: "redacted where each name has an event", layout: memory.PerKey{}, events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2"}, {id: "$3", content: `{"a":1}`}}, want: "$2 redacted $1=1"},
		{about: "not to be read", events: []written{{id: "$1", content: `{"a":1}`}, {id: "$2", content: `["a"]`}, {id: "$3", content: `{"a":1}`}, {id: "$4", content: `{"a":2}`}}, want: "$4=2 $2 corrupt $1=1"},
	} {
		var layout memory.Layout = oneDict
		stateKey := ""
		if test.layout != nil {
			layout, stateKey = test.layout, "a"
		}
		r := roomWith(t, memory.Settings{Layout: layout})
		l := line{DictRoom: memory.DictRoom{Room: r, StateKey: stateKey}, name: "a"}
		var h merge.History
		readable := true
		for _, w := range test.events {
			l.events = slices.Insert(l.events, 0, readPast(r, w.event(stateKey)))
			readable = readable && l.events[0].read.Err == nil && !l.events[0].Redacted()
			h.Add(l.events[0].read)
		}
		found := l.judge(true)
		assert.Equal(t, test.want, strings.Join(short(found), " "), test.about)
		assert.Empty(t, l.events, test.about)
		if now, there := h.Merge().Dict["a"]; readable && len(found) > 0 {
			assert.Equal(t, !there, found[0].Deleted, test.about)
			assert.Equal(t, now, string(found[0].Stored), "%s: the newest revision is what is there", test.about)
		}
		for _, rev := range found {
			assert.Equal(t, "a", rev.Name)
			assert.Equal(t, id.UserID("@alice:example.org"), rev.Sender)
			assert.Equal(t, rev.evt.Time, rev.Time.UnixMilli())
		}
	}
}

// judgedBy is what lines judge that get so many events at a time, and how much they keep back before the last of them.
func judgedBy(t *testing.T, events []written, step int) (texts []string, kept int) {
	r := roomWith(t, memory.Settings{Layout: memory.OneDict{}})
	l := line{DictRoom: memory.DictRoom{Room: r}, name: "a"}
	for some := range slices.Chunk(events, step) {
		for _, w := range some {
			l.events = append(l.events, readPast(r, w.event("")))
		}
		texts = append(texts, short(l.judge(false))...)
	}
	kept = len(l.events)
	return append(texts, short(l.judge(true))...), kept
}

// Page by page there is the same as at once, wherever pages end.
func TestJudgePageByPage(t *testing.T) {
	chain := func(n int, change func(i int, w *written)) (events []written) {
		for i := range n {
			w := written{id: id.EventID(fmt.Sprint("$", 1000+i)), at: int64(i), content: fmt.Sprintf(`{"a":%d}`, i/3), parents: ids{id.EventID(fmt.Sprint("$", 999+i))}}
			if i == 0 {
				w.parents = ids{}
			}
			change(i, &w)
			events = slices.Insert(events, 0, w)
		}
		return events
	}
	for about, events := range map[string][]written{
		"one after the other": chain(45, func(int, *written) {}),
		"rivals in each pair": chain(45, func(i int, w *written) {
			w.content = fmt.Sprintf(`{"a":%d}`, i)
			if i%3 == 2 { // it has not seen the one before, which counts
				w.parents, w.at = ids{id.EventID(fmt.Sprint("$", 998+i))}, int64(i-5)
			}
		}),
		"many redacted": chain(45, func(i int, w *written) {
			if i > 10 && i < 35 {
				w.content, w.parents = "", nil
			}
		}),
		"without parents": chain(45, func(_ int, w *written) { w.parents = nil }),
	} {
		want, _ := judgedBy(t, events, len(events))
		assert.NotEmpty(t, want, about)
		for _, step := range []int{1, 7, rivals + 1, len(events) - 1} {
			got, _ := judgedBy(t, events, step)
			assert.Equal(t, want, got, "%s: %d at a time", about, step)
		}
	}
}

func TestJudgeKeepsBack(t *testing.T) {
	var events []written
	for i := range 3 * rivals {
		events = append(events, written{id: id.EventID(fmt.Sprint("$", 100-i)), at: int64(100 - i), content: fmt.Sprintf(`{"a":%d}`, 100-i), parents: ids{id.EventID(fmt.Sprint("$", 99-i))}})
	}
	_, kept := judgedBy(t, events, len(events))
	assert.Equal(t, rivals, kept, "what can have rivals that are listed later")
	_, kept = judgedBy(t, events[:rivals], rivals)
	assert.Equal(t, rivals, kept)

	events[10].parents = ids{"$elsewhere"}
	_, kept = judgedBy(t, events, len(events))
	assert.Equal(t, len(events)-10, kept, "from what has a parent that is not there yet")

	for i := range events[1:] {
		events[i+1].content, events[i+1].parents = "", nil
	}
	_, kept = judgedBy(t, events, len(events))
	assert.Equal(t, len(events)-1, kept, "nothing tells what those had that were redacted")
}
