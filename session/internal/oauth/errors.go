package oauth

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
)

var (
	// ErrUnsupported means that the homeserver has no OAuth 2, or its authorization server has not what the sign-in needs.
	ErrUnsupported = errors.New("not offered by the homeserver: sign in another way")

	// ErrInsecure means that an address is neither https nor on this machine, so that others could read the tokens.
	ErrInsecure = errors.New("the address is neither https nor on this machine: the server's administrator must mend that")

	// ErrState means that a callback is not the end of this sign-in. Somebody may have planted it.
	ErrState = errors.New("the callback belongs to another sign-in: open the new URL, and give the address at which that sign-in ends")

	// ErrDenied means that a person said no.
	ErrDenied = errors.New("the sign-in was denied: begin again, and approve it")

	// ErrExpired means that nobody answered in time.
	ErrExpired = errors.New("the sign-in was not approved in time: begin again")

	// ErrRefused means that the server takes the code no longer, or does not know the client.
	ErrRefused = errors.New("the authorization server takes the code or the client no longer: begin again")
)

// Error is what an authorization server answered in place of what it was asked for.
type Error struct {
	Asked       string // what was asked for
	Status      int    // of the HTTP response, 0 where a browser brought the answer
	Code        string // as RFC 6749, section 5.2, has it; "" where the answer has none
	Description string // what the server says about it; "" for a request that carries a secret
}

// Error implements error.
func (e *Error) Error() string {
	text := "authorization server: " + e.Asked
	if e.Status != 0 {
		text += fmt.Sprintf(": HTTP %d", e.Status)
	}
	if e.Code != "" {
		text += ": " + e.Code
	}
	if e.Description != "" {
		text += fmt.Sprintf(" (%q)", e.Description)
	}
	for _, kind := range []error{ErrDenied, ErrExpired, ErrRefused} {
		if e.Is(kind) {
			text += ": " + kind.Error()
		}
	}
	return text
}

// Is tells of which of this package's errors the answer is one.
func (e *Error) Is(target error) bool {
	switch target {
	case ErrDenied:
		return e.Code == "access_denied"
	case ErrExpired:
		return e.Code == "expired_token"
	case ErrRefused:
		return e.Code == "invalid_grant" || e.Code == "invalid_client" || e.Code == "unauthorized_client"
	}
	return false
}

// passing tells whether the same request can succeed later: the server was not reached, or had trouble of its own.
func passing(err error) bool {
	var answer *Error
	switch {
	case err == nil, errors.Is(err, ErrUnsupported), errors.Is(err, ErrInsecure):
		return false
	case !errors.As(err, &answer):
		return true
	}
	return answer.Status >= http.StatusInternalServerError || answer.Status == http.StatusTooManyRequests
}

// codeOf is an answer's error code, "" where err is none.
func codeOf(err error) string {
	var answer *Error
	if errors.As(err, &answer) {
		return answer.Code
	}
	return ""
}

const (
	longestCode        = 64  // of an error code that is shown
	longestDescription = 300 // of a server's description that is shown, in bytes
)

// plainCode is the code where it has only what RFC 6749 allows in one, and a word in its place otherwise.
func plainCode(code string) string {
	strange := func(r rune) bool { return r < ' ' || r > '~' || r == '"' || r == '\\' }
	if len(code) > longestCode || strings.ContainsFunc(code, strange) {
		return "unknown_error"
	}
	return code
}

// short is a server's text cut to a length that an error can have.
func short(text string) string {
	if len(text) > longestDescription {
		return strings.ToValidUTF8(text[:longestDescription], "") + "…"
	}
	return text
}
