package run_test

import (
	"context"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/session/internal/rooms"
)

func TestInvites(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		r := runner(t, self, io.Discard)
		invites := make(chan rooms.Invite, 10)
		r.Rooms.Accept = func(_ context.Context, invite rooms.Invite) bool {
			invites <- invite
			return invite.RoomName != "no"
		}
		refused, again := 0, 0
		server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/join/") {
				if again++; again <= refused {
					return answer(req, 502, "<html>"), nil
				}
			}
			return next(req)
		})
		end, ended := start(t, r)
		time.Sleep(time.Second)
		invite := func(name string) id.RoomID {
			made, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Name: name, Invite: []id.UserID{self.UserID}, IsDirect: true})
			require.NoError(t, err)
			return made.RoomID
		}
		no, yes := invite("no"), invite("yes")
		for range 2 {
			got := <-invites
			assert.Equal(t, other.UserID, got.Inviter)
			assert.True(t, got.Direct)
			assert.Equal(t, map[id.RoomID]string{no: "no", yes: "yes"}[got.Room], got.RoomName)
		}
		time.Sleep(time.Second)
		assert.Equal(t, []id.RoomID{yes}, joined(t, self))

		refused, again = 4, 0
		later := invite("later")
		time.Sleep(10 * time.Second)
		assert.Len(t, joined(t, self), 1)
		time.Sleep(time.Minute)
		assert.Contains(t, joined(t, self), later)
		assert.Equal(t, 5, again)

		refused, again = 1000, 0
		never := invite("never")
		time.Sleep(10 * time.Second)
		end()
		require.NoError(t, <-ended)
		refused = 0
		second, err := mautrix.NewClient(server.URL(), self.UserID, self.AccessToken)
		require.NoError(t, err)
		second.Client = self.Client
		r.Client, r.Rooms = second, &rooms.Rooms{Client: second, Tasks: r.Inbox, Accept: r.Rooms.Accept}
		r.Rooms.Start(t.Context())
		defer r.Rooms.Stop()
		time.Sleep(time.Second)
		assert.Contains(t, joined(t, self), never, "a restart tries again")
		assert.Empty(t, r.Inbox.Tasks())
	})
}

func joined(t *testing.T, client *mautrix.Client) []id.RoomID {
	t.Helper()
	resp, err := client.JoinedRooms(t.Context())
	require.NoError(t, err)
	return resp.JoinedRooms
}

func TestRevokedInvite(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		r := runner(t, self, io.Discard)
		r.Rooms.Accept = func(context.Context, rooms.Invite) bool { return true }
		tries := 0
		server.Intercept(func(req *http.Request, next fakehs.Next) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/join/") {
				tries++
				return answer(req, 403, `{"errcode":"M_FORBIDDEN"}`), nil
			}
			return next(req)
		})
		start(t, r)
		time.Sleep(time.Second)
		for _, revoke := range []bool{false, true} {
			tries = 0
			made, err := other.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: []id.UserID{self.UserID}})
			require.NoError(t, err)
			time.Sleep(10 * time.Second)
			assert.Len(t, r.Inbox.Tasks(), 1)
			if revoke {
				_, err := other.KickUser(t.Context(), made.RoomID, &mautrix.ReqKickUser{UserID: self.UserID})
				require.NoError(t, err)
				time.Sleep(time.Second)
				assert.Empty(t, r.Inbox.Tasks())
			}
			time.Sleep(24 * time.Hour)
			assert.Empty(t, r.Inbox.Tasks())
			assert.Equal(t, map[bool]int{false: 5, true: 3}[revoke], tries)
		}
	})
}

func TestLeaveEmpty(t *testing.T) {
	virtual(t, func(t *testing.T, server *fakehs.Server, self, other *mautrix.Client) {
		third := fakehstest.Client(t, server)
		left, full, pending, kept := together(t, other, self), together(t, other, self), together(t, other, self), together(t, other, self)
		own, err := self.CreateRoom(t.Context(), &mautrix.ReqCreateRoom{Preset: "private_chat"})
		require.NoError(t, err)
		_, err = third.JoinRoomByID(t.Context(), full)
		require.NoError(t, err)
		_, err = other.InviteUser(t.Context(), pending, &mautrix.ReqInviteUser{UserID: third.UserID})
		require.NoError(t, err)
		r := runner(t, self, io.Discard)
		r.Rooms.LeaveEmpty = true
		r.Rooms.Keep = func(_ context.Context, room id.RoomID) bool { return room == kept }
		r.Inbox.On(event.StateMember, r.Rooms.Left)
		start(t, r)
		time.Sleep(time.Second)
		for _, room := range []id.RoomID{left, full, pending, kept} {
			_, err := other.LeaveRoom(t.Context(), room)
			require.NoError(t, err)
		}
		time.Sleep(time.Minute)
		is := joined(t, self)
		assert.NotContains(t, is, left)
		for _, room := range []id.RoomID{full, pending, kept, own.RoomID} {
			assert.True(t, slices.Contains(is, room))
		}
		_, err = third.LeaveRoom(t.Context(), full)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		assert.NotContains(t, joined(t, self), full)
		assert.Empty(t, r.Inbox.Tasks())
	})
}
