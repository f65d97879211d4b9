package roomkv_test

import (
	"encoding/json"
	"fmt"
	"net/http"
	"regexp"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/matrix"
)

// serverListRows are about lists of events, and the sync.
var serverListRows = []row{
	{name: "server: events of a type are listed, the newest first", in: once, run: serverListsByType},
	{name: "server: pages of events have each event once", in: once, run: serverPages},
	{name: "server: pages have all that was written at the same time", in: once, run: serverPagesAmongForks},
	{name: "server: a page behind events of other types", in: once, run: serverPageBehindOthers},
	{name: "server: tokens tell the order of storage", in: once, run: serverTokensAreInOrder},
	{name: "server: writes at the same time are all accepted", in: once, run: serverWritesAtOnce},
	{name: "server: a sync lists the state of one type", in: once, run: serverListsStateInASync},
	{name: "server: a sync that is asked for again", in: once, run: serverRepeatedSync},
	{name: "server: a sync brings what is new", in: once, run: serverSyncBringsWhatIsNew},
	{name: "server: a sync waits for what is new", in: once, alone: true, run: serverSyncWaits},
	{name: "server: a sync that skips events says so", in: once, run: serverSyncIsLimited},
	{name: "server: a list has what a sync has skipped", in: once, run: serverListsWhatASyncHasSkipped},
	{name: "server: a sync brings account data", in: once, run: serverSyncBringsAccountData},
}

func serverListsByType(t *testing.T, e *env) {
	var want []id.EventID
	for i := range 6 {
		want = append(want, e.put(t, e.client, []string{"", "k", "j"}[i%3], fmt.Sprintf(`{"v":%d}`, i)).event(t))
		_, err := e.client.SendText(t.Context(), e.room, "talk")
		require.NoError(t, err)
	}
	want = append(want, e.send(t, e.client, "txn", `{"v":1}`).event(t)) // a message of the type
	slices.Reverse(want)
	events := e.listed(t, 7)
	assert.Equal(t, want, eventIDs(events))
	assert.Nil(t, events[0].StateKey)
	for i, evt := range events {
		assert.Equal(t, database.Type, evt.Type)
		assert.True(t, i == 0 || evt.Time <= events[i-1].Time)
	}
	var all serverPage
	url := e.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "messages"}, map[string]string{"dir": "b", "limit": "4"})
	ask(t, e.client, http.MethodGet, url, nil).read(t, &all)
	assert.Len(t, all.Chunk, 4, "without a filter")
	assert.Equal(t, want[0], all.Chunk[0].ID)
	assert.Equal(t, event.EventMessage.Type, all.Chunk[1].Type)
}

func serverPages(t *testing.T, e *env) {
	var want []id.EventID
	for i := range 10 {
		want = append(want, e.put(t, e.client, fmt.Sprint("k", i%2), fmt.Sprintf(`{"v":%d}`, i)).event(t))
	}
	slices.Reverse(want)
	e.listed(t, 10)
	var got []id.EventID
	from, created, pages := "", false, 0
	for ; pages < 20 && !created; pages++ {
		page := e.messages(t, e.client, from, 4, event.StateCreate.Type)
		for _, evt := range page.Chunk {
			if created = evt.Type == event.StateCreate.Type; !created {
				got = append(got, evt.ID)
			}
		}
		if page.End == nil {
			break
		}
		require.NotEmpty(t, *page.End)
		from = *page.End
	}
	assert.Equal(t, want, got)
	assert.GreaterOrEqual(t, pages, 2)
	if created && from != "" {
		before := e.messages(t, e.client, from, 4, event.StateCreate.Type).Chunk
		assert.Len(t, before, on(e, 1, 0), "Dendrite gives the first event again")
	}
}

// Dendrite counts the events before it filters them.
func serverPageBehindOthers(t *testing.T, e *env) {
	sent := e.put(t, e.client, "k", `{"v":1}`).event(t)
	e.listed(t, 1)
	for range 6 {
		_, err := e.client.SendText(t.Context(), e.room, "talk")
		require.NoError(t, err)
	}
	eventually(t, func() bool {
		var page serverPage
		url := e.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "messages"}, map[string]string{"dir": "b", "limit": "7"})
		ask(t, e.client, http.MethodGet, url, nil).read(t, &page)
		return len(page.Chunk) == 7 && page.Chunk[6].ID == sent
	}, "the talk")
	page := e.messages(t, e.client, "", 4)
	assert.Equal(t, on[[]id.EventID](e, nil, []id.EventID{sent}), eventIDs(page.Chunk))
	if e.subject.like == dendrite {
		assert.Nil(t, page.End, "nor does it say where the next page begins")
	}
	assert.Equal(t, []id.EventID{sent}, eventIDs(e.messages(t, e.client, "", 20).Chunk))
}

var serverToken = regexp.MustCompile(`^t-?\d+[-_](\d+)(_.*)?$`)

// context asks where an event is among others, as the store does.
func (e *env) context(t *testing.T, evt id.EventID) (token string, before int, found answer) {
	t.Helper()
	filter := fmt.Sprintf(`{"not_rooms":[%q],"lazy_load_members":true}`, e.room)
	url := e.client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "rooms", e.room, "context", evt}, map[string]string{"limit": "1", "filter": filter})
	if found = ask(t, e.client, http.MethodGet, url, nil); found.status != http.StatusOK {
		return "", 0, found
	}
	var around struct {
		Start  string        `json:"start"`
		Event  serverEvent   `json:"event"`
		Before []serverEvent `json:"events_before"`
	}
	found.read(t, &around)
	assert.Equal(t, evt, around.Event.ID)
	return around.Start, len(around.Before), found
}

func serverTokensAreInOrder(t *testing.T, e *env) {
	var sent []id.EventID
	for i := range 4 {
		sent = append(sent, e.put(t, e.client, "k", fmt.Sprintf(`{"v":%d}`, i)).event(t))
	}
	e.listed(t, 4)
	last := -1
	for _, evt := range sent {
		token, before, _ := e.context(t, evt)
		assert.Equal(t, on(e, 1, 0), before, "on Synapse half of the limit of 1 is 0 before and 1 after")
		match := serverToken.FindStringSubmatch(token)
		require.NotNil(t, match, token)
		place, err := strconv.Atoi(match[1])
		require.NoError(t, err)
		assert.Greater(t, place, last)
		last = place
	}
	_, _, missing := e.context(t, "$nothing")
	assert.Equal(t, "404 M_NOT_FOUND", missing.is())
}

func serverWritesAtOnce(t *testing.T, e *env) {
	const writers = 6
	base := e.put(t, e.client, "", `{"v":"base"}`).event(t)
	sent := make([]answer, writers)
	var group sync.WaitGroup
	for i := range writers {
		client := e.twin(t)
		group.Go(func() { sent[i] = e.put(t, client, "", fmt.Sprintf(`{"v":%d}`, i)) })
	}
	group.Wait()
	all := map[id.EventID]bool{base: true}
	for _, sent := range sent {
		all[sent.event(t)] = true
	}
	require.Len(t, all, writers+1)
	current := e.asEvent(t, "")
	assert.True(t, all[current.ID] && current.ID != base, "one of them is current")
	replaced := map[id.EventID]int{}
	for _, evt := range e.listed(t, writers+1) {
		assert.True(t, all[evt.ID])
		replaced[evt.Unsigned.Replaces]++
		_, _, found := e.context(t, evt.ID)
		assert.Equal(t, "200", found.is())
	}
	for evt, times := range replaced {
		assert.True(t, evt == "" || all[evt])
		if e.subject.like == dendrite {
			assert.Equal(t, 1, times, "each replaces the one before")
		}
	}
}

// Events that are written at the same time can have the same depth, and a page can end between two of them.
func serverPagesAmongForks(t *testing.T, e *env) {
	const writers, rounds = 6, 3
	clients := []*mautrix.Client{e.client}
	for len(clients) < writers {
		clients = append(clients, e.member(t, 50))
	}
	want := make([]id.EventID, rounds*writers)
	for round := range rounds {
		var group sync.WaitGroup
		for i, client := range clients {
			group.Go(func() {
				want[round*writers+i] = e.put(t, client, fmt.Sprint("k", i), fmt.Sprintf(`{"v":%d}`, round)).event(t)
			})
		}
		group.Wait()
	}
	e.listed(t, len(want))
	for _, limit := range []int{1, 2, 4, 7} {
		var got []id.EventID
		for from := ""; ; {
			page, err := matrix.Room{Client: matrix.Client{Client: e.client}, ID: e.room}.Back(t.Context(), database, from, limit)
			require.NoError(t, err)
			for _, evt := range page.Events {
				got = append(got, evt.ID)
			}
			if from = page.Next; from == "" {
				break
			}
		}
		assert.ElementsMatch(t, want, got, "%d in a page", limit)
	}
}

// serverSync is what the rows read of a sync's response.
type serverSync struct {
	Next  string `json:"next_batch"`
	Rooms struct {
		Join map[id.RoomID]struct {
			State    struct{ Events []serverEvent }
			Timeline struct {
				Events  []serverEvent
				Limited bool
			}
			AccountData struct{ Events []serverEvent } `json:"account_data"`
			Unread      struct {
				Notifications int `json:"notification_count"`
			} `json:"unread_notifications"`
		}
		Leave map[id.RoomID]json.RawMessage
	}
	ToDevice struct {
		Events []serverEvent
	} `json:"to_device"`
}

func (e *env) sync(t *testing.T, client *mautrix.Client, since, filter string, timeout time.Duration) (got serverSync) {
	t.Helper()
	query := map[string]string{"timeout": strconv.FormatInt(timeout.Milliseconds(), 10)}
	if since != "" {
		query["since"] = since
	}
	if filter != "" {
		query["filter"] = filter
	}
	ask(t, client, http.MethodGet, client.BuildURLWithQuery(mautrix.ClientURLPath{"v3", "sync"}, query), nil).read(t, &got)
	return got
}

// listFilter is that of the store's listing. What stands for the random name must differ between any two listings.
func (e *env) listFilter(random string) string {
	return fmt.Sprintf(`{"presence":{"types":[]},"account_data":{"types":[],"not_types":[%q]},"room":{"rooms":[%q],"state":{"types":[%q,"m.room.create"]},`+
		`"timeline":{"types":[%[3]q,"m.room.power_levels"],"limit":10},"ephemeral":{"types":[]},"account_data":{"types":[]}}}`, random, e.room, database.Type)
}

func serverListsStateInASync(t *testing.T, e *env) {
	const keys = 12
	want := map[string]string{}
	for i := range keys {
		key, content := fmt.Sprint("k", i), fmt.Sprintf(`{"v":%d}`, i)
		e.put(t, e.client, key, `{"v":"old"}`).event(t)
		e.put(t, e.client, key, content).event(t)
		want[key] = content
	}
	e.listed(t, 2*keys)
	response := e.sync(t, e.client, "", e.listFilter("one"), 0)
	room := response.Rooms.Join[e.room]
	assert.Len(t, response.Rooms.Join, 1)
	current := map[string]string{}
	for _, evt := range slices.Concat(room.State.Events, room.Timeline.Events) {
		switch evt.Type {
		case database.Type:
			current[*evt.StateKey] = string(evt.Content)
		case "m.room.create", "m.room.power_levels":
		default:
			t.Error("nobody has asked for " + evt.Type)
		}
	}
	assert.Equal(t, want, current, "the state, and then the timeline")
	assert.Len(t, room.Timeline.Events, 10)
}

// Synapse gives a device the same initial sync from a cache for two minutes.
func serverRepeatedSync(t *testing.T, e *env) {
	e.put(t, e.client, "", `{"v":1}`).event(t)
	e.listed(t, 1)
	has := func(random, content string) bool {
		room := e.sync(t, e.client, "", e.listFilter(random), 0).Rooms.Join[e.room]
		return slices.ContainsFunc(slices.Concat(room.State.Events, room.Timeline.Events), func(evt serverEvent) bool { return string(evt.Content) == content })
	}
	require.True(t, has("one", `{"v":1}`))
	e.put(t, e.client, "", `{"v":2}`).event(t)
	e.listed(t, 2)
	eventually(t, func() bool { return has(fmt.Sprint(time.Now().UnixNano()), `{"v":2}`) }, "with another filter")
	assert.Equal(t, on(e, true, false), has("one", `{"v":2}`), "with the same filter")
}

func serverSyncBringsWhatIsNew(t *testing.T, e *env) {
	other := e.member(t, 100)
	e.put(t, other, "", `{"v":1}`).event(t)
	e.listed(t, 1)
	first := e.sync(t, e.client, "", "", 0)
	state := first.Rooms.Join[e.room]
	assert.True(t, slices.ContainsFunc(slices.Concat(state.State.Events, state.Timeline.Events), func(evt serverEvent) bool { return evt.Type == database.Type }))
	sent := []id.EventID{e.put(t, other, "", `{"v":2}`).event(t), e.put(t, e.client, "k", `{"v":3}`).event(t), e.put(t, other, "", `{"v":4}`).event(t)}
	var got []serverEvent
	since := first.Next
	for range 10 {
		if len(got) >= len(sent) {
			break
		}
		next := e.sync(t, e.client, since, "", 2*time.Second)
		room := next.Rooms.Join[e.room]
		assert.False(t, room.Timeline.Limited)
		for _, evt := range room.Timeline.Events {
			if evt.Type == database.Type {
				got = append(got, evt)
			}
		}
		since = next.Next
	}
	require.Equal(t, sent, eventIDs(got), "each once, in order")
	assert.Equal(t, other.UserID, got[0].Sender)
	assert.Equal(t, e.client.UserID, got[1].Sender)
	assert.Equal(t, "k", *got[1].StateKey)
	assert.Equal(t, sent[0], got[2].Unsigned.Replaces)
}

func serverSyncWaits(t *testing.T, e *env) {
	other := e.member(t, 100)
	since := e.sync(t, e.client, "", "", 0).Next
	last := e.put(t, other, "", `{"v":0}`).event(t)
	eventually(t, func() bool { // what came before can come late, on a busy machine much later
		response := e.sync(t, e.client, since, "", 100*time.Millisecond)
		since = response.Next
		return slices.Contains(eventIDs(response.Rooms.Join[e.room].Timeline.Events), last)
	}, "what came before")
	began := time.Now()
	e.sync(t, e.client, since, "", 300*time.Millisecond)
	assert.Greater(t, time.Since(began), 250*time.Millisecond)
	done := make(chan serverSync)
	began = time.Now()
	go func() { done <- e.sync(t, e.client, since, "", 20*time.Second) }()
	time.Sleep(100 * time.Millisecond)
	sent := e.put(t, other, "", `{"v":1}`).event(t)
	assert.Equal(t, []id.EventID{sent}, eventIDs((<-done).Rooms.Join[e.room].Timeline.Events))
	assert.Less(t, time.Since(began), 10*time.Second)
}

func serverSyncIsLimited(t *testing.T, e *env) {
	e.put(t, e.client, "old", `{"v":0}`).event(t)
	e.listed(t, 1)
	const filter = `{"room":{"timeline":{"limit":3}}}`
	since := e.sync(t, e.client, "", filter, 0).Next
	for i := range 6 {
		e.put(t, e.client, fmt.Sprint("k", i), `{"v":1}`).event(t)
	}
	e.listed(t, 7)
	room := e.sync(t, e.client, since, filter, 0).Rooms.Join[e.room]
	assert.True(t, room.Timeline.Limited)
	assert.Len(t, room.Timeline.Events, 3)
	brought := map[string]bool{}
	for _, evt := range slices.Concat(room.State.Events, room.Timeline.Events) {
		brought[*evt.StateKey] = true
	}
	for i := range 6 {
		assert.True(t, brought[fmt.Sprint("k", i)], "the state has what the timeline lacks")
	}
	assert.False(t, brought["old"])
}

// Package session's bot tells handlers of what a sync has skipped. It asks backward for one event before the sync's token, and then forward from the
// start of that page. Forward from the sync's token itself, Dendrite leaves out the first event unless the last thing that the sync saw is in this room.
func serverListsWhatASyncHasSkipped(t *testing.T, e *env) {
	for i := range 3 {
		e.put(t, e.client, "old", fmt.Sprintf(`{"v":%d}`, i)).event(t)
	}
	e.listed(t, 3)
	elsewhere := *e
	elsewhere.room = hstest.Room(t, e.client)
	elsewhere.put(t, e.client, "elsewhere", `{"v":1}`).event(t)
	elsewhere.listed(t, 1)
	ask := mautrix.ReqSync{FilterID: `{"room":{"timeline":{"limit":3}}}`}
	first, err := e.client.FullSyncRequest(t.Context(), ask)
	require.NoError(t, err)
	var want, got []id.EventID
	for i := range 10 {
		want = append(want, e.put(t, e.client, "new", fmt.Sprintf(`{"v":%d}`, i)).event(t))
	}
	e.listed(t, 13)
	ask.Since = first.NextBatch
	next, err := e.client.FullSyncRequest(t.Context(), ask)
	require.NoError(t, err)
	timeline := next.Rooms.Join[e.room].Timeline
	require.True(t, timeline.Limited)
	before, err := e.client.Messages(t.Context(), e.room, ask.Since, "", mautrix.DirectionBackward, nil, 1)
	require.NoError(t, err)
	for from, pages := before.Start, 0; from != "" && pages < 10; pages++ {
		page, err := e.client.Messages(t.Context(), e.room, from, timeline.PrevBatch, mautrix.DirectionForward, nil, 3)
		require.NoError(t, err)
		for _, evt := range page.Chunk {
			if !slices.Contains(got, evt.ID) { // Dendrite begins a page with the last event of the one before it
				got = append(got, evt.ID)
			}
		}
		if from = page.End; len(page.Chunk) == 0 {
			break
		}
	}
	assert.Equal(t, want[:7], got)
}

func serverSyncBringsAccountData(t *testing.T, e *env) {
	since := e.sync(t, e.client, "", "", 0).Next
	require.NoError(t, e.client.SetRoomAccountData(t.Context(), e.room, database.Type, map[string]any{"v": 1}))
	var brought []serverEvent
	for range 5 {
		next := e.sync(t, e.client, since, "", time.Second)
		if brought = next.Rooms.Join[e.room].AccountData.Events; len(brought) > 0 {
			break
		}
		since = next.Next
	}
	require.Len(t, brought, 1)
	assert.Equal(t, database.Type, brought[0].Type)
	assert.JSONEq(t, `{"v":1}`, string(brought[0].Content))
}
