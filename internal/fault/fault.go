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
	ErrNotFound      = kindOf("ErrNotFound", "key not found")
	ErrExists        = kindOf("ErrExists", "key exists")
	ErrConflict      = kindOf("ErrConflict", "key has changed")
	ErrNotFollowing  = kindOf("ErrNotFollowing", "not following")
	ErrTooOld        = kindOf("ErrTooOld", "too long ago")
	ErrTooLarge      = kindOf("ErrTooLarge", "too large")
	ErrMissingMedia  = kindOf("ErrMissingMedia", "no such media")
	ErrForbidden     = kindOf("ErrForbidden", "not allowed")
	ErrUnknownRoom   = kindOf("ErrUnknownRoom", "unknown room")
	ErrNoRoom        = kindOf("ErrNoRoom", "no room")
	ErrNotJoined     = kindOf("ErrNotJoined", "not in the room")
	ErrInvalidKey    = kindOf("ErrInvalidKey", "invalid key")
	ErrInvalidValue  = kindOf("ErrInvalidValue", "invalid value")
	ErrDecode        = kindOf("ErrDecode", "value does not fit")
	ErrCorrupt       = kindOf("ErrCorrupt", "corrupt state")
	ErrDamaged       = kindOf("ErrDamaged", "damaged file")
	ErrUndecryptable = kindOf("ErrUndecryptable", "cannot decrypt")
	ErrRedacted      = kindOf("ErrRedacted", "redacted")
	ErrUntrusted     = kindOf("ErrUntrusted", "not trusted")
	ErrWrongSecret   = kindOf("ErrWrongSecret", "wrong secret")
	ErrNoCrypto      = kindOf("ErrNoCrypto", "no encryption")
	ErrRoomUpgraded  = kindOf("ErrRoomUpgraded", "room was upgraded")
	ErrNotAtomic     = kindOf("ErrNotAtomic", "not one state event")
	ErrNoTime        = kindOf("ErrNoTime", "no homeserver time")
	ErrLeaseLost     = kindOf("ErrLeaseLost", "lease was lost")
	ErrTxDone        = kindOf("ErrTxDone", "transaction has ended")
	ErrInvalidOption = kindOf("ErrInvalidOption", "invalid option")

	// ErrRefused is beneath an ErrForbidden where it is state that the homeserver has not taken. It is not of the public ones.
	ErrRefused = errors.New("state was refused")
)

// kind is a kind of errors.
type kind struct{ name, text string }

func kindOf(name, text string) error { return &kind{name, text} }

func (k *kind) Error() string { return k.text }

// Name is the name of an error's kind, as the variable is called: of several kinds beneath it that of the outermost. It is empty where there is none.
func Name(err error) string {
	switch err := err.(type) {
	case *kind:
		return err.name
	case interface{ Unwrap() error }:
		return Name(err.Unwrap())
	case interface{ Unwrap() []error }:
		for _, inner := range err.Unwrap() {
			if name := Name(inner); name != "" {
				return name
			}
		}
	}
	return ""
}

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
