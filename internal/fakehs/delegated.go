package fakehs

import (
	"context"
	"encoding/json"
	"net/http"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// Delegation is an authorization server that says whose a token is, as Matrix Authentication Service does beside a Synapse 1.160.
type Delegation struct {
	// Secret is the access token with which the authorization server makes users and devices, at /_synapse/mas/.
	Secret string

	// Metadata is asked once, at the first request for the metadata.
	Metadata func(ctx context.Context) (json.RawMessage, error)

	// Introspect tells whose a token is. An answer counts for two minutes. An error is the server's 503.
	Introspect func(ctx context.Context, token string) (Introspection, error)
}

// Introspection is what an authorization server says of a token (RFC 7662).
type Introspection struct {
	Active    bool        `json:"active"`
	Scope     string      `json:"scope"`
	Username  string      `json:"username"`   // the localpart
	Device    id.DeviceID `json:"device_id"`  // "" is the scope's
	ExpiresIn *int64      `json:"expires_in"` // in seconds, nil is never

	at time.Time // when the authorization server said so
}

// introspectionKept is for how long Synapse believes an answer.
const introspectionKept = 2 * time.Minute

// delegation is a [Delegation] with what the server has of it.
type delegation struct {
	Delegation
	metadata json.RawMessage
	answers  map[string]Introspection // by token
}

// Delegate hands authentication over, before anybody uses the server. As on Synapse there is no login, no logout, no registration and no removal of devices
// by clients from then on, and no token from before is known.
func (s *Server) Delegate(to Delegation) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.delegation = &delegation{Delegation: to, answers: map[string]Introspection{}}
	s.tokens = map[string]*access{}
}

// closed refuses what a server does not have with a delegation, or has only with one.
func (s *Server) closed(r *route) error {
	s.mu.Lock()
	delegated := s.delegation != nil
	s.mu.Unlock()
	path := strings.Join(r.path, "/")
	unknown := false
	switch {
	case r.path[0] == "synapse" || strings.HasSuffix(path, "/auth_metadata"):
		unknown = !delegated
	case !delegated:
	case path == "client/v3/register":
		return forbid("Registration has been disabled. Only m.login.application_service registrations are allowed.")
	case path == "client/v3/devices/{device}":
		unknown = r.method == remove
	default:
		switch path {
		case "client/v3/login", "client/v3/refresh", "client/v3/logout", "client/v3/logout/all", "client/v3/delete_devices", "client/v3/account/password":
			unknown = true
		}
	}
	if unknown {
		return refuse(http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request")
	}
	return nil
}

// authMetadata is what the authorization server said of itself when it was asked first.
func (s *Server) authMetadata(r *request) (any, error) {
	s.mu.Lock()
	delegation := s.delegation
	known := delegation.metadata
	s.mu.Unlock()
	if known != nil {
		return known, nil
	}
	known, err := delegation.Metadata(r.Context())
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	delegation.metadata = known
	return known, nil
}

// introspected is the device whose token the authorization server says it is. The caller does not have the lock.
func (s *Server) introspected(ctx context.Context, delegation *delegation, token string) (*device, error) {
	said, err := s.introspect(ctx, delegation, token)
	if err != nil {
		return nil, refuse(http.StatusServiceUnavailable, "M_UNKNOWN", "Unable to introspect the access token")
	}
	ended := said.ExpiresIn != nil && time.Since(said.at) >= time.Duration(*said.ExpiresIn)*time.Second
	if !said.Active || ended {
		return nil, s.unknownToken("Token is not active", false)
	}
	named, api := said.Device, false
	for scope := range strings.FieldsSeq(said.Scope) {
		for _, prefix := range []string{"urn:matrix:client:", "urn:matrix:org.matrix.msc2967.client:"} {
			api = api || scope == prefix+"api:*"
			if device, ok := strings.CutPrefix(scope, prefix+"device:"); ok && named == "" {
				named = id.DeviceID(device)
			}
		}
	}
	if !api {
		return nil, s.unknownToken("Token doesn't grant access to the Matrix C-S API", false)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.users[id.NewUserID(said.Username, s.name)]
	if own == nil {
		return nil, refuse(http.StatusInternalServerError, "M_UNKNOWN", "User not found")
	}
	if own.devices[named] == nil {
		delete(delegation.answers, token)
		return nil, s.unknownToken("Token is not active", false)
	}
	return own.devices[named], nil
}

// introspect asks the authorization server, or knows what it said.
func (s *Server) introspect(ctx context.Context, delegation *delegation, token string) (Introspection, error) {
	s.mu.Lock()
	said, known := delegation.answers[token]
	s.mu.Unlock()
	if known && time.Since(said.at) < introspectionKept {
		return said, nil
	}
	said, err := delegation.Introspect(ctx, token)
	if err != nil {
		return Introspection{}, err
	}
	said.at = time.Now()
	s.mu.Lock()
	defer s.mu.Unlock()
	delegation.answers[token] = said
	return said, nil
}

// provisioned is the body of the authorization server's own requests.
type provisioned struct {
	Localpart string      `json:"localpart"`
	Device    id.DeviceID `json:"device_id"`
	Name      string      `json:"display_name"`
}

// provisions reads a request of the authorization server.
func (s *Server) provisions(r *request) (asked provisioned, own *user, err error) {
	if r.Header.Get("Authorization") != "Bearer "+s.delegation.Secret {
		return asked, nil, refuse(http.StatusForbidden, "M_UNKNOWN", "This endpoint must only be called by MAS")
	}
	err = r.read(&asked)
	return asked, s.users[id.NewUserID(asked.Localpart, s.name)], err
}

func (s *Server) provisionUser(r *request) (any, error) {
	asked, own, err := s.provisions(r)
	if err == nil && own == nil {
		s.addUser(id.NewUserID(asked.Localpart, s.name), "")
	}
	return object{}, err
}

func (s *Server) upsertDevice(r *request) (any, error) {
	asked, own, err := s.provisions(r)
	if err == nil && own == nil {
		err = notFound("User not found")
	}
	if err != nil {
		return nil, err
	}
	if own.devices[asked.Device] == nil {
		own.devices[asked.Device] = &device{user: own, id: asked.Device, name: asked.Name, done: map[string]any{}}
		s.devicesChanged(own)
	}
	return object{}, nil
}

func (s *Server) deleteProvisioned(r *request) (any, error) {
	asked, own, err := s.provisions(r)
	if err == nil && own == nil {
		err = notFound("User not found")
	}
	if err != nil {
		return nil, err
	}
	if device := own.devices[asked.Device]; device != nil {
		s.removeDevice(device)
	}
	return object{}, nil
}
