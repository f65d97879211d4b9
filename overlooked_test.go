package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
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

func increment(n int, _ bool) (int, error) { return n + 1, nil }

// twin is the same device once more, with a transport of its own.
func twin(t testing.TB, client *mautrix.Client) *mautrix.Client {
	t.Helper()
	same, err := mautrix.NewClient(client.HomeserverURL.String(), client.UserID, client.AccessToken)
	require.NoError(t, err)
	same.DeviceID, same.StateStore, same.Crypto = client.DeviceID, client.StateStore, client.Crypto
	return same
}

// People talk in the room between a rival's write and ours, or for long before it. Dendrite's pages are of so many events before the filter,
// and where that leaves nothing it does not say that there is more.
func TestTalkHidesNoRival(t *testing.T) {
	hstest.Parallel(t)
	for name, talk := range map[string]struct{ before, since int }{"some": {0, 30}, "much": {0, 130}, "before": {80, 0}} {
		t.Run(name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, layout roomkv.Option) {
				store, client, room := newStore(t, layout)
				rivalClient := again(t, client)
				rival := open(t, rivalClient, room, layout)
				talking := func(messages int) {
					for range messages {
						_, err := rivalClient.SendText(t.Context(), room, "talk")
						require.NoError(t, err)
					}
				}
				require.NoError(t, roomkv.Update(t.Context(), rival, "count", increment))
				require.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
				want := 4
				if talk.before > 0 {
					want++
					require.NoError(t, roomkv.Update(t.Context(), rival, "count", increment))
					require.ErrorIs(t, store.Create(t.Context(), "count", 0), roomkv.ErrExists, "and it knows that now")
					require.NoError(t, roomkv.Update(t.Context(), rival, "count", increment))
					talking(talk.before)
					time.Sleep(time.Second) // for longer it does not go on from what others wrote
				}
				interrupt(client, func(n int) {
					if n == 0 && talk.since > 0 {
						require.NoError(t, roomkv.Update(t.Context(), rival, "count", increment))
						talking(talk.since)
					}
				}, nil)
				require.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
				got, err := roomkv.Get[int](t.Context(), rival, "count")
				require.NoError(t, err)
				assert.Equal(t, want, got)
			})
		})
	}
}

// What any member may send ends no look back, whatever time it claims: messages of the store's type or of another, and memberships.
func TestAncientMessagesHideNoRival(t *testing.T) {
	hstest.Parallel(t)
	member := event.Type{Type: event.StateMember.Type, Class: event.StateEventType}
	for name, send := range map[string]func(ctx context.Context, client *mautrix.Client, room id.RoomID, n int) error{
		"of the type": func(ctx context.Context, client *mautrix.Client, room id.RoomID, n int) error {
			_, err := client.SendMessageEvent(ctx, room, event.Type{Type: roomkv.DefaultEventType, Class: event.MessageEventType}, map[string]any{"count": n})
			return err
		},
		"text": func(ctx context.Context, client *mautrix.Client, room id.RoomID, n int) error {
			_, err := client.SendText(ctx, room, fmt.Sprint(n))
			return err
		},
		"membership": func(ctx context.Context, client *mautrix.Client, room id.RoomID, n int) error {
			_, err := client.SendStateEvent(ctx, room, member, client.UserID.String(), map[string]any{"membership": "join", "displayname": fmt.Sprint(n)})
			return err
		},
	} {
		t.Run(name, func(t *testing.T) {
			bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
				ctx := t.Context()
				store, client, room := newStore(t, layout)
				rival := open(t, again(t, client), room, layout)
				guest := hstest.Client(t)
				_, err := client.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: guest.UserID})
				require.NoError(t, err)
				_, err = guest.JoinRoomByID(ctx, room)
				require.NoError(t, err)
				require.NoError(t, roomkv.Update(ctx, rival, "count", increment))
				require.NoError(t, roomkv.Update(ctx, store, "count", increment))
				use, next := through(client)
				wrote := false
				use(func(req *http.Request) (*http.Response, error) {
					if req.Method == http.MethodPut && !wrote {
						wrote = true
						require.NoError(t, roomkv.Update(ctx, rival, "count", increment))
						for n := range 60 {
							require.NoError(t, send(ctx, guest, room, n))
						}
					}
					if query := req.URL.Query(); strings.HasSuffix(req.URL.Path, "/messages") && name != "of the type" && query.Get("from") != "" {
						// As if there were more of them than Dendrite looks at.
						if strings.Contains(query.Get("filter"), `"types"`) {
							return &http.Response{StatusCode: 200, Header: http.Header{"Content-Type": {"application/json"}}, Request: req,
								Body: io.NopCloser(strings.NewReader(`{"chunk": []}`))}, nil
						}
						req = req.Clone(req.Context())
						query.Set("filter", `{"limit":25}`)
						query.Set("limit", "25")
						req.URL.RawQuery = query.Encode()
					}
					resp, err := next.RoundTrip(req)
					if err != nil || !strings.HasSuffix(req.URL.Path, "/messages") {
						return resp, err
					}
					body, err := io.ReadAll(resp.Body)
					_ = resp.Body.Close()
					var page map[string]any
					if err != nil || json.Unmarshal(body, &page) != nil {
						return nil, err
					}
					for _, evt := range page["chunk"].([]any) {
						if evt := evt.(map[string]any); evt["sender"] == guest.UserID.String() {
							evt["origin_server_ts"] = 1
						}
					}
					body, err = json.Marshal(page)
					resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
					return resp, err
				})
				require.NoError(t, roomkv.Update(ctx, store, "count", increment))
				got, err := roomkv.Get[int](ctx, rival, "count")
				require.NoError(t, err)
				assert.Equal(t, 4, got)
			})
		})
	}
}

// Synapse's sync shows what was sent while the power levels changed, also where that has kept it out of the state.
func TestListingOfWhatIsNotInTheState(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t, roomkv.WithPerKeyState())
	require.NoError(t, store.Put(ctx, "key", 1))
	ghost := fmt.Sprintf(`{"type":%q,"state_key":"ghost","event_id":"$ghost","sender":%q,"origin_server_ts":%d,"content":{"ghost":1}}`,
		roomkv.DefaultEventType, client.UserID, time.Now().UnixMilli())
	use, next := through(client)
	use(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if err != nil || !strings.HasSuffix(req.URL.Path, "/sync") {
			return resp, err
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		body = bytes.Replace(body, []byte(`"timeline":{"events":[{`), []byte(`"timeline":{"events":[`+ghost+",{"), 1)
		resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
		return resp, err
	})
	both := map[string]string{"ghost": "1", "key": "1"}
	eventually(t, func() bool { return maps.Equal(both, memoryOf(t, store)) }, "the power did not change")

	var levels event.PowerLevelsEventContent
	require.NoError(t, client.StateEvent(ctx, room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel("@somebody:example.org", 50)
	_, err := client.SendStateEvent(ctx, room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
	eventually(t, func() bool { return maps.Equal(map[string]string{"key": "1"}, memoryOf(t, store)) }, "it is not in the state")
}

// What the homeserver does between giving an answer and its arrival is not in it.
func TestLateAnswerHidesNoRival(t *testing.T) {
	hstest.Parallel(t)
	layout := roomkv.WithPerKeyState()
	store, client, room := newStore(t, layout)
	rival := open(t, again(t, client), room, layout)
	late := false
	next := client.Client.Transport
	if next == nil {
		next = http.DefaultTransport
	}
	slow := *client.Client
	slow.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
		resp, err := next.RoundTrip(req)
		if !late && strings.HasSuffix(req.URL.Path, "/messages") {
			late = true
			require.NoError(t, roomkv.Update(t.Context(), rival, "count", increment))
			for i := range 40 {
				require.NoError(t, rival.Put(t.Context(), fmt.Sprint("other ", i), i))
			}
			time.Sleep(time.Second)
		}
		return resp, err
	})
	client.Client = &slow
	require.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
	require.True(t, late)
	require.NoError(t, roomkv.Update(t.Context(), store, "count", increment))
	got, err := roomkv.Get[int](t.Context(), rival, "count")
	require.NoError(t, err)
	assert.Equal(t, 3, got)
}

// Both put the seal there, and neither may take that for a change of the other's.
func TestFirstWritersOfASealedMemory(t *testing.T) {
	hstest.Parallel(t)
	store, client, room := newEncrypted(t, roomkv.WithSealedKeys(secret))
	rival := open(t, twin(t, client), room, roomkv.WithSealedKeys(secret))
	interrupt(client, func(n int) {
		if n == 0 {
			require.NoError(t, rival.Create(t.Context(), "theirs", 1))
		}
	}, nil)
	require.NoError(t, roomkv.Update(t.Context(), store, "mine", increment))
	assert.Equal(t, map[string]string{"mine": "1", "theirs": "1"}, memoryOf(t, rival))
}

// The state store in memory would give the session to everybody who was ever in the room.
func TestKeysGoToMembersAlone(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	client := hstest.Client(t)
	var users []*mautrix.Client
	var invite []id.UserID
	for range 3 {
		user := hstest.Client(t)
		hstest.Crypto(t, user)
		users, invite = append(users, user), append(invite, user.UserID)
	}
	room := hstest.EncryptedRoom(t, client, invite...)
	for _, user := range users {
		_, err := user.JoinRoomByID(ctx, room)
		require.NoError(t, err)
	}
	_, err := users[1].LeaveRoom(ctx, room)
	require.NoError(t, err)
	_, err = client.BanUser(ctx, room, &mautrix.ReqBanUser{UserID: users[2].UserID})
	require.NoError(t, err)

	hstest.Crypto(t, client)
	recorder := hstest.Record(client)
	require.NoError(t, open(t, client, room).Put(ctx, "key", "value"))
	var sent strings.Builder
	for _, request := range recorder.Requests() {
		if strings.Contains(request.Path, "/sendToDevice/m.room.encrypted") {
			sent.Write(request.Body)
		}
	}
	assert.Contains(t, sent.String(), users[0].UserID)
	assert.NotContains(t, sent.String(), users[1].UserID)
	assert.NotContains(t, sent.String(), users[2].UserID)
}
