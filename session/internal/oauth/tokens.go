package oauth

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// Tokens are what a sign-in has given.
type Tokens struct {
	Access  string
	Refresh string    // "" where the server gives none
	Expires time.Time // of Access, by this machine's clock; zero where the server does not say

	ClientID           string
	Device             id.DeviceID
	TokenEndpoint      string
	RevocationEndpoint string // "" where the server has none
}

// tokenAnswer is an answer of the token endpoint (RFC 6749, section 5.1).
type tokenAnswer struct {
	Access    string      `json:"access_token"`
	Type      string      `json:"token_type"`
	ExpiresIn json.Number `json:"expires_in"`
	Refresh   string      `json:"refresh_token"`
	Scope     string      `json:"scope"`
}

// longestLife is more than anything lives here, in seconds.
const longestLife = 10 * 365 * 24 * 60 * 60

// seconds is a number of seconds, or otherwise where there is none.
func seconds(number json.Number, otherwise time.Duration) time.Duration {
	value, err := number.Float64()
	if err != nil || value <= 0 {
		return otherwise
	}
	return time.Duration(min(value, longestLife) * float64(time.Second))
}

// first gets the first tokens of a sign-in.
func (s *Server) first(ctx context.Context, who Who, form url.Values) (Tokens, error) {
	form.Set("client_id", who.ClientID)
	start := time.Now() // a token is never thought to live longer than it does
	var answer tokenAnswer
	asked := ask{what: "tokens", method: http.MethodPost, url: s.metadata.Token, form: form, secret: true}
	if err := asked.do(ctx, s.http, &answer); err != nil {
		return Tokens{}, err
	}
	if answer.Access == "" || !strings.EqualFold(answer.Type, "Bearer") {
		return Tokens{}, &Error{Asked: asked.what, Status: http.StatusOK, Code: "no_bearer_token"}
	}
	granted := strings.Fields(answer.Scope)
	for _, wanted := range s.scopes(who.Device) {
		if len(granted) > 0 && !slices.Contains(granted, wanted) { // RFC 6749, section 5.1: without one, all that was asked for is granted
			return Tokens{}, fmt.Errorf("the authorization server has not granted the scope %s: %w", wanted, ErrUnsupported)
		}
	}
	tokens := Tokens{Access: answer.Access, Refresh: answer.Refresh, ClientID: who.ClientID, Device: who.Device,
		TokenEndpoint: s.metadata.Token, RevocationEndpoint: s.metadata.Revocation}
	if life := seconds(answer.ExpiresIn, 0); life > 0 {
		tokens.Expires = start.Add(life)
	}
	return tokens, nil
}

// Who is who signs in.
type Who struct {
	ClientID string      // of [Server.Register], or of an administrator
	Device   id.DeviceID // is made where the account has it not
	User     id.UserID   // is suggested to the person who approves; "" is nobody
}

// hint names the user to the authorization server (MSC4198).
func (w Who) hint(form url.Values) {
	if w.User != "" {
		form.Set("login_hint", "mxid:"+string(w.User))
	}
}

// Revoke signs the device out: its tokens end, and the homeserver removes it. Tokens that have ended already are no error (RFC 7009, section 2.2).
func Revoke(ctx context.Context, client *http.Client, tokens Tokens) error {
	if tokens.RevocationEndpoint == "" {
		return fmt.Errorf("signing out: %w", ErrUnsupported)
	}
	if err := checkAddress("the revocation endpoint", tokens.RevocationEndpoint); err != nil {
		return err
	}
	form := url.Values{"client_id": {tokens.ClientID}, "token": {tokens.Access}, "token_type_hint": {"access_token"}}
	if tokens.Refresh != "" {
		form.Set("token", tokens.Refresh)
		form.Set("token_type_hint", "refresh_token")
	}
	return ask{what: "signing out", method: http.MethodPost, url: tokens.RevocationEndpoint, form: form, secret: true}.do(ctx, client, nil)
}

// pause waits, or returns ctx's error.
func pause(ctx context.Context, d time.Duration) error {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
