package fakehs_test

import (
	"encoding/json"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

func TestState(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		ctx, client := t.Context(), fakehstest.Client(t, server)
		room := hstest.Room(t, client)
		first := put(t, client, room, "k", content{"a": 1})
		assert.Equal(t, first, put(t, client, room, "k", content{"a": 1}), "the same makes no event")
		second := put(t, client, room, "k", content{"a": 2, "<é>\u2028": nil})
		evt, err := client.FullStateEvent(ctx, room, kind, "k")
		require.NoError(t, err)
		assert.Equal(t, second, evt.ID)
		assert.Equal(t, client.UserID, evt.Sender)
		assert.JSONEq(t, `{"a":2,"<é>\u2028":null}`, string(evt.Content.VeryRaw))
		assert.Equal(t, server.Mode() == fakehs.Forking, evt.Unsigned.ReplacesState == first, "Dendrite leaves that out of the state")
		var got content
		require.NoError(t, client.StateEvent(ctx, room, kind, "k", &got))
		assert.Equal(t, content{"a": 2.0, "<é>\u2028": nil}, got)
		assert.ErrorIs(t, client.StateEvent(ctx, room, kind, "", &got), mautrix.MNotFound)

		state, err := client.State(ctx, room)
		require.NoError(t, err)
		assert.Equal(t, second, state[kind]["k"].ID)
		assert.Len(t, state, 7, "with those of a new room")

		stranger := fakehstest.Client(t, server)
		assert.ErrorIs(t, stranger.StateEvent(ctx, room, kind, "k", &got), mautrix.MForbidden)
		_, err = stranger.SendStateEvent(ctx, room, kind, "k", content{})
		assert.ErrorIs(t, err, mautrix.MForbidden)
	})
}

func TestSameContentOfSomebodyElse(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		one, two, room := pair(t, server)
		first := put(t, one, room, "k", content{"a": 1})
		assert.Equal(t, server.Mode() == fakehs.Linear, first == put(t, two, room, "k", content{"a": 1}), "to Synapse that is another event")
	})
}

func TestContents(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		room := hstest.Room(t, client)
		for text, accepted := range map[string][2]bool{ // on Dendrite, on Synapse
			`{"a":9007199254740991}`:  {true, true},
			`{"a":-9007199254740991}`: {true, true},
			`{"a":9007199254740992}`:  {false, false},
			`{"a":1.5}`:               {false, false},
			`{"a":[{"b":1e300}]}`:     {false, false},
			`{"a":1.0}`:               {true, false},
			`{"a":1e3}`:               {true, false},
			`{"a":-0}`:                {false, true},
			`{"a":"\ud83d\ude00"}`:    {true, true},
			`{"a":"\ud800"}`:          {true, false},
			`{"a":"\\ud800"}`:         {true, true},
			`[1]`:                     {false, false},
			`"x"`:                     {false, false},
		} {
			_, err := client.SendStateEvent(mautrix.WithMaxRetries(t.Context(), 0), room, kind, "k", json.RawMessage(text))
			if accepted[server.Mode()] {
				assert.NoError(t, err, text)
			} else {
				assert.Error(t, err, text)
			}
		}
		var got json.RawMessage
		put(t, client, room, "order", json.RawMessage(` { "b" : 1 , "a" : [ ] , "b" : 2 } `))
		require.NoError(t, client.StateEvent(t.Context(), room, kind, "order", &got))
		assert.Equal(t, `{"a":[],"b":2}`, string(got))
	})
}

func TestSizes(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		room := hstest.Room(t, client)
		put(t, client, room, strings.Repeat("k", 255), content{})
		_, err := client.SendStateEvent(t.Context(), room, kind, strings.Repeat("é", 128), content{})
		assert.Equal(t, http.StatusRequestEntityTooLarge, status(t, err))
		put(t, client, room, client.UserID.String(), content{})
		_, err = client.SendStateEvent(t.Context(), room, kind, "@somebody", content{})
		assert.ErrorIs(t, err, mautrix.MForbidden)
		put(t, client, room, "k", content{"a": strings.Repeat("x", 64_000)})
		_, err = client.SendStateEvent(t.Context(), room, kind, "k", content{"a": strings.Repeat("x", 65_500)})
		assert.Equal(t, http.StatusRequestEntityTooLarge, status(t, err))
	})
}

// A room with much state, where each state is a small change of the one before.
func TestManyStateEvents(t *testing.T) {
	fakehstest.Each(t, func(t *testing.T, server *fakehs.Server) {
		client := fakehstest.Client(t, server)
		room := hstest.Room(t, client)
		last := map[string]string{}
		for i := range 500 {
			key := strings.Repeat("k", i%150+1)
			last[key] = put(t, client, room, key, content{"i": i}).String()
		}
		state, err := client.State(t.Context(), room)
		require.NoError(t, err)
		got := map[string]string{}
		for key, evt := range state[kind] {
			got[key] = evt.ID.String()
		}
		assert.Equal(t, last, got)
	})
}

func TestUnknownRequest(t *testing.T) {
	t.Parallel()
	server := fakehs.New(fakehs.Options{})
	client := fakehstest.Client(t, server)
	_, err := ask(t, client, http.MethodGet, nil, "v3", "nothing")
	assert.ErrorIs(t, err, mautrix.MUnrecognized)
	_, err = ask(t, client, http.MethodDelete, nil, "v3", "joined_rooms")
	assert.Equal(t, http.StatusMethodNotAllowed, status(t, err))
	assert.Equal(t, []string{"GET /_matrix/client/v3/nothing", "DELETE /_matrix/client/v3/joined_rooms"}, server.Complaints())
}

// With one seed all IDs are the same.
func TestSeed(t *testing.T) {
	t.Parallel()
	made := func(seed uint64) string {
		client := fakehstest.Client(t, fakehs.New(fakehs.Options{Seed: seed}))
		room := hstest.Room(t, client)
		return client.UserID.String() + room.String() + put(t, client, room, "", content{}).String()
	}
	assert.Equal(t, made(1), made(1))
	assert.NotEqual(t, made(1), made(2))
}
