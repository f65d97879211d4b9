package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"net/http"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestNewRefuses(t *testing.T) {
	hstest.Parallel(t)
	client := hstest.Client(t)
	self := client.UserID.String()
	long := strings.Repeat("x", 256)
	for name, opts := range map[string][]roomkv.Option{
		"a nil option":                {nil},
		"empty event type":            {roomkv.WithEventType("")},
		"long event type":             {roomkv.WithEventType(long)},
		"power levels as event type":  {roomkv.WithEventType("m.room.power_levels")},
		"unknown m.room event type":   {roomkv.WithEventType("m.room.roomkv")},
		"space child as event type":   {roomkv.WithEventType("m.space.child")},
		"long state key":              {roomkv.WithSingleStateKey(long)},
		"somebody else's state key":   {roomkv.WithSingleStateKey("@alice:example.org")},
		"event type not UTF-8":        {roomkv.WithEventType("\xff")},
		"state key not UTF-8":         {roomkv.WithSingleStateKey("\xff")},
		"a name that is an alias":     {roomkv.WithRooms(map[string]string{"#main:example.org": "!a:b"})},
		"an empty name":               {roomkv.WithRooms(map[string]string{"": "!a:b"})},
		"a name that names a name":    {roomkv.WithRooms(map[string]string{"main": "other", "other": "!a:b"})},
		"the last of two layouts bad": {roomkv.WithPerKeyState(), roomkv.WithSingleStateKey(long)},
		"fewer than no shards":        {roomkv.WithPerKeyState(), roomkv.WithShards(-1)},
	} {
		_, err := roomkv.New(client, "!room:example.org", opts...)
		assert.ErrorIs(t, err, roomkv.ErrInvalidOption, name)
	}
	_, err := roomkv.New(nil, "!room:example.org")
	require.ErrorIs(t, err, roomkv.ErrInvalidOption)
	for _, room := range []string{"main", "!", "#", "@alice:example.org"} {
		_, err := roomkv.New(client, room)
		assert.ErrorIs(t, err, roomkv.ErrUnknownRoom, room)
	}
	_, err = roomkv.New(client, "!room:example.org", roomkv.WithShards(0), roomkv.WithShards(500), roomkv.WithPerKeyState())
	require.NoError(t, err, "the last layout counts")
	_, err = roomkv.New(client, "!room:example.org", roomkv.WithSingleStateKey(self))
	require.NoError(t, err, "one's own user ID is a state key like any other")
}

func TestForbiddenNamesTheLevels(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		owner, guest := hstest.Client(t), hstest.Client(t)
		room := hstest.Room(t, owner, &mautrix.ReqCreateRoom{
			Preset:             "public_chat",
			PowerLevelOverride: &event.PowerLevelsEventContent{Events: map[string]int{roomkv.DefaultEventType: 42}},
		})
		_, err := guest.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		require.NoError(t, open(t, owner, room, layout).Put(ctx, "k", 1))

		store := open(t, guest, room, layout)
		got, err := roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err, "reading takes no power")
		assert.Equal(t, 1, got)
		for what, err := range map[string]error{
			"put":    store.Put(ctx, "k", "the secret value"),
			"delete": store.Delete(ctx, "k"),
			"pop":    store.Pop(ctx, "k", new(int)),
		} {
			require.ErrorIs(t, err, roomkv.ErrForbidden, what)
			require.ErrorIs(t, err, mautrix.MForbidden, what)
			assert.ErrorContains(t, err, "power level 42", what)
			assert.ErrorContains(t, err, "has 0", what)
			assert.ErrorContains(t, err, room.String(), what)
			assert.NotContains(t, err.Error(), "secret", what)
		}
	})
}

// What takes another power than sending the store's state says which.
func TestForbiddenNamesTheLevelsOfOtherRequests(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	owner, guest := hstest.Client(t), bot(t, true)
	levels := &event.PowerLevelsEventContent{Users: map[id.UserID]int{owner.UserID: 100},
		Events: map[string]int{event.EventEncrypted.Type: 30, event.EventRedaction.Type: 5, roomkv.DefaultEventType: 0}}
	levels.RedactPtr = new(int)
	*levels.RedactPtr = 60
	plain := hstest.Room(t, owner, &mautrix.ReqCreateRoom{Preset: "public_chat", PowerLevelOverride: levels})
	encrypted := hstest.Room(t, owner, &mautrix.ReqCreateRoom{Preset: "public_chat", PowerLevelOverride: levels,
		InitialState: []*event.Event{{Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}}}}})
	for _, room := range []id.RoomID{plain, encrypted} {
		_, err := guest.JoinRoomByID(ctx, room)
		require.NoError(t, err)
	}
	for _, opts := range [][]roomkv.Option{nil, {roomkv.WithAccountDataFallback()}} {
		err := open(t, guest, encrypted, opts...).Put(ctx, "k", "the secret value")
		require.ErrorIs(t, err, roomkv.ErrForbidden)
		assert.ErrorContains(t, err, "sending m.room.encrypted events there takes power level 30, and "+guest.UserID.String()+" has 0")
		assert.NotContains(t, err.Error(), "secret")
	}

	require.NoError(t, open(t, owner, plain).Put(ctx, "k", 1))
	_, err := roomkv.Copy(ctx, open(t, guest, hstest.Room(t, guest)), open(t, guest, plain), roomkv.CopyRedactSource())
	require.ErrorIs(t, err, roomkv.ErrForbidden)
	assert.ErrorContains(t, err, "5 for one's own events and 60 for others', and "+guest.UserID.String()+" has 0")
}

func TestNotJoined(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		owner, stranger := hstest.Client(t), hstest.Client(t)
		room := hstest.Room(t, owner)
		require.NoError(t, open(t, owner, room, layout).Put(ctx, "k", 1))
		for _, room := range []string{room.String(), "!nowhere:localhost", "!nowhere:example.org"} {
			for _, encryption := range []bool{true, false} {
				store, err := roomkv.New(stranger, room, layout, roomkv.WithEncryption(encryption))
				require.NoError(t, err)
				_, keysErr := store.Keys(ctx)
				for what, err := range map[string]error{
					"get":    store.Get(ctx, "k", new(int)),
					"put":    store.Put(ctx, "k", 2),
					"delete": store.Delete(ctx, "k", "j"),
					"keys":   keysErr,
				} {
					assert.ErrorIs(t, err, roomkv.ErrNotJoined, "%s in %s", what, room)
					assert.NotErrorIs(t, err, roomkv.ErrNotFound, "%s in %s", what, room)
				}
			}
		}

		_, err := owner.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: stranger.UserID})
		require.NoError(t, err)
		_, err = stranger.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		store := open(t, stranger, room, layout)
		require.NoError(t, store.Get(ctx, "k", new(int)))
		_, err = stranger.LeaveRoom(ctx, room)
		require.NoError(t, err)
		assert.ErrorIs(t, store.Put(ctx, "k", 2), roomkv.ErrNotJoined)
		// Dendrite gives whoever left the create event in place of one that is not there.
		store = open(t, stranger, room, layout, roomkv.WithEventType("com.example.other"))
		for _, key := range []string{"creator", "room_version", "k"} {
			assert.Error(t, store.Get(ctx, key, new(any)))
		}
	})
}

// A memory has a limit of many small values, a key has one in any layout; see TestMaxValue for that of a value.
func TestTooLarge(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		store, client, _ := newStore(t, layout)
		ctx := t.Context()
		require.NoError(t, store.Put(ctx, "k", strings.Repeat("x", 70_000)))
		long := strings.Repeat("long ", 13_500)
		recorder := hstest.Record(client)
		err := store.PutAll(ctx, map[string]any{"a": 1, long: "the value"})
		require.ErrorIs(t, err, roomkv.ErrTooLarge)
		assert.ErrorContains(t, err, "65536")
		assert.NotContains(t, err.Error(), "the value")
		require.ErrorIs(t, store.Put(ctx, long, strings.Repeat("x", 70_000)), roomkv.ErrTooLarge)
		for _, request := range recorder.Requests() {
			assert.NotEqual(t, http.MethodPut, request.Method, "nothing is written where one value cannot be")
			assert.NotEqual(t, http.MethodPost, request.Method)
		}
		assert.Len(t, memoryOf(t, store), 1, "the old value is as it was")
	})

	single, _, _ := newStore(t)
	require.NoError(t, single.PutAll(t.Context(), small("a", 40_000)))
	err := single.PutAll(t.Context(), small("b", 40_000))
	require.ErrorIs(t, err, roomkv.ErrTooLarge)
	require.ErrorContains(t, err, "WithPerKeyState")
	require.ErrorContains(t, err, "Copy")
}

func TestDecodeErrorsHideTheValue(t *testing.T) {
	hstest.Parallel(t)
	store, _, _ := newStore(t)
	ctx := t.Context()
	const secret = 424242
	require.NoError(t, store.Put(ctx, "n", secret))
	require.NoError(t, store.Put(ctx, "t", map[string]any{"when": "424242"}))

	err := store.Get(ctx, "n", new(int8))
	require.ErrorIs(t, err, roomkv.ErrDecode)
	var mismatch *json.UnmarshalTypeError
	require.ErrorAs(t, err, &mismatch)
	assert.NotContains(t, err.Error(), fmt.Sprint(secret))
	assert.ErrorContains(t, err, "int8")

	err = store.Get(ctx, "t", new(struct{ When time.Time }))
	require.ErrorIs(t, err, roomkv.ErrDecode)
	assert.NotContains(t, err.Error(), fmt.Sprint(secret))

	require.NoError(t, store.Put(ctx, "s", "the secret value"))
	for _, dest := range []any{&echo{}, &echo{reflect.TypeFor[int]()}} {
		err = store.Get(ctx, "s", dest)
		require.ErrorIs(t, err, roomkv.ErrDecode)
		assert.NotContains(t, err.Error(), "secret")
	}
	for _, dest := range []any{nil, 7, (*int)(nil)} {
		assert.ErrorIs(t, store.Get(ctx, "n", dest), roomkv.ErrDecode)
	}
	assert.ErrorIs(t, store.Put(ctx, "n", math.Inf(1)), roomkv.ErrInvalidValue)
	var unsupported *json.UnsupportedTypeError
	assert.ErrorAs(t, store.Put(ctx, "n", make(chan int)), &unsupported)
}

// echo is a destination whose error repeats what it was given.
type echo struct{ of reflect.Type }

func (e *echo) UnmarshalJSON(text []byte) error {
	return &json.UnmarshalTypeError{Value: "secret" + string(text), Type: e.of}
}

// Neither mautrix's request log nor ours shows a value, at any level, whatever happens.
func TestNoValueInLogs(t *testing.T) {
	hstest.Parallel(t)
	const secret = "the-secret-value"
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		client := hstest.Client(t)
		var log bytes.Buffer
		client.Log = zerolog.New(&log).Level(zerolog.TraceLevel)
		room := hstest.Room(t, client)
		store := open(t, client, room, layout)
		ctx := client.Log.WithContext(t.Context())
		require.NoError(t, store.Put(ctx, "k", secret))
		require.NoError(t, store.Put(ctx, "j", map[string]any{"f": 1.5, "s": secret}))
		require.NoError(t, store.Get(ctx, "k", new(string)))
		memoryOf(t, store)
		require.Error(t, store.Get(ctx, "k", new(int)))
		large := strings.Repeat(secret, 4070)
		require.Error(t, open(t, client, room, layout, roomkv.WithMaxValue(50_000)).Put(ctx, "k", large))
		require.NoError(t, store.Put(ctx, "k", large), "in the media repository")
		require.NoError(t, store.Get(ctx, "k", new(string)))
		require.Error(t, store.Get(ctx, "k", new(int)))
		require.NoError(t, store.Delete(ctx, "k"))
		require.NoError(t, store.Pop(ctx, "j", new(any)))
		assert.Contains(t, log.String(), "/state/"+roomkv.DefaultEventType, "the requests are logged")
		assert.NotContains(t, log.String(), secret)
	})
}

func TestBadTokenIsMautrixError(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	client.AccessToken = "wrong"
	require.ErrorIs(t, store.Put(t.Context(), "k", 1), mautrix.MUnknownToken)
	require.ErrorIs(t, store.Get(t.Context(), "k", new(int)), mautrix.MUnknownToken)
}

// flaky answers the first requests itself and hands the rest on.
type flaky struct {
	next   http.RoundTripper
	status int
	left   int
}

func (f *flaky) RoundTrip(req *http.Request) (*http.Response, error) {
	if f.left == 0 {
		return f.next.RoundTrip(req)
	}
	f.left--
	if req.Body != nil {
		_ = req.Body.Close()
	}
	body := `{"errcode":"M_LIMIT_EXCEEDED","error":"slow down"}`
	if f.status != http.StatusTooManyRequests {
		body = "<html>the gateway's own page</html>"
	}
	return &http.Response{StatusCode: f.status, Header: http.Header{}, Request: req, Body: readCloser(body)}, nil
}

func TestRateLimitsAndGatewayErrorsAreWaitedOut(t *testing.T) {
	hstest.Parallel(t)
	for _, status := range []int{http.StatusTooManyRequests, http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout} {
		t.Run(http.StatusText(status), func(t *testing.T) {
			store, client, _ := newStore(t)
			client.DefaultHTTPBackoff = time.Millisecond
			transport := &flaky{next: http.DefaultTransport, status: status, left: 3}
			client.Client = &http.Client{Transport: transport}
			require.NoError(t, store.Put(t.Context(), "k", 1))
			transport.left = 3
			got, err := roomkv.Get[int](t.Context(), store, "k")
			require.NoError(t, err)
			assert.Equal(t, 1, got)

			transport.left = 1000
			err = store.Put(t.Context(), "k", 2)
			require.Error(t, err)
			assert.Equal(t, 1000-4, transport.left, "it gives up in the end")
			if status == http.StatusTooManyRequests {
				assert.ErrorIs(t, err, mautrix.MLimitExceeded)
			}
			assert.ErrorContains(t, err, fmt.Sprint(status))
			assert.NotContains(t, err.Error(), "html")

			transport.left = 1000
			require.Error(t, store.Put(mautrix.WithMaxRetries(t.Context(), 0), "k", 2))
			assert.Equal(t, 1000-1, transport.left, "the context says how often")

			alias, err := roomkv.New(client, "#nowhere:"+client.UserID.Homeserver())
			require.NoError(t, err)
			transport.left = 3
			require.ErrorIs(t, alias.Put(t.Context(), "k", 2), roomkv.ErrUnknownRoom)
			assert.Zero(t, transport.left, "an alias is worth waiting for too")
			transport.left = 1000

			client.DefaultHTTPBackoff = time.Hour
			short, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
			defer cancel()
			began := time.Now()
			require.ErrorIs(t, store.Put(short, "k", 2), context.DeadlineExceeded)
			assert.Less(t, time.Since(began), 5*time.Second)
		})
	}
}

func TestServerDown(t *testing.T) {
	hstest.Parallel(t)
	store, client, _ := newStore(t)
	refused := errors.New("connection refused by the test")
	client.Client = &http.Client{Transport: roundTripper(func(*http.Request) (*http.Response, error) { return nil, refused })}
	err := store.Put(mautrix.WithMaxRetries(t.Context(), 0), "k", "the secret value")
	require.ErrorIs(t, err, refused)
	assert.NotContains(t, err.Error(), "secret")
}

// A room that is encrypted, or may be, gets no plaintext.
func TestNeverPlaintextByAccident(t *testing.T) {
	hstest.Parallel(t)
	eachLayout(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		client := hstest.Client(t)
		encryption := &event.Event{Type: event.StateEncryption, Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: "m.megolm.v1.aes-sha2"}}}
		room := hstest.Room(t, client, &mautrix.ReqCreateRoom{Preset: "private_chat", InitialState: []*event.Event{encryption}})
		store := open(t, client, room, layout)
		recorder := hstest.Record(client)
		for range 3 {
			require.ErrorIs(t, store.Put(ctx, "k", "the secret value"), roomkv.ErrNoCrypto)
			require.ErrorIs(t, store.PutAll(ctx, map[string]any{"k": 1}), roomkv.ErrNoCrypto)
		}
		for _, request := range recorder.Requests() {
			assert.NotContains(t, string(request.Body), "secret")
		}
		require.ErrorIs(t, store.Get(ctx, "k", new(string)), roomkv.ErrNotFound)

		clear := open(t, client, room, layout, roomkv.WithEncryption(false))
		require.NoError(t, clear.Put(ctx, "k", 1))
		require.NoError(t, store.Get(ctx, "k", new(int)))
		require.NoError(t, store.Delete(ctx, "k"), "a deletion adds no value")

		// The question fails: nothing is written either.
		unsure := open(t, client, hstest.Room(t, client), layout)
		asked := 0
		client.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, event.StateEncryption.Type) {
				asked++
				return &http.Response{StatusCode: 500, Request: req, Body: readCloser(`{"errcode":"M_UNKNOWN","error":"no idea"}`)}, nil
			}
			assert.NotEqual(t, http.MethodPut, req.Method)
			return http.DefaultTransport.RoundTrip(req)
		})}
		once := mautrix.WithMaxRetries(ctx, 0)
		require.Error(t, unsure.Put(once, "k", 1))
		require.Error(t, unsure.Put(once, "k", 1))
		assert.Equal(t, 2, asked, "a failure is not an answer to remember")
	})
}

// A room can become encrypted after the store has asked. What a syncing client has learned of it counts.
func TestRoomBecomesEncrypted(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	store, client, room := newStore(t)
	client.StateStore = mautrix.NewMemoryStateStore()
	require.NoError(t, store.Put(ctx, "k", 1))
	require.NoError(t, client.StateStore.SetEncryptionEvent(ctx, room, &event.EncryptionEventContent{Algorithm: "m.megolm.v1.aes-sha2"}))
	require.ErrorIs(t, store.Put(ctx, "k", 2), roomkv.ErrNoCrypto)
	client.StateStore = mautrix.NewMemoryStateStore()
	require.ErrorIs(t, store.Put(ctx, "k", 2), roomkv.ErrNoCrypto, "it is never forgotten")
}
