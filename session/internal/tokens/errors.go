package tokens

import (
	"errors"
	"fmt"
	"net/http"

	"maunium.net/go/mautrix"
)

// The kinds of errors. Package session documents them.
var (
	ErrSignedOut     = errors.New("signed out")
	ErrWrongPassword = errors.New("wrong password")
)

// errRefused is the kind of an error by which a homeserver, or an authorization server, says that it does not renew a session: not for the moment, but for ever.
var errRefused = errors.New("refused")

// signedOut is an [ErrSignedOut]. To mautrix, whose sync would go on otherwise, it is an unknown token.
type signedOut struct {
	text  string
	cause error
}

func (e *signedOut) Error() string   { return "session: " + ErrSignedOut.Error() + ": " + e.text }
func (e *signedOut) Unwrap() []error { return []error{ErrSignedOut, mautrix.MUnknownToken, e.cause} }

// Final says to package roomkv that another request will not do better.
func (*signedOut) Final() bool { return true }

// final is the answer to a request that can never succeed. It is a response whose body cannot be read, for mautrix sends a request again where there
// is no response.
func final(req *http.Request, err error) *http.Response {
	return &http.Response{
		Status: "401 Unauthorized", StatusCode: http.StatusUnauthorized, Proto: "HTTP/1.1", ProtoMajor: 1, ProtoMinor: 1,
		Header: http.Header{}, Body: unreadable{err}, ContentLength: -1, Request: req,
	}
}

// unreadable is a body that fails with err.
type unreadable struct{ err error }

func (u unreadable) Read([]byte) (int, error) { return 0, u.err }
func (unreadable) Close() error               { return nil }

// Answer is a server's answer that is not what it was asked for.
type Answer struct {
	Status  int
	Code    string // Matrix's errcode or OAuth's error, where they look like one
	Soft    bool   // Matrix's soft_logout: whether the device is still there
	After   int64  // after how many milliseconds the server wants to be asked again, 0 where it does not say
	Problem string // what else is wrong with the answer
}

// Error leaves the server's own words out.
func (a *Answer) Error() string {
	text := fmt.Sprintf("HTTP %d", a.Status)
	if a.Code != "" {
		text = fmt.Sprintf("%s (%s)", a.Code, text)
	}
	if a.Problem != "" {
		text += ", " + a.Problem
	}
	return text
}

// Passing tells whether the answer is that of a fault that may pass.
func (a *Answer) Passing() bool { return a.Status == http.StatusTooManyRequests || a.Status >= 500 }
