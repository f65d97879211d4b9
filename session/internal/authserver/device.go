package authserver

import (
	"context"
	"errors"
	"time"

	"github.com/zitadel/oidc/v3/pkg/oidc"
	"github.com/zitadel/oidc/v3/pkg/op"
)

// deviceRequest is a sign-in by device code that goes on.
type deviceRequest struct {
	state    op.DeviceAuthorizationState
	userCode string
	asked    time.Time // last
	slow     int       // how many more questions are answered with slow_down
}

const (
	deviceLife     = 5 * time.Minute
	deviceInterval = time.Second
	tooSoon        = deviceInterval - deviceInterval/5 // a question so soon after another is answered with slow_down
)

// StoreDeviceAuthorization implements [op.DeviceAuthorizationStorage].
func (s *storage) StoreDeviceAuthorization(_ context.Context, client, deviceCode, userCode string, expires time.Time, scopes []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.devices[deviceCode] = &deviceRequest{
		state:    op.DeviceAuthorizationState{ClientID: client, Scopes: withRefresh(scopes), Expires: expires},
		userCode: userCode,
	}
	return nil
}

// GetDeviceAuthorizatonState implements [op.DeviceAuthorizationStorage]. Its DeadlineExceeded is slow_down.
func (s *storage) GetDeviceAuthorizatonState(_ context.Context, client, deviceCode string) (*op.DeviceAuthorizationState, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.devices[deviceCode]
	if own == nil || own.state.ClientID != client {
		return nil, oidc.ErrInvalidGrant()
	}
	soon := time.Since(own.asked) < tooSoon
	own.asked = time.Now()
	if own.slow > 0 {
		own.slow--
		soon = true
	}
	if soon {
		return nil, context.DeadlineExceeded
	}
	state := own.state
	return &state, nil
}

// forget removes a request that was exchanged for tokens.
func (s *storage) forget(state *op.DeviceAuthorizationState) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for code, own := range s.devices {
		if own.state.Done && own.state.ClientID == state.ClientID && own.state.Subject == state.Subject {
			delete(s.devices, code)
		}
	}
}

// decide has do change the request with the user code.
func (s *storage) decide(userCode string, do func(*deviceRequest)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, own := range s.devices {
		if own.userCode == userCode {
			do(own)
			return nil
		}
	}
	return errors.New("no such user code")
}

// Approve is a person who enters a user code, and approves as the user, given by the localpart.
func (s *Server) Approve(userCode, user string) error {
	return s.storage.decide(userCode, func(own *deviceRequest) {
		own.state.Done, own.state.Subject, own.state.AuthTime = true, user, time.Now()
	})
}

// Deny is a person who enters a user code, and says no.
func (s *Server) Deny(userCode string) error {
	return s.storage.decide(userCode, func(own *deviceRequest) { own.state.Denied = true })
}

// SlowDown has the next questions for a user code be answered with slow_down.
func (s *Server) SlowDown(userCode string, times int) error {
	return s.storage.decide(userCode, func(own *deviceRequest) { own.slow = times })
}
