package fakehs

import (
	"fmt"
	"net/http"
	"time"

	"maunium.net/go/mautrix/id"
)

// access is an access token.
type access struct {
	device  *device
	expires time.Time // zero where it does not
	used    bool
}

// renewal is a refresh token. Synapse keeps the last one beside the one that has replaced it, which counts once it, or its access token, was used
// (synapse/handlers/auth.py, refresh_token). Dendrite has none.
type renewal struct {
	device  *device
	text    string
	token   string   // the access token that was given with it
	next    *renewal // what has replaced it
	expired bool
}

// issue gives a device an access token, and a refresh token where that is asked for and the server has such.
func (s *Server) issue(d *device, refreshable bool) object {
	token, own := "token_"+s.text(32, letters), &access{device: d}
	s.tokens[token] = own
	answer := object{"access_token": token}
	if refreshable && s.mode == Forking {
		with := &renewal{device: d, text: "refresh_" + s.text(32, letters), token: token}
		s.renewals[with.text] = with
		own.expires = time.Now().Add(s.life)
		answer["refresh_token"], answer["expires_in_ms"] = with.text, s.life.Milliseconds()
	}
	return answer
}

// use tells whether an access token is good.
func (s *Server) use(token *access) error {
	if !token.expires.IsZero() && !time.Now().Before(token.expires) {
		return s.unknownToken("Access token has expired", true)
	}
	token.used = true
	return nil
}

// unknownToken refuses an access token. Only Synapse says whether the device is still there.
func (s *Server) unknownToken(text string, soft bool) *refusal {
	no := refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "%s", text)
	if s.mode == Forking {
		no.more = object{"soft_logout": soft}
	}
	return no
}

func (s *Server) refresh(r *request) (any, error) {
	if s.mode == Linear {
		return nil, refuse(http.StatusNotFound, "M_UNRECOGNIZED", "Unrecognized request")
	}
	var asked struct {
		Token string `json:"refresh_token"`
	}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	known := s.renewals[asked.Token]
	switch {
	case known == nil:
		return nil, refuse(http.StatusUnauthorized, "M_UNKNOWN_TOKEN", "refresh token does not exist")
	case known.next != nil && (known.next.next != nil || s.tokens[known.next.token] != nil && s.tokens[known.next.token].used):
		return nil, forbid("refresh token isn't valid anymore")
	case known.expired:
		return nil, forbid("The supplied refresh token has expired")
	}
	answer := s.issue(known.device, true)
	next := s.renewals[answer["refresh_token"].(string)]
	for _, other := range s.renewals {
		if other == known.next || other.next == known {
			delete(s.tokens, other.token)
			delete(s.renewals, other.text)
		}
	}
	known.next = next
	return answer, nil
}

// endTokens ends all tokens of a device.
func (s *Server) endTokens(d *device) {
	for text, token := range s.tokens {
		if token.device == d {
			delete(s.tokens, text)
		}
	}
	for text, token := range s.renewals {
		if token.device == d {
			delete(s.renewals, text)
		}
	}
}

func (s *Server) changePassword(r *request) (any, error) {
	asked := struct {
		authData
		Password string `json:"new_password"`
		LogOut   bool   `json:"logout_devices"`
	}{LogOut: true}
	if err := r.read(&asked); err != nil {
		return nil, err
	}
	if err := s.confirm(asked.authData, "m.login.password"); err != nil {
		return nil, err
	}
	r.device.user.password = asked.Password
	if asked.LogOut {
		s.logOutAllBut(r.device.user, r.device)
	}
	return object{}, nil
}

func (s *Server) logOutAllBut(own *user, stays *device) {
	for _, device := range own.devices {
		if device != stays {
			s.removeDevice(device)
		}
	}
	s.tell()
}

// SetTokenLife sets how long access tokens live from now on, where the login has asked for a refresh token. That is 5 minutes at first, as on Synapse.
func (s *Server) SetTokenLife(life time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.life = life
}

// SetPassword changes a user's password and logs out all of their devices, as an administrator of Synapse does.
func (s *Server) SetPassword(name id.UserID, password string) error {
	return s.withUser(name, func(own *user) {
		own.password = password
		s.logOutAllBut(own, nil)
	})
}

// LogOut logs out a user's devices, as they do themselves elsewhere.
func (s *Server) LogOut(name id.UserID) error {
	return s.withUser(name, func(own *user) { s.logOutAllBut(own, nil) })
}

// EndAccess ends a user's access tokens before their time. Their refresh tokens stay.
func (s *Server) EndAccess(name id.UserID) error {
	return s.withUser(name, func(own *user) {
		for text, token := range s.tokens {
			if token.device.user == own {
				delete(s.tokens, text)
			}
		}
	})
}

// SoftLogout makes a user's tokens expire, access and refresh tokens alike, as Synapse's session_lifetime does. The devices stay.
func (s *Server) SoftLogout(name id.UserID) error {
	return s.withUser(name, func(own *user) {
		for _, token := range s.tokens {
			if token.device.user == own {
				token.expires = time.Now()
			}
		}
		for _, token := range s.renewals {
			token.expired = token.expired || token.device.user == own
		}
	})
}

func (s *Server) withUser(name id.UserID, change func(own *user)) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	own := s.users[name]
	if own == nil {
		return fmt.Errorf("%s was not registered here", name)
	}
	change(own)
	return nil
}

// Devices are a user's.
func (s *Server) Devices(name id.UserID) (devices []id.DeviceID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if own := s.users[name]; own != nil {
		for device := range own.devices {
			devices = append(devices, device)
		}
	}
	return devices
}
