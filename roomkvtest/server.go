package roomkvtest

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strings"
	"testing"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs"
)

// Mode says which homeserver a [Server] imitates where they differ. A bot that must run on both is tested in both.
type Mode string

const (
	// Linear is what Dendrite does: it takes a user's writes to a room one after the other.
	Linear Mode = "linear"
	// Forking is what Synapse does: it takes writes at the same time, and they fork.
	Forking Mode = "forking"
)

// serverName is the name of each [Server]: the user ID of alice is @alice:example.org.
const serverName = "example.org"

// Server is a homeserver in memory. A method that cannot do what it is asked for ends the test that the server was made for, as [testing.TB.Fatal]
// does. Methods are safe for concurrent use; those that can end the test are for the test's own goroutine.
type Server struct {
	t    test
	fake *fakehs.Server
}

// New makes a server for a test, with no users and no rooms. The test fails if it has sent the server a request that the server does not know.
//
// In an example, and wherever else there is no test, t is nil. A failure then panics, and nothing ends what [Server.Sync] runs but the function that it
// returns.
func New(t testing.TB, mode Mode) *Server {
	s := &Server{t: noTest{}}
	if t != nil {
		s.t = t
	}
	s.t.Helper()
	// Stores of one process share locks by room ID, so that each server has IDs of its own.
	options := fakehs.Options{Name: serverName, Seed: rand.Uint64()}
	switch mode {
	case Linear:
	case Forking:
		options.Mode = fakehs.Forking
	default:
		s.t.Fatalf("roomkvtest: there is no mode %q", mode)
	}
	s.fake = fakehs.New(options)
	s.t.Cleanup(func() {
		if unknown := s.fake.Complaints(); len(unknown) > 0 {
			s.t.Errorf("roomkvtest: the server does not know these requests:\n%s", strings.Join(unknown, "\n"))
		}
	})
	return s
}

// ServeHTTP implements [http.Handler], for programs that make clients of their own: httptest.NewServer(server) listens. The password of each
// user is the user's name, that of @alice:example.org is alice.
func (s *Server) ServeHTTP(w http.ResponseWriter, req *http.Request) { s.fake.ServeHTTP(w, req) }

// Client returns a client that is logged in as @name:example.org. The first call for a name makes the user. Each further one logs in another device of the
// user: clients of the same name are as the replicas of a bot.
func (s *Server) Client(name string) *mautrix.Client {
	s.t.Helper()
	client, err := s.signIn(name)
	if err != nil {
		s.t.Fatalf("roomkvtest: a client of %s: %v", name, err)
	}
	return client
}

func (s *Server) signIn(name string) (*mautrix.Client, error) {
	client, err := mautrix.NewClient(s.fake.URL(), "", "")
	if err != nil {
		return nil, err
	}
	client.Client = &http.Client{Transport: s.fake}
	user, err := client.RegisterDummy(context.Background(), &mautrix.ReqRegister[any]{Username: name, Password: name})
	if errors.Is(err, mautrix.MUserInUse) {
		return s.fake.Login(context.Background(), name, name)
	}
	if err != nil {
		return nil, err
	}
	client.UserID, client.DeviceID, client.AccessToken = user.UserID, user.DeviceID, user.AccessToken
	return client, nil
}

// Room makes a private room, which the members have joined. Its creator may send state, which a bot must in order to write to the room's memory.
// The others may send messages, and not state.
func (s *Server) Room(creator *mautrix.Client, members ...*mautrix.Client) id.RoomID {
	s.t.Helper()
	room, err := s.room(creator, members, nil)
	if err != nil {
		s.t.Fatalf("roomkvtest: a room: %v", err)
	}
	return room
}

// EncryptedRoom makes a room as [Server.Room] does, and turns encryption on. In it roomkv writes with the client's Crypto, which the test sets up.
func (s *Server) EncryptedRoom(creator *mautrix.Client, members ...*mautrix.Client) id.RoomID {
	s.t.Helper()
	encrypted := &event.Event{
		Type:    event.StateEncryption,
		Content: event.Content{Parsed: &event.EncryptionEventContent{Algorithm: id.AlgorithmMegolmV1}},
	}
	room, err := s.room(creator, members, []*event.Event{encrypted})
	if err != nil {
		s.t.Fatalf("roomkvtest: an encrypted room: %v", err)
	}
	return room
}

func (s *Server) room(creator *mautrix.Client, members []*mautrix.Client, state []*event.Event) (id.RoomID, error) {
	ctx := context.Background()
	made, err := creator.CreateRoom(ctx, &mautrix.ReqCreateRoom{Preset: "private_chat", InitialState: state})
	if err != nil {
		return "", err
	}
	in := map[id.UserID]bool{creator.UserID: true}
	for _, member := range members {
		if in[member.UserID] { // another device
			continue
		}
		in[member.UserID] = true
		if _, err := creator.InviteUser(ctx, made.RoomID, &mautrix.ReqInviteUser{UserID: member.UserID}); err != nil {
			return "", err
		}
		if _, err := member.JoinRoomByID(ctx, made.RoomID); err != nil {
			return "", err
		}
	}
	return made.RoomID, nil
}
