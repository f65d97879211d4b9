package matrix

import (
	"errors"

	"maunium.net/go/mautrix"
)

// ErrAnswer is in the error of an answer that is not what was asked for.
var ErrAnswer = errors.New("the homeserver's answer is not what was asked for")

// Status is the HTTP status with which the homeserver has answered a request that failed, 0 where it has not answered.
func Status(err error) int {
	var answer mautrix.HTTPError
	if errors.As(err, &answer) && answer.Response != nil {
		return answer.Response.StatusCode
	}
	return 0
}

// IsStatus tells whether the homeserver has answered with the HTTP status.
func IsStatus(err error, status int) bool { return Status(err) == status }
