package load

import (
	"context"
	"net/http"
	"net/http/httptest"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults"
)

// did is a call from one second to another. What it saw is the empty list where nothing was there.
func did(from, to int, op Op, token string, outcome Outcome, saw ...string) *Call {
	at := func(second int) time.Time { return time.Unix(int64(second), 0) }
	return &Call{Op: op, Key: "k", Token: token, Saw: saw, Found: len(saw) > 0, Outcome: outcome, Start: at(from), End: at(to), Deadline: at(to)}
}

func TestLinearizable(t *testing.T) {
	there := func(tokens ...string) *final { return &final{tokens, true} }
	gone := &final{}
	for name, test := range map[string]struct {
		calls []*Call
		end   *final
		want  verdict
	}{
		"nothing":                        {nil, gone, legal},
		"what nobody wrote":              {nil, there("a"), illegal},
		"a put":                          {[]*Call{did(0, 1, Put, "a", Acknowledged)}, there("a"), legal},
		"a put that is lost":             {[]*Call{did(0, 1, Put, "a", Acknowledged)}, gone, illegal},
		"the later of two puts":          {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Put, "b", Acknowledged)}, there("b"), legal},
		"the earlier of two puts":        {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Put, "b", Acknowledged)}, there("a"), illegal},
		"either of two puts at once":     {[]*Call{did(0, 2, Put, "a", Acknowledged), did(1, 3, Put, "b", Acknowledged)}, there("a"), legal},
		"a failed put, later":            {[]*Call{did(0, 1, Put, "a", Failed), did(2, 3, Put, "b", Acknowledged)}, there("a"), legal},
		"a failed put, never":            {[]*Call{did(0, 1, Put, "a", Failed)}, gone, legal},
		"a failed update, twice":         {[]*Call{did(0, 1, Append, "a", Failed)}, there("a", "a"), illegal},
		"a failed put before it began":   {[]*Call{did(0, 1, Pop, "", Acknowledged, "a"), did(2, 3, Put, "a", Failed)}, gone, illegal},
		"two creates":                    {[]*Call{did(0, 9, Create, "a", Acknowledged), did(0, 9, Create, "b", Acknowledged)}, there("b"), illegal},
		"two creates and a pop":          {[]*Call{did(0, 9, Create, "a", Acknowledged), did(0, 9, Create, "b", Acknowledged), did(0, 9, Pop, "", Acknowledged, "a")}, there("b"), legal},
		"a create that is refused":       {[]*Call{did(0, 1, Create, "a", Acknowledged), did(0, 1, Create, "b", Refused)}, there("a"), legal},
		"a create refused for nothing":   {[]*Call{did(0, 1, Create, "b", Refused)}, gone, illegal},
		"a pop by two":                   {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 9, Pop, "", Acknowledged, "a"), did(2, 9, Pop, "", Acknowledged, "a")}, gone, illegal},
		"a pop of what was not there":    {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Pop, "", Refused)}, there("a"), illegal},
		"an update of what was":          {[]*Call{did(0, 1, Put, "a", Acknowledged), did(0, 1, Append, "b", Acknowledged, "a")}, there("a", "b"), legal},
		"two updates of one value":       {[]*Call{did(0, 1, Append, "a", Acknowledged), did(0, 1, Append, "b", Acknowledged)}, there("b"), illegal},
		"a swap of what was":             {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Swap, "b", Acknowledged, "a")}, there("b"), legal},
		"a swap of what is no more":      {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Put, "b", Acknowledged), did(4, 5, Swap, "c", Acknowledged, "a")}, there("c"), illegal},
		"a delete":                       {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Delete, "", Acknowledged)}, gone, legal},
		"what comes back after a delete": {[]*Call{did(0, 1, Put, "a", Acknowledged), did(2, 3, Delete, "", Acknowledged)}, there("a"), illegal},
		"any end":                        {[]*Call{did(0, 1, Put, "a", Acknowledged)}, nil, legal},
	} {
		t.Run(name, func(t *testing.T) {
			assert.Equal(t, test.want, linearizable(test.calls, test.end))
			slices.Reverse(test.calls)
			assert.Equal(t, test.want, linearizable(test.calls, test.end), "in another order")
		})
	}
}

func TestCheckList(t *testing.T) {
	for name, test := range map[string]struct {
		calls []*Call
		end   []string
		want  []string
	}{
		"all":            {[]*Call{did(0, 1, Append, "a", Acknowledged), did(2, 3, Append, "b", Acknowledged, "a")}, []string{"a", "b"}, nil},
		"lost":           {[]*Call{did(0, 1, Append, "a", Acknowledged), did(2, 3, Append, "b", Acknowledged, "a")}, []string{"a"}, []string{Lost}},
		"overwritten":    {[]*Call{did(0, 1, Append, "a", Acknowledged), did(0, 1, Append, "b", Acknowledged)}, []string{"b"}, []string{Lost}},
		"doubled":        {[]*Call{did(0, 1, Append, "a", Failed)}, []string{"a", "a"}, []string{Doubled}},
		"failed, there":  {[]*Call{did(0, 1, Append, "a", Failed)}, []string{"a"}, nil},
		"failed, absent": {[]*Call{did(0, 1, Append, "a", Failed)}, nil, nil},
		"backwards":      {[]*Call{did(0, 1, Append, "a", Acknowledged, "b"), did(2, 3, Append, "b", Acknowledged)}, []string{"b", "a"}, []string{NotOneOrder}},
		"of nobody":      {nil, []string{"x"}, []string{NotOneOrder}},
	} {
		t.Run(name, func(t *testing.T) {
			r := &Run{}
			r.checkList("k", test.calls, final{test.end, len(test.end) > 0})
			var kinds []string
			for _, violation := range r.Violations {
				kinds = append(kinds, violation.Kind)
			}
			assert.Equal(t, test.want, kinds)
		})
	}
}

func TestCheckReads(t *testing.T) {
	append1, get := did(0, 1, Append, "a", Acknowledged), did(2, 3, Get, "", Acknowledged, "b")
	others := did(0, 1, Append, "b", Acknowledged)
	others.Process = 1
	r := &Run{Calls: []*Call{append1, others, get, did(4, 5, Get, "", Acknowledged, "a")}}
	r.Config.Follow = true
	r.checkReads()
	var kinds []string
	for _, violation := range r.Violations {
		kinds = append(kinds, violation.Kind)
	}
	assert.ElementsMatch(t, []string{OwnUnread, Vanished}, kinds)
}

func TestCheckDeadlines(t *testing.T) {
	late := did(0, 1, Get, "", Failed)
	late.End = late.Deadline.Add(time.Second)
	r := &Run{Calls: []*Call{late}}
	r.checkDeadlines(&stalls{last: []stall{{late.Deadline.Add(time.Second / 2), time.Second / 2}}})
	assert.Empty(t, r.Violations, "the machine was busy")
	r.checkDeadlines(&stalls{})
	assert.Len(t, r.Violations, 1)
}

// nothingThere is a homeserver that finds nothing.
type nothingThere struct{}

func (nothingThere) RoundTrip(req *http.Request) (*http.Response, error) {
	resp := httptest.NewRecorder()
	if strings.HasSuffix(req.URL.Path, "/messages") {
		_, _ = resp.WriteString(`{"chunk":[]}`)
	} else {
		resp.WriteHeader(http.StatusNotFound)
		_, _ = resp.WriteString(`{"errcode":"M_NOT_FOUND"}`)
	}
	return resp.Result(), nil
}

// A write whose caller has gone goes on for a while.
func TestGoroutinesAreFound(t *testing.T) {
	client, err := mautrix.NewClient("http://nowhere.invalid", "@bot:nowhere.invalid", "token")
	require.NoError(t, err)
	client.Client = &http.Client{Transport: nothingThere{}}
	transport := faults.Under(client, func(_ int, req *http.Request) faults.Fault {
		if req.Method == http.MethodPut {
			return faults.Fault{Kind: faults.Hang, Wait: time.Hour}
		}
		return faults.Fault{}
	}, nil)
	transport.Begin()
	store, err := roomkv.New(client, "!room:nowhere.invalid")
	require.NoError(t, err)
	label := t.Name()
	pprof.Do(t.Context(), pprof.Labels(labelName, label), func(ctx context.Context) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Millisecond)
		defer cancel()
		require.ErrorIs(t, roomkv.Update(ctx, store, "k", func(int, bool) (int, error) { return 1, nil }), context.DeadlineExceeded)
	})
	assert.NotEmpty(t, Goroutines(label))
	assert.Empty(t, Goroutines("another's"))
	transport.Heal()
	assert.Eventually(t, func() bool { return len(Goroutines(label)) == 0 }, 30*time.Second, 20*time.Millisecond)
}
