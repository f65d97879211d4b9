package main

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session"
)

// The exit codes, which the help of the root command names too.
const (
	exitOK          = 0
	exitError       = 1
	exitUsage       = 2
	exitNotFound    = 3
	exitInterrupted = 130 // as a shell reports a command that Ctrl-C has ended
)

// usageError is a command line that makes no sense.
type usageError struct{ error }

func (e usageError) Unwrap() error { return e.error }

func usagef(format string, args ...any) error { return usageError{fmt.Errorf(format, args...)} }

// exitCode is what the shell is told of err. What fails before a verb has begun is cobra's complaint about the command line.
func (a *app) exitCode(ctx context.Context, err error) int {
	var usage usageError
	switch {
	case err == nil:
		return exitOK
	case ctx.Err() != nil && errors.Is(err, context.Canceled):
		return exitInterrupted
	case !a.started, errors.As(err, &usage), errors.Is(err, roomkv.ErrInvalidOption):
		return exitUsage
	case errors.Is(err, roomkv.ErrNotFound):
		return exitNotFound
	}
	return exitError
}

// hint tells what a person at a terminal can do about err beyond what its text says.
func hint(verb *cobra.Command, code int, err error) string {
	switch {
	case code == exitUsage && example(verb) != "":
		return "Example: " + example(verb) + "\nSee: " + verb.CommandPath() + " --help"
	case code == exitUsage:
		return "See: " + verb.CommandPath() + " --help"
	case errors.Is(err, session.ErrRecoveryKeyNeeded):
		return "Give the account's recovery key: --recovery-key-file, or " + envRecoveryKey
	case errors.Is(err, session.ErrInUse):
		return "Wait for the other command, or log in beside it with another --profile"
	case errors.Is(err, session.ErrNoDevice):
		return "A login of its own has keys of its own: roomkv login, in another --profile"
	case errors.Is(err, session.ErrCrossSigning) && strings.Contains(err.Error(), "asks for the password"):
		return "Give it once: --password-file, or " + envPassword
	case strings.Contains(err.Error(), "lets nobody in with a password"):
		return "Approve the login in a browser: roomkv login --oauth, or --device-code"
	case errors.Is(err, mautrix.MUnknownToken):
		return "The login, or the access token that was given, is no longer valid. Log in again with: roomkv login"
	case errors.Is(err, roomkv.ErrRoomUpgraded):
		return "Give --follow-upgrades to move the memory to the room's replacement, or name another --room"
	case errors.Is(err, roomkv.ErrUndecryptable):
		return "This login does not have the value's key. Where the account has a key backup, give its recovery key: --recovery-key-file"
	case errors.Is(err, roomkv.ErrWrongSecret):
		return "The keys of this memory are sealed. Give the bot's secret: --sealed-secret-file"
	}
	return ""
}
