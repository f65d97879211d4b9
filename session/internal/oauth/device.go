package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// UserCode is what a person needs to approve a sign-in on another machine.
type UserCode struct {
	URL     string    // the page on which Code is entered
	FullURL string    // the page with the code filled in, "" where the server has none
	Code    string    // what the person enters, or compares
	Expires time.Time // when it is too late
}

// deviceAnswer is an answer of the device authorization endpoint (RFC 8628, section 3.2).
type deviceAnswer struct {
	Device    string      `json:"device_code"`
	User      string      `json:"user_code"`
	URL       string      `json:"verification_uri"`
	FullURL   string      `json:"verification_uri_complete"`
	ExpiresIn json.Number `json:"expires_in"`
	Interval  json.Number `json:"interval"`
}

const (
	pollInterval = 5 * time.Second  // where the server names none (RFC 8628, section 3.2)
	slowDown     = 5 * time.Second  // more after slow_down (section 3.5)
	longestPause = time.Minute      // between two questions to a server in trouble
	longestWait  = 30 * time.Minute // for approval, whatever the server says
)

// ByDeviceCode signs in with a person's browser anywhere (RFC 8628). It has show give the person a code, and asks the server until the person has
// approved or denied. It returns [ErrDenied] and [ErrExpired].
func (s *Server) ByDeviceCode(ctx context.Context, who Who, show func(ctx context.Context, code UserCode) error) (Tokens, error) {
	if s.metadata.DeviceAuthorization == "" {
		return Tokens{}, fmt.Errorf("signing in by device code: %w", ErrUnsupported)
	}
	form := url.Values{"client_id": {who.ClientID}, "scope": {strings.Join(s.scopes(who.Device), " ")}}
	who.hint(form)
	start := time.Now()
	var answer deviceAnswer
	asked := ask{what: "a device code", method: http.MethodPost, url: s.metadata.DeviceAuthorization, form: form}
	if err := asked.do(ctx, s.http, &answer); err != nil {
		return Tokens{}, err
	}
	if answer.Device == "" || answer.User == "" {
		return Tokens{}, &Error{Asked: asked.what, Status: http.StatusOK, Code: "no_device_code"}
	}
	if err := checkAddress("verification_uri", answer.URL); err != nil {
		return Tokens{}, err
	}
	if answer.FullURL != "" && checkAddress("verification_uri_complete", answer.FullURL) != nil {
		answer.FullURL = ""
	}
	expires := start.Add(min(seconds(answer.ExpiresIn, longestWait), longestWait))
	if err := show(ctx, UserCode{URL: answer.URL, FullURL: answer.FullURL, Code: answer.User, Expires: expires}); err != nil {
		return Tokens{}, err
	}
	return s.poll(ctx, who, answer.Device, seconds(answer.Interval, pollInterval), expires)
}

// poll asks until a person has decided.
func (s *Server) poll(ctx context.Context, who Who, code string, interval time.Duration, expires time.Time) (Tokens, error) {
	wait := interval
	for {
		if err := pause(ctx, min(wait, time.Until(expires))); err != nil {
			return Tokens{}, fmt.Errorf("waiting for approval: %w", err)
		}
		if !time.Now().Before(expires) {
			return Tokens{}, ErrExpired
		}
		tokens, err := s.first(ctx, who, url.Values{"grant_type": {grantDevice}, "device_code": {code}})
		switch answer := codeOf(err); {
		case answer == "authorization_pending":
			wait = interval
		case answer == "slow_down":
			interval += slowDown
			wait = interval
		case passing(err):
			wait = max(interval, min(2*wait, longestPause))
		default:
			return tokens, err
		}
	}
}
