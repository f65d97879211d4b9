package tokens

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Refresher gets a new access token for a refresh token.
type Refresher interface {
	// Refresh returns the session with new tokens. After an error of kind errRefused the refresh token is good for nothing any more. After any other it may still
	// be good.
	Refresh(ctx context.Context, token Token) (Token, error)
}

// Refreshing is the way in which sessions of that kind are refreshed.
func Refreshing(token Token, client Doer, now func() time.Time) Refresher {
	if token.OAuth != nil {
		return oauth{client, now}
	}
	return legacy{client, now}
}

// legacy refreshes sessions of Matrix's own login (Client-Server API, refreshing access tokens).
type legacy struct {
	client Doer
	now    func() time.Time
}

func (l legacy) Refresh(ctx context.Context, token Token) (Token, error) {
	var given given
	start := l.now()
	err := postJSON(ctx, l.client, clientAPI(token.Homeserver, "v3/refresh"), map[string]string{"refresh_token": token.RefreshToken}, &given)
	if err != nil {
		return Token{}, refusedFor(err, "M_UNKNOWN_TOKEN", "M_FORBIDDEN", "M_USER_DEACTIVATED")
	}
	return given.renew(token, start, given.Milliseconds)
}

// oauth refreshes sessions of an authorization server (RFC 6749, section 6).
type oauth struct {
	client Doer
	now    func() time.Time
}

func (o oauth) Refresh(ctx context.Context, token Token) (Token, error) {
	var given given
	start := o.now()
	err := postForm(ctx, o.client, token.OAuth.TokenEndpoint, url.Values{
		"grant_type": {"refresh_token"}, "refresh_token": {token.RefreshToken}, "client_id": {token.OAuth.ClientID},
	}, &given)
	if err != nil {
		return Token{}, refusedFor(err, "invalid_grant", "invalid_client", "unauthorized_client")
	}
	return given.renew(token, start, 1000*given.Seconds)
}

// given is what a server gives for a refresh token.
type given struct {
	AccessToken  string `json:"access_token"`
	RefreshToken string `json:"refresh_token"`
	Milliseconds number `json:"expires_in_ms"`
	Seconds      number `json:"expires_in"`
}

// number is a number that a server may write with a fraction, or as a string. What is no number is 0, for the server may have used up the refresh token already,
// so that an answer is not refused for what it says beside the tokens.
type number float64

// UnmarshalJSON implements [json.Unmarshaler].
func (n *number) UnmarshalJSON(text []byte) error {
	read, err := strconv.ParseFloat(strings.Trim(string(text), `"`), 64)
	if err != nil || math.IsNaN(read) {
		read = 0
	}
	*n = number(read)
	return nil
}

// renew makes a session of another one and of what was given for it. Where no other refresh token was given, the old one stays.
func (g given) renew(token Token, start time.Time, milliseconds number) (Token, error) {
	if g.AccessToken == "" {
		return Token{}, &Answer{Status: http.StatusOK, Problem: "which has no access token"}
	}
	token.AccessToken = g.AccessToken
	if g.RefreshToken != "" {
		token.RefreshToken = g.RefreshToken
	}
	token.expiresIn(start, milliseconds)
	return token, nil
}

// refusedFor makes an error one of kind errRefused where the server has answered with one of the codes, and not for the moment.
func refusedFor(err error, codes ...string) error {
	var answer *Answer
	if errors.As(err, &answer) && !answer.Passing() {
		for _, code := range codes {
			if answer.Code == code {
				return fmt.Errorf("%w: %w", errRefused, err)
			}
		}
	}
	return err
}

// clientAPI is the URL of an endpoint of the homeserver.
func clientAPI(homeserver, path string) string {
	return strings.TrimRight(homeserver, "/") + "/_matrix/client/" + path
}
