package hostile_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"net/http/httptest"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // the tests allocate much and keep little
	m.Run()
}

const (
	bot    = id.UserID("@bot:example.org")
	device = id.DeviceID("DEVICE")
)

// homeserver is a stand-in for one, in memory, with two rooms that the bot is alone in. It is a transport, and answers at once.
// What a test needs to go wrong, its handler does in between.
type homeserver struct {
	// between is asked in place of the homeserver, where it is set.
	between func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error)

	mux *http.ServeMux

	// Other homeservers have other rooms, for the process remembers what it has written to one.
	room, other id.RoomID

	mu       sync.Mutex
	events   []*storedEvent // in the order in which they were stored
	state    map[stateID]*storedEvent
	data     map[string]json.RawMessage // account data, by room and type
	sent     map[string]id.EventID      // by transaction
	uploaded map[string][]byte          // attachments
	device   json.RawMessage            // the keys of the bot's device
}

type stateID struct {
	room                id.RoomID
	eventType, stateKey string
}

type storedEvent struct {
	ID       id.EventID      `json:"event_id"`
	Room     id.RoomID       `json:"room_id"`
	Sender   id.UserID       `json:"sender"`
	Time     int64           `json:"origin_server_ts"`
	Type     string          `json:"type"`
	StateKey *string         `json:"state_key,omitempty"`
	Content  json.RawMessage `json:"content"`
	Unsigned struct {
		Replaces id.EventID `json:"replaces_state,omitempty"`
	} `json:"unsigned"`
}

// homeservers and events count what there is of them in this process.
var homeservers, events atomic.Int64

// newHomeserver is one whose rooms are encrypted, or are not.
func newHomeserver(encrypted bool) *homeserver {
	n := homeservers.Add(1)
	h := &homeserver{room: id.RoomID(fmt.Sprintf("!room%d:example.org", n)), other: id.RoomID(fmt.Sprintf("!other%d:example.org", n)), state: map[stateID]*storedEvent{}, data: map[string]json.RawMessage{}, sent: map[string]id.EventID{},
		uploaded: map[string][]byte{}}
	h.mux = h.routes()
	for _, room := range []id.RoomID{h.other, h.room} {
		h.setState(room, "m.room.create", "", `{"room_version":"10"}`)
		h.setState(room, "m.room.member", bot.String(), `{"membership":"join"}`)
		h.setState(room, "m.room.power_levels", "", `{"users":{"`+bot.String()+`":100}}`)
		if encrypted {
			h.setState(room, "m.room.encryption", "", `{"algorithm":"m.megolm.v1.aes-sha2"}`)
		}
	}
	return h
}

// copy is a homeserver with the same rooms.
func (h *homeserver) copy() *homeserver {
	h.mu.Lock()
	defer h.mu.Unlock()
	c := &homeserver{room: h.room, other: h.other, state: maps.Clone(h.state), data: maps.Clone(h.data), sent: maps.Clone(h.sent), uploaded: maps.Clone(h.uploaded), device: h.device}
	for i, evt := range h.events {
		clone := *evt
		c.events = append(c.events, &clone)
		if at := (stateID{evt.Room, evt.Type, ""}); evt.StateKey != nil {
			if at.stateKey = *evt.StateKey; c.state[at] == h.events[i] {
				c.state[at] = &clone
			}
		}
	}
	c.mux = c.routes()
	return c
}

// newClient is one of the bot's.
func (h *homeserver) newClient() (*mautrix.Client, error) {
	client, err := mautrix.NewClient("http://homeserver.invalid", bot, "token")
	if err != nil {
		return nil, err
	}
	client.DeviceID = device
	client.Client = &http.Client{Transport: h}
	client.StateStore = mautrix.NewMemoryStateStore()
	return client, nil
}

func (h *homeserver) client(t testing.TB) *mautrix.Client {
	t.Helper()
	client, err := h.newClient()
	require.NoError(t, err)
	return client
}

// encryptingClient is one with a crypto store, which another process can have used before.
func (h *homeserver) encryptingClient(ctx context.Context, store crypto.Store) (*mautrix.Client, error) {
	client, err := h.newClient()
	if err != nil {
		return nil, err
	}
	helper, err := cryptohelper.NewCryptoHelper(client, []byte("of a test"), store)
	if err == nil {
		err = helper.Init(ctx)
	}
	client.Crypto = helper
	return client, err
}

func (h *homeserver) encrypting(t testing.TB, store crypto.Store) *mautrix.Client {
	t.Helper()
	client, err := h.encryptingClient(t.Context(), store)
	require.NoError(t, err)
	return client
}

// open is a store of the first of the rooms.
func open(t testing.TB, client *mautrix.Client, opts ...roomkv.Option) *roomkv.Store {
	t.Helper()
	store, err := roomkv.New(client, "#room:example.org", opts...)
	require.NoError(t, err)
	return store
}

var layouts = map[string]roomkv.Option{"single": roomkv.WithSingleStateKey(""), "perkey": roomkv.WithPerKeyState()}

func eachLayout(t *testing.T, test func(t *testing.T, layout roomkv.Option)) {
	for name, layout := range layouts {
		t.Run(name, func(t *testing.T) { test(t, layout) })
	}
}

// RoundTrip implements [http.RoundTripper].
func (h *homeserver) RoundTrip(req *http.Request) (*http.Response, error) {
	if err := req.Context().Err(); err != nil {
		return nil, err
	}
	var body []byte
	if req.Body != nil {
		var err error
		if body, err = io.ReadAll(req.Body); err != nil {
			return nil, err
		}
		_ = req.Body.Close()
	}
	req = req.Clone(req.Context())
	req.Body = io.NopCloser(bytes.NewReader(body))
	h.mu.Lock()
	between := h.between
	h.mu.Unlock()
	if between != nil {
		return between(req, h.answer)
	}
	return h.answer(req)
}

// heal lets nothing go wrong any more.
func (h *homeserver) heal() {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.between = nil
}

// answer is the homeserver's own.
func (h *homeserver) answer(req *http.Request) (*http.Response, error) {
	w := httptest.NewRecorder()
	h.mux.ServeHTTP(w, req)
	resp := w.Result()
	resp.Request = req
	return resp, nil
}

// add stores an event, which is current where it has a state key.
func (h *homeserver) add(room id.RoomID, eventType string, stateKey *string, content json.RawMessage) id.EventID {
	evt := &storedEvent{Room: room, Sender: bot, Time: int64(1_700_000_000_000 + len(h.events)), Type: eventType, StateKey: stateKey, Content: content}
	evt.ID = id.EventID(fmt.Sprint("$", events.Add(1)))
	if stateKey != nil {
		at := stateID{room, eventType, *stateKey}
		if was := h.state[at]; was != nil {
			if bytes.Equal(was.Content, content) {
				return was.ID
			}
			evt.Unsigned.Replaces = was.ID
		}
		h.state[at] = evt
	}
	h.events = append(h.events, evt)
	return evt.ID
}

func (h *homeserver) setState(room id.RoomID, eventType, stateKey, content string) id.EventID {
	h.mu.Lock()
	defer h.mu.Unlock()
	return h.add(room, eventType, &stateKey, json.RawMessage(content))
}

// change changes the content of an event.
func (h *homeserver) change(event id.EventID, how func(content string) string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, evt := range h.events {
		if evt.ID == event {
			evt.Content = json.RawMessage(how(string(evt.Content)))
		}
	}
}

// forgetTransactions makes an event be stored again that is sent again.
func (h *homeserver) forgetTransactions() {
	h.mu.Lock()
	defer h.mu.Unlock()
	clear(h.sent)
}

// encryptedEvents are the room's, in the order in which they were stored.
func (h *homeserver) encryptedEvents() (found []*event.Event) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, stored := range h.events {
		if stored.Type == event.EventEncrypted.Type {
			found = append(found, parsed(stored))
		}
	}
	return found
}

// parsed is an event as mautrix has it.
func parsed(stored *storedEvent) *event.Event {
	text, err := json.Marshal(stored)
	if err != nil {
		panic(err)
	}
	evt := new(event.Event)
	if err := json.Unmarshal(text, evt); err != nil {
		panic(err)
	}
	_ = evt.Content.ParseRaw(event.EventEncrypted)
	return evt
}

// routes are what the client-server API has of all this.
func (h *homeserver) routes() *http.ServeMux {
	mux := http.NewServeMux()
	on := func(pattern string, handle func(req *http.Request, body []byte) (status int, answer any)) {
		method, path, _ := strings.Cut(pattern, " ")
		mux.HandleFunc(method+" /_matrix/"+path, func(w http.ResponseWriter, req *http.Request) {
			body, _ := io.ReadAll(req.Body)
			h.mu.Lock()
			defer h.mu.Unlock()
			status, answer := handle(req, body)
			if code, refused := answer.(refusal); refused {
				answer = map[string]any{"errcode": string(code), "error": "refused"}
			}
			w.Header().Set("Content-Type", "application/json")
			w.WriteHeader(status)
			if media, ok := answer.([]byte); ok {
				_, _ = w.Write(media)
				return
			}
			_ = json.NewEncoder(w).Encode(answer)
		})
	}
	type object = map[string]any
	notFound := func() (int, any) { return http.StatusNotFound, refusal("M_NOT_FOUND") }
	done := func(*http.Request, []byte) (int, any) { return http.StatusOK, object{} }

	on("GET client/v3/joined_rooms", func(*http.Request, []byte) (int, any) {
		return http.StatusOK, object{"joined_rooms": []id.RoomID{h.room, h.other}}
	})
	on("GET client/v3/directory/room/{alias}", func(req *http.Request, _ []byte) (int, any) {
		named := h.room
		if strings.HasPrefix(req.PathValue("alias"), "#other:") {
			named = h.other
		}
		return http.StatusOK, object{"room_id": named, "servers": []string{"example.org"}}
	})
	on("GET client/v3/rooms/{room}/state/{type}/{key...}", func(req *http.Request, _ []byte) (int, any) {
		evt := h.state[stateID{in(req), req.PathValue("type"), req.PathValue("key")}]
		switch {
		case evt == nil:
			return notFound()
		case req.URL.Query().Get("format") == "event":
			return http.StatusOK, evt
		default:
			return http.StatusOK, evt.Content
		}
	})
	on("PUT client/v3/rooms/{room}/state/{type}/{key...}", func(req *http.Request, body []byte) (int, any) {
		key := req.PathValue("key")
		return http.StatusOK, object{"event_id": h.add(in(req), req.PathValue("type"), &key, body)}
	})
	on("PUT client/v3/rooms/{room}/send/{type}/{transaction}", func(req *http.Request, body []byte) (int, any) {
		transaction := req.PathValue("transaction")
		if h.sent[transaction] == "" {
			h.sent[transaction] = h.add(in(req), req.PathValue("type"), nil, body)
		}
		return http.StatusOK, object{"event_id": h.sent[transaction]}
	})
	on("PUT client/v3/rooms/{room}/redact/{event}/{transaction}", func(req *http.Request, body []byte) (int, any) {
		for _, evt := range h.events {
			if evt.ID.String() == req.PathValue("event") {
				evt.Content = json.RawMessage("{}")
			}
		}
		return http.StatusOK, object{"event_id": h.add(in(req), "m.room.redaction", nil, body)}
	})
	on("GET client/v3/rooms/{room}/event/{event}", func(req *http.Request, _ []byte) (int, any) {
		for _, evt := range h.events {
			if evt.ID.String() == req.PathValue("event") {
				return http.StatusOK, evt
			}
		}
		return notFound()
	})
	on("GET client/v3/rooms/{room}/context/{event}", func(req *http.Request, _ []byte) (int, any) {
		var filter struct {
			Types    []string
			NotRooms []id.RoomID `json:"not_rooms"`
		}
		_ = json.Unmarshal([]byte(req.URL.Query().Get("filter")), &filter)
		around := func(from, step int) []*storedEvent {
			found := []*storedEvent{}
			for i := from + step; i >= 0 && i < len(h.events) && filter.NotRooms == nil; i += step {
				if slices.Contains(filter.Types, h.events[i].Type) && h.events[i].Room == in(req) {
					found = append(found, h.events[i])
				}
			}
			return found
		}
		for i, evt := range h.events {
			if evt.ID.String() == req.PathValue("event") {
				return http.StatusOK, object{"event": evt, "start": fmt.Sprintf("t%d_%d", i, i), "events_before": around(i, -1), "events_after": around(i, 1)}
			}
		}
		return notFound()
	})
	on("GET client/v3/rooms/{room}/messages", func(req *http.Request, _ []byte) (int, any) {
		var filter struct{ Types []string }
		_ = json.Unmarshal([]byte(req.URL.Query().Get("filter")), &filter)
		limit, _ := strconv.Atoi(req.URL.Query().Get("limit"))
		at := len(h.events)
		if from := req.URL.Query().Get("from"); from != "" {
			at, _ = strconv.Atoi(from)
			at = min(at, len(h.events)) // for a body that was tampered with can have made another token of it
		}
		chunk := []*storedEvent{}
		for ; at > 0 && len(chunk) < limit; at-- {
			if evt := h.events[at-1]; evt.Room == in(req) && (filter.Types == nil || slices.Contains(filter.Types, evt.Type)) {
				chunk = append(chunk, evt)
			}
		}
		page := object{"chunk": chunk}
		if at > 0 {
			page["end"] = strconv.Itoa(at)
		}
		return http.StatusOK, page
	})
	on("GET client/v3/rooms/{room}/state", func(req *http.Request, _ []byte) (int, any) {
		return http.StatusOK, h.current(in(req), nil)
	})
	on("GET client/v3/rooms/{room}/members", func(req *http.Request, _ []byte) (int, any) {
		return http.StatusOK, object{"chunk": h.current(in(req), []string{"m.room.member"})}
	})
	on("GET client/v3/sync", func(req *http.Request, _ []byte) (int, any) {
		var filter struct {
			Room struct {
				Rooms []id.RoomID
				State struct{ Types []string }
			}
		}
		_ = json.Unmarshal([]byte(req.URL.Query().Get("filter")), &filter)
		joined := object{}
		for _, room := range filter.Room.Rooms {
			joined[room.String()] = object{"state": object{"events": h.current(room, filter.Room.State.Types)}}
		}
		return http.StatusOK, object{"next_batch": "s1", "rooms": object{"join": joined}}
	})
	on("GET client/v3/user/{user}/account_data/{type}", func(*http.Request, []byte) (int, any) {
		return http.StatusOK, object{"from a bot": object{"key": "value"}}
	})
	on("GET client/v3/user/{user}/rooms/{room}/account_data/{type}", func(req *http.Request, _ []byte) (int, any) {
		if text, ok := h.data[in(req).String()+req.PathValue("type")]; ok {
			return http.StatusOK, text
		}
		return notFound()
	})
	on("PUT client/v3/user/{user}/rooms/{room}/account_data/{type}", func(req *http.Request, body []byte) (int, any) {
		h.data[in(req).String()+req.PathValue("type")] = body
		return http.StatusOK, object{}
	})
	on("POST media/v3/upload", func(_ *http.Request, body []byte) (int, any) {
		media := strconv.Itoa(len(h.uploaded))
		h.uploaded[media] = body
		return http.StatusOK, object{"content_uri": "mxc://example.org/" + media}
	})
	on("GET client/v1/media/config", func(*http.Request, []byte) (int, any) {
		return http.StatusOK, object{"m.upload.size": 50 << 20}
	})
	on("GET client/v1/media/download/{server}/{media}", func(req *http.Request, _ []byte) (int, any) {
		if media, ok := h.uploaded[req.PathValue("media")]; ok {
			return http.StatusOK, media
		}
		return notFound()
	})
	on("POST client/v3/keys/upload", func(_ *http.Request, body []byte) (int, any) {
		var keys struct {
			Device json.RawMessage `json:"device_keys"`
		}
		if _ = json.Unmarshal(body, &keys); keys.Device != nil {
			h.device = keys.Device
		}
		return http.StatusOK, object{"one_time_key_counts": object{"signed_curve25519": 50}}
	})
	on("POST client/v3/keys/query", func(*http.Request, []byte) (int, any) {
		devices := object{}
		if h.device != nil {
			devices[device.String()] = h.device
		}
		return http.StatusOK, object{"device_keys": object{bot.String(): devices}}
	})
	on("POST client/v3/keys/claim", func(*http.Request, []byte) (int, any) {
		return http.StatusOK, object{"one_time_keys": object{}}
	})
	on("PUT client/v3/sendToDevice/{type}/{transaction}", done)
	return mux
}

// refusal is the error code of an answer.
type refusal string

// in is the room that a request is about.
func in(req *http.Request) id.RoomID { return id.RoomID(req.PathValue("room")) }

// current is a room's state, of these types or of any.
func (h *homeserver) current(room id.RoomID, types []string) []*storedEvent {
	events := []*storedEvent{}
	for _, evt := range h.events {
		if evt.StateKey != nil && evt.Room == room && h.state[stateID{room, evt.Type, *evt.StateKey}] == evt && (types == nil || slices.Contains(types, evt.Type)) {
			events = append(events, evt)
		}
	}
	return events
}
