package roomkv_test

import (
	"encoding/json"
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
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(req *http.Request) (*http.Response, error) { return f(req) }

func readCloser(body string) io.ReadCloser { return io.NopCloser(strings.NewReader(body)) }

// A user with the power to send state can put anything an event may hold where the store looks.
func TestBadEntriesLeaveTheOthersAlone(t *testing.T) {
	hstest.Parallel(t)
	bad := map[string]string{
		"number":    `{"encrypted_val":7}`,
		"null":      `{"encrypted_val":null}`,
		"not json":  `{"json_val":"{"}`,
		"json type": `{"json_val":{"a":1}}`,
		"media":     `{"media_val":"x"}`,
		"cleartext": `{"encrypted_val":"$unknown"}`,
		"in media":  `{"media_val":{"url":"mxc://example.org/x"}}`,
	}
	want := map[string]error{"cleartext": roomkv.ErrUndecryptable}
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		require.NoError(t, store.PutAll(ctx, map[string]any{"good": 1, "other": 2}))
		contents := map[string]map[string]json.RawMessage{} // by state key
		put := func(key, stored string) {
			stateKey := stateKeyOf(t, client, room, key)
			if contents[stateKey] == nil {
				contents[stateKey] = map[string]json.RawMessage{}
			}
			contents[stateKey][key] = json.RawMessage(stored)
		}
		put("good", `1`)
		put("other", `2`)
		for key, stored := range bad {
			put(key, stored)
		}
		for _, content := range contents {
			if len(content) > 1 {
				content["roomkv.unknown"] = json.RawMessage(`[1]`)
			}
		}
		for stateKey, content := range contents {
			_, err := client.SendStateEvent(ctx, room, database, stateKey, content)
			require.NoError(t, err)
		}

		for key := range bad {
			err := store.Get(ctx, key, new(any))
			kind := roomkv.ErrCorrupt
			if want[key] != nil {
				kind = want[key]
			}
			require.ErrorIs(t, err, kind, key)
			assert.ErrorContains(t, err, "$", "it names the event")
			assert.ErrorContains(t, err, key)
			assert.ErrorIs(t, store.Pop(ctx, key, new(any)), kind, key)
		}
		got, err := roomkv.Get[int](ctx, store, "good")
		require.NoError(t, err)
		assert.Equal(t, 1, got)
		eventually(t, func() bool {
			keys, err := store.Keys(ctx)
			return err == nil && len(keys) == len(bad)+2
		}, "it did not come through")
		failed := 0
		for entry, err := range store.All(ctx) {
			if err != nil {
				failed++
				assert.Contains(t, bad, entry.Key)
			}
		}
		assert.Equal(t, len(bad), failed)

		// Writing another key keeps the bad ones as they are; writing or deleting one mends it.
		require.NoError(t, store.Put(ctx, "good", 3))
		require.ErrorIs(t, store.Get(ctx, "number", new(any)), roomkv.ErrCorrupt)
		require.NoError(t, store.Put(ctx, "number", 4))
		require.NoError(t, store.Get(ctx, "number", new(int)))
		require.NoError(t, store.Delete(ctx, "not json", "cleartext"))
		require.ErrorIs(t, store.Get(ctx, "cleartext", new(any)), roomkv.ErrNotFound)
		for stateKey, content := range contents {
			if content["roomkv.unknown"] != nil {
				assert.Contains(t, rawState(t, client, room, database, stateKey), `"roomkv.unknown":[1]`)
			}
		}
	})
}

func TestRedactedStateIsEmpty(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		require.NoError(t, store.Put(ctx, "k", 1))
		entry, err := store.Entry(ctx, "k")
		require.NoError(t, err)
		_, err = client.RedactEvent(ctx, room, id.EventID(entry.Revision))
		require.NoError(t, err)
		eventually(t, func() bool { return store.Get(ctx, "k", new(int)) != nil }, "it did not come through")
		require.ErrorIs(t, store.Get(ctx, "k", new(int)), roomkv.ErrNotFound)
		eventually(t, func() bool {
			keys, err := store.Keys(ctx)
			return err == nil && len(keys) == 0
		}, "it did not come through")
		require.NoError(t, store.Delete(ctx, "k"))
		require.NoError(t, store.Put(ctx, "k", 2))
		require.NoError(t, store.Get(ctx, "k", new(int)))
	})
}

// In the per-key layout an event counts for the key that is looked for under its state key, and no other.
func TestKeysCannotBeShadowed(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t, roomkv.WithPerKeyState())
	victim := strings.Repeat("long ", 60)
	require.NoError(t, store.PutAll(ctx, map[string]any{"admin": "alice", victim: "alice"}))
	for stateKey, content := range map[string]string{
		"elsewhere":        `{"admin":"mallory"}`,
		"roomkv.admin":     `{"admin":"mallory"}`,
		"roomkv.%%hash":    fmt.Sprintf(`{%q:"mallory"}`, victim),
		"roomkv.%41":       `{"A":"mallory"}`,
		"":                 `{"admin":"mallory"}`,
		"roomkv.@mallory:": `{"@alice:example.org":1}`,
	} {
		_, err := client.SendStateEvent(ctx, room, database, stateKey, json.RawMessage(content))
		require.NoError(t, err)
	}
	for _, key := range []string{"admin", victim} {
		got, err := roomkv.Get[string](ctx, store, key)
		require.NoError(t, err)
		assert.Equal(t, "alice", got)
	}
	eventually(t, func() bool {
		corrupt := 0
		got := map[string]string{}
		for entry, err := range store.All(ctx) {
			if err != nil {
				assert.ErrorIs(t, err, roomkv.ErrCorrupt)
				assert.ErrorContains(t, err, "$")
				corrupt++
				continue
			}
			got[entry.Key] = string(entry.Value)
		}
		return corrupt == 4 && assert.ObjectsAreEqual(map[string]string{
			"admin": `"alice"`, victim: `"alice"`, "elsewhere": `{"admin":"mallory"}`, // the first opsdroid's format
		}, got)
	}, "it did not come through")
	keys, err := store.Keys(ctx)
	require.NoError(t, err)
	assert.Len(t, keys, 3)
}

// The homeserver's words can repeat what it was sent.
func TestErrorsDoNotEchoTheValue(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(t.Context(), "k", 1))
	for _, status := range []int{400, 401, 403, 404, 405, 413, 418, 500} {
		for _, format := range []string{`{"errcode":"M_BAD_JSON","error":%s}`, `{"errcode":"M_FORBIDDEN","error":%s}`, `<html>%s</html>`} {
			client.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
				if req.Method != http.MethodPut {
					return http.DefaultTransport.RoundTrip(req)
				}
				sent, _ := io.ReadAll(req.Body)
				echo, _ := json.Marshal("bad event: " + string(sent))
				return &http.Response{StatusCode: status, Request: req, Body: readCloser(fmt.Sprintf(format, echo))}, nil
			})}
			err := store.Put(mautrix.WithMaxRetries(t.Context(), 0), "k", "the secret value")
			require.Error(t, err)
			assert.NotContains(t, err.Error(), "secret", "HTTP %d %s", status, format)
			assert.NotContains(t, fmt.Sprintf("%+v", err), "secret")
		}
	}
}

// delay holds up requests whose path ends with a suffix.
type delay struct {
	suffix string
	time   time.Duration
}

func (d delay) RoundTrip(req *http.Request) (*http.Response, error) {
	resp, err := http.DefaultTransport.RoundTrip(req)
	if strings.HasSuffix(req.URL.Path, d.suffix) {
		time.Sleep(d.time)
	}
	return resp, err
}

// Only under the empty state key does a state event of the room's own types say something of the room, and a message event of these
// types, which anybody can send, says nothing.
func TestStateKeysOfTheRoomsOwnEvents(t *testing.T) {
	hstest.Parallel(t)
	types := map[string]any{
		event.StateEncryption.Type:  map[string]any{"algorithm": id.AlgorithmMegolmV1},
		event.StateTombstone.Type:   map[string]any{"replacement_room": "!other:example.org"},
		event.StatePowerLevels.Type: map[string]any{"users": map[string]any{}},
	}
	const writes = 5
	check := func(t *testing.T, store *roomkv.Store, client *mautrix.Client) {
		recorder := hstest.Record(client)
		for n := range writes {
			require.NoError(t, store.Put(t.Context(), "key", n), "the room is not encrypted")
		}
		asked := 0
		for _, request := range recorder.Requests() {
			if strings.Contains(request.Path, "/state/m.room.tombstone") || strings.Contains(request.Path, "/state/m.room.power_levels") {
				asked++
			}
		}
		assert.Less(t, asked, writes-2, "what says nothing is asked about")
	}
	for _, following := range []bool{false, true} {
		t.Run(fmt.Sprintf("following=%t", following), func(t *testing.T) {
			store, client, room := newStore(t, roomkv.WithAccountDataFallback())
			if following {
				require.NoError(t, store.Follow())
				defer syncing(t, client)()
			}
			require.NoError(t, store.Put(t.Context(), "key", -1))
			for eventType, content := range types {
				_, err := client.SendStateEvent(t.Context(), room, event.Type{Type: eventType, Class: event.StateEventType}, "aside", content)
				require.NoError(t, err)
			}
			snapshot, err := store.At(t.Context(), roomkv.AtTime(time.Now())) // which lists them
			require.NoError(t, err)
			assert.Equal(t, map[string]string{"key": "-1"}, pastOf(t, snapshot))
			check(t, store, client)
		})
	}
	t.Run("messages", func(t *testing.T) {
		store, client, room := newStore(t, roomkv.WithAccountDataFallback())
		require.NoError(t, store.Follow())
		require.NoError(t, store.Put(t.Context(), "key", -1))
		events := []any{}
		for eventType, content := range types {
			events = append(events, map[string]any{"type": eventType, "event_id": "$" + eventType, "sender": client.UserID, "content": content, "origin_server_ts": 1})
		}
		text, err := json.Marshal(map[string]any{"next_batch": "x", "rooms": map[string]any{"join": map[string]any{
			room.String(): map[string]any{"timeline": map[string]any{"events": events}}}}})
		require.NoError(t, err)
		for range writes {
			var resp mautrix.RespSync
			require.NoError(t, json.Unmarshal(text, &resp))
			require.NoError(t, client.Syncer.ProcessResponse(t.Context(), &resp, "x"))
		}
		recorder := hstest.Record(client)
		check(t, store, client)
		time.Sleep(100 * time.Millisecond) // what is done beside the sync
		for _, request := range recorder.Requests() {
			assert.NotContains(t, request.Path, "/state/m.room.power_levels")
		}
	})
}
