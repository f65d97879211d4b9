// Package syncing asks a homeserver again and again what is new, and goes on when the network or the homeserver fails.
package syncing

import (
	"context"
	"errors"
	"math/rand/v2"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
)

const (
	poll        = 30 * time.Second // how long the homeserver holds a request back until there is something new
	firstWait   = time.Second
	longestWait = time.Minute
	longestAsk  = 10 * time.Minute // what a homeserver may ask to wait for
)

// Loop is a sync. All fields but Log are set.
type Loop struct {
	// Ask asks what is new since a token. The homeserver holds the request back for up to hold.
	Ask func(ctx context.Context, since string, hold time.Duration) (*mautrix.RespSync, error)

	// Take takes a response. An error ends the sync.
	Take func(ctx context.Context, resp *mautrix.RespSync, since string) error

	// Final is the error with which the sync ends because of what Ask has failed with, nil where it is tried again.
	Final func(err error) error

	Log zerolog.Logger
}

// Run asks from a token on until ctx ends, and then returns nil, or until there is an error of Final or Take.
func (l *Loop) Run(ctx context.Context, since string) error {
	hold, tries := time.Duration(0), 0
	for ctx.Err() == nil {
		resp, err := l.Ask(ctx, since, hold)
		if ctx.Err() != nil {
			break
		}
		if err != nil {
			if final := l.Final(err); final != nil {
				return final
			}
			wait := after(err, tries)
			tries++
			hold = 0 // so that it is known soon when it works again
			l.Log.Warn().Str("error", describe(err)).Dur("wait", wait).Int("tries", tries).Msg("The sync has failed and is tried again")
			select {
			case <-ctx.Done():
			case <-time.After(wait):
			}
			continue
		}
		if err := l.Take(ctx, resp, since); err != nil && ctx.Err() == nil {
			return err
		}
		since, hold, tries = resp.NextBatch, poll, 0
	}
	return nil
}

// after is how long to wait after a try that has failed. Up to a quarter of it is random, so that the bots of a homeserver do not all come back at once.
func after(err error, tries int) time.Duration {
	wait := min(firstWait<<min(tries, 10), longestWait)
	wait += time.Duration(rand.Int64N(int64(wait / 4)))
	return max(wait, min(asked(err), longestAsk))
}

// asked is how long the homeserver asks to wait, 0 where it does not: by a header, in seconds or as a date, or by the body, in milliseconds.
func asked(err error) time.Duration {
	var failed mautrix.HTTPError
	if !errors.As(err, &failed) || failed.Response == nil {
		return 0
	}
	text := strings.TrimSpace(failed.Response.Header.Get("Retry-After"))
	if date, err := http.ParseTime(text); err == nil {
		return max(0, time.Until(date))
	}
	if seconds, err := strconv.Atoi(text); err == nil && seconds >= 0 {
		return time.Duration(min(seconds, int(longestAsk/time.Second))) * time.Second
	}
	if failed.RespError != nil {
		if ms, ok := failed.RespError.ExtraData["retry_after_ms"].(float64); ok && ms > 0 {
			return time.Duration(min(ms, float64(longestAsk.Milliseconds()))) * time.Millisecond
		}
	}
	return 0
}

// describe says why a request has failed, without its URL, which has the filter, and without the homeserver's words.
func describe(err error) string {
	var failed mautrix.HTTPError
	if errors.As(err, &failed) && failed.Response != nil {
		if failed.RespError != nil {
			return failed.RespError.ErrCode + ", HTTP " + strconv.Itoa(failed.Response.StatusCode)
		}
		return "HTTP " + strconv.Itoa(failed.Response.StatusCode)
	}
	for {
		inner := errors.Unwrap(err)
		if inner == nil {
			return err.Error()
		}
		err = inner
	}
}
