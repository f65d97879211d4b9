package fakehs

import (
	"context"
	"fmt"
	"net/http"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// URL is what a client has as the homeserver's address. Only a client whose transport is the server reaches it there.
func (s *Server) URL() string { return "http://" + s.name + ".invalid" }

// Register makes a user with a random name that begins with prefix, and returns a client logged in as it.
func (s *Server) Register(ctx context.Context, prefix string) (*mautrix.Client, error) {
	s.mu.Lock()
	name, password := prefix+"-"+strings.ToLower(s.text(10, upperCase)), s.text(20, letters)
	s.mu.Unlock()
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	user, err := client.RegisterDummy(ctx, &mautrix.ReqRegister[any]{Username: name, Password: password})
	if err != nil {
		return nil, fmt.Errorf("registering a user: %w", err)
	}
	client.UserID, client.DeviceID, client.AccessToken = user.UserID, user.DeviceID, user.AccessToken
	return client, nil
}

// Login returns a client for a new device of the user, given as a user ID or its localpart.
func (s *Server) Login(ctx context.Context, user, password string) (*mautrix.Client, error) {
	client, err := s.client()
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{
		Type:             mautrix.AuthTypePassword,
		Identifier:       mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: user},
		Password:         password,
		StoreCredentials: true,
	})
	if err != nil {
		return nil, fmt.Errorf("logging in as %s: %w", user, err)
	}
	return client, nil
}

// NewDevice logs in a further device of a user.
func (s *Server) NewDevice(ctx context.Context, user id.UserID) (*mautrix.Client, error) {
	password, err := s.Password(user)
	if err != nil {
		return nil, err
	}
	return s.Login(ctx, user.String(), password)
}

// Password is a user's.
func (s *Server) Password(user id.UserID) (string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	known := s.users[user]
	if known == nil {
		return "", fmt.Errorf("%s was not registered here", user)
	}
	return known.password, nil
}

// client is one that is not logged in.
func (s *Server) client() (*mautrix.Client, error) {
	client, err := mautrix.NewClient(s.URL(), "", "")
	if err != nil {
		return nil, err
	}
	client.Client = &http.Client{Transport: s}
	return client, nil
}
