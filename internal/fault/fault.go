// Package fault has the kinds of errors that the library returns, and makes errors of them that hold no value of a memory. Package roomkv
// documents each kind.
package fault

import (
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"strings"
)

// The kinds of errors, for errors.Is.
var (
	ErrNotFound      = errors.New("key not found")
	ErrExists        = errors.New("key exists")
	ErrConflict      = errors.New("key has changed")
	ErrNotFollowing  = errors.New("not following")
	ErrTooOld        = errors.New("too long ago")
	ErrTooLarge      = errors.New("too large")
	ErrMissingMedia  = errors.New("no such media")
	ErrForbidden     = errors.New("not allowed")
	ErrUnknownRoom   = errors.New("unknown room")
	ErrNoRoom        = errors.New("no room")
	ErrNotJoined     = errors.New("not in the room")
	ErrInvalidKey    = errors.New("invalid key")
	ErrInvalidValue  = errors.New("invalid value")
	ErrDecode        = errors.New("value does not fit")
	ErrCorrupt       = errors.New("corrupt state")
	ErrDamaged       = errors.New("damaged file")
	ErrUndecryptable = errors.New("cannot decrypt")
	ErrRedacted      = errors.New("redacted")
	ErrUntrusted     = errors.New("not trusted")
	ErrWrongSecret   = errors.New("wrong secret")
	ErrNoCrypto      = errors.New("no encryption")
	ErrRoomUpgraded  = errors.New("room was upgraded")
	ErrNotAtomic     = errors.New("not one state event")
	ErrNoTime        = errors.New("no homeserver time")
	ErrLeaseLost     = errors.New("lease was lost")
	ErrTxDone        = errors.New("transaction has ended")
	ErrInvalidOption = errors.New("invalid option")

	// ErrRefused is beneath an ErrForbidden where it is state that the homeserver has not taken. It is not of the public ones.
	ErrRefused = errors.New("state was refused")
)

// failure is an error with a text of its own and others beneath it that are found but not printed, for
// some of those print values.
type failure struct {
	text   string
	causes []error
}

func (f *failure) Error() string   { return "roomkv: " + f.text }
func (f *failure) Unwrap() []error { return f.causes }

// Of makes an error of that kind, with cause beneath where it is not nil.
func Of(kind, cause error, format string, args ...any) error {
	return because(kind.Error()+": "+fmt.Sprintf(format, args...), kind, cause)
}

// Because makes an error of no kind, with cause beneath where it is not nil.
func Because(cause error, format string, args ...any) error {
	return because(fmt.Sprintf(format, args...), cause)
}

func because(text string, causes ...error) error {
	return &failure{text, slices.DeleteFunc(causes, func(cause error) bool { return cause == nil })}
}

// Told tells whether the error is one of this package, or has one beneath it, so that its text says all there is to say.
func Told(err error) bool { return errors.As(err, new(*failure)) }

// Decode describes a json.Unmarshal that failed without the value in its text.
func Decode(key string, dest any, cause error) error {
	var mismatch *json.UnmarshalTypeError
	if errors.As(cause, &mismatch) && mismatch.Type != nil {
		kind, _, _ := strings.Cut(mismatch.Value, " ") // "number 7" would show the value
		if !slices.Contains([]string{"object", "array", "string", "number", "bool"}, kind) {
			kind = "value" // an UnmarshalJSON method made the error, of whatever it was given
		}
		return Of(ErrDecode, cause, "%q is or holds a JSON %s, which does not go into a Go %s (decoding into %T)", key, kind, mismatch.Type, dest)
	}
	return Of(ErrDecode, cause, "%q does not go into a %T", key, dest)
}

// Advise adds what the user can do to an [ErrTooLarge].
func Advise(err error, advice string) error {
	if errors.Is(err, ErrTooLarge) {
		return fmt.Errorf("%w; %s", err, advice)
	}
	return err
}
