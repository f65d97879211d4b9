package homeserver

import (
	"context"
	"crypto/rand"
	"fmt"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// Register makes a user with a random name that begins with prefix, and returns a client logged in as it.
// It fails on a server that does not let anybody register (m.login.dummy).
func (s *Server) Register(ctx context.Context, prefix string) (*mautrix.Client, error) {
	client, err := mautrix.NewClient(s.URL, "", "")
	if err != nil {
		return nil, err
	}
	password := rand.Text()
	user, err := client.RegisterDummy(ctx, &mautrix.ReqRegister[any]{
		Username: prefix + "-" + strings.ToLower(rand.Text()[:10]),
		Password: password,
	})
	if err != nil {
		return nil, fmt.Errorf("registering a user on %s: %w", s.URL, err)
	}
	client.UserID, client.DeviceID, client.AccessToken = user.UserID, user.DeviceID, user.AccessToken
	s.passwords.Store(user.UserID, password)
	return client, nil
}

// Login returns a client for a new device of the user, given as a user ID or its localpart.
func (s *Server) Login(ctx context.Context, user, password string) (*mautrix.Client, error) {
	client, err := mautrix.NewClient(s.URL, "", "")
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{
		Type:                     mautrix.AuthTypePassword,
		Identifier:               mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: user},
		Password:                 password,
		InitialDeviceDisplayName: "roomkv",
		StoreCredentials:         true,
	})
	if err != nil {
		return nil, fmt.Errorf("logging in as %s on %s: %w", user, s.URL, err)
	}
	return client, nil
}

// NewDevice logs in a further device of a user that Register made.
func (s *Server) NewDevice(ctx context.Context, user id.UserID) (*mautrix.Client, error) {
	password, err := s.Password(user)
	if err != nil {
		return nil, err
	}
	return s.Login(ctx, user.String(), password)
}

// Password is that of a user that Register made.
func (s *Server) Password(user id.UserID) (string, error) {
	password, ok := s.passwords.Load(user)
	if !ok {
		return "", fmt.Errorf("%s was not registered here", user)
	}
	return password.(string), nil
}
