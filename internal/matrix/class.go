package matrix

import (
	"context"
	"errors"
	"strconv"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fault"
)

// The classes of errors beside the names of kinds and HTTP statuses.
const (
	classCanceled = "context.Canceled"
	classDeadline = "context.DeadlineExceeded"
	classNoAnswer = "no answer"
	classOther    = "other"
)

// Class is one of a few words for what an error is, and empty for none. It has nothing of the error's text, nor of what the homeserver has said.
func Class(err error) string {
	if err == nil {
		return ""
	}
	name, status := fault.Name(err), Status(err)
	switch {
	case name != "":
		return name
	case errors.Is(err, context.Canceled):
		return classCanceled
	case errors.Is(err, context.DeadlineExceeded):
		return classDeadline
	case status != 0:
		return "HTTP " + strconv.Itoa(status)
	case errors.As(err, new(mautrix.HTTPError)):
		return classNoAnswer
	}
	return classOther
}
