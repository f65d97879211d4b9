package oauth

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"fmt"
	"net/url"
	"slices"
	"strings"
	"time"
)

// DefaultRedirect is a redirect to this machine. With [Server.ByListening] the port is any that is free. With [Server.ByPasting] nothing listens
// there: the browser shows an error, and the address that it shows is the one that is wanted.
const DefaultRedirect = "http://127.0.0.1/callback"

// attempt is a sign-in by authorization code that goes on.
type attempt struct {
	server   *Server
	who      Who
	redirect string
	state    string // is compared with the callback's, so that nobody signs the bot in to another account
	verifier string // of PKCE (RFC 7636), without which a code is worth nothing
}

// randomBytes is how many random bytes state and verifier have (RFC 7636, section 4.1).
const randomBytes = 32

func random() string {
	random := make([]byte, randomBytes)
	_, _ = rand.Read(random) // never fails
	return base64.RawURLEncoding.EncodeToString(random)
}

func (s *Server) begin(who Who, redirect string) (*attempt, error) {
	if s.metadata.Authorization == "" || len(s.metadata.Challenges) > 0 && !slices.Contains(s.metadata.Challenges, "S256") {
		return nil, fmt.Errorf("signing in by authorization code with PKCE: %w", ErrUnsupported)
	}
	return &attempt{s, who, redirect, random(), random()}, nil
}

// url is what a person opens.
func (a *attempt) url() (string, error) {
	address, err := url.Parse(a.server.metadata.Authorization)
	if err != nil {
		return "", fmt.Errorf("authorization_endpoint: %w", err)
	}
	challenge := sha256.Sum256([]byte(a.verifier))
	query := address.Query()
	query.Set("response_type", "code")
	query.Set("response_mode", "query")
	query.Set("client_id", a.who.ClientID)
	query.Set("redirect_uri", a.redirect)
	query.Set("scope", strings.Join(a.server.scopes(a.who.Device), " "))
	query.Set("state", a.state)
	query.Set("code_challenge", base64.RawURLEncoding.EncodeToString(challenge[:]))
	query.Set("code_challenge_method", "S256")
	a.who.hint(query)
	address.RawQuery = query.Encode()
	return address.String(), nil
}

// code is the authorization code of a callback, [ErrState] where the callback is of another sign-in or server, and an [*Error] where it says no.
func (a *attempt) code(query url.Values) (string, error) {
	if subtle.ConstantTimeCompare([]byte(query.Get("state")), []byte(a.state)) != 1 {
		return "", ErrState
	}
	if issuer := query.Get("iss"); issuer != "" && issuer != a.server.metadata.Issuer { // RFC 9207
		return "", fmt.Errorf("from another authorization server: %w", ErrState)
	}
	if code := query.Get("error"); code != "" {
		return "", &Error{Asked: "approval", Code: plainCode(code), Description: short(query.Get("error_description"))}
	}
	if query.Get("code") == "" {
		return "", &Error{Asked: "approval", Code: "no_code"}
	}
	return query.Get("code"), nil
}

const (
	exchanges     = 4                      // how often a code is sent while the server is in trouble
	exchangePause = 500 * time.Millisecond // after the first time; it doubles
)

// exchange gets tokens for a code. A person has approved already, so that a server in trouble is asked again.
func (a *attempt) exchange(ctx context.Context, code string) (Tokens, error) {
	wait := exchangePause
	for try := 1; ; try++ {
		tokens, err := a.server.first(ctx, a.who, url.Values{
			"grant_type": {grantCode}, "code": {code}, "redirect_uri": {a.redirect}, "code_verifier": {a.verifier},
		})
		if !passing(err) || try == exchanges {
			return tokens, err
		}
		if pause(ctx, wait) != nil {
			return Tokens{}, err
		}
		wait *= 2
	}
}

// ByPasting signs in with a person's browser anywhere. The function shows the person a URL, and returns the address at which their browser has
// ended.
func (s *Server) ByPasting(ctx context.Context, who Who, redirect string, show func(ctx context.Context, url string) (string, error)) (Tokens, error) {
	attempt, err := s.begin(who, redirect)
	if err != nil {
		return Tokens{}, err
	}
	address, err := attempt.url()
	if err != nil {
		return Tokens{}, err
	}
	pasted, err := show(ctx, address)
	if err != nil {
		return Tokens{}, err
	}
	ended, err := url.Parse(strings.TrimSpace(pasted))
	if err != nil { // its text has the address, and so the code
		return Tokens{}, ErrState
	}
	code, err := attempt.code(ended.Query())
	if err != nil {
		return Tokens{}, err
	}
	return attempt.exchange(ctx, code)
}
