// Package matrix makes requests to a homeserver. It repeats a request that failed where that can help, bounds how large each answer may be,
// and explains errors without the homeserver's own words. It knows no memory and no encryption.
package matrix

import (
	"cmp"
	"context"
	"errors"
	"net/http"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/meter"
	"github.com/roomkv/roomkv/internal/retry"
)

// Try calls attempt, and again while that can help: as often as the context says (see [mautrix.WithMaxRetries]), or the client. In the
// context that attempt gets, mautrix sends each request once, and so does another Try, so that what is encrypted for a request is not
// sent twice.
func Try(ctx context.Context, client Client, attempt func(ctx context.Context) error) error {
	return try(ctx, client, nil, attempt)
}

// TryWrite is Try for what sends an event to the room. While the homeserver limits the account, the client sends one event after the other, and each
// room has its turn.
func (r Room) TryWrite(ctx context.Context, attempt func(ctx context.Context) error) error {
	if r.Client.IgnoreRateLimit {
		return Try(ctx, r.Client, attempt)
	}
	turn := commit.ThisProcess.Turns.Enter(r.Client.Client, r.ID.String())
	defer turn.Leave()
	return try(ctx, r.Client, turn, attempt)
}

// Ahead waits for the room's turn to send an event before it is known what that is; see [retry.Queues.Ahead].
func (r Room) Ahead(ctx context.Context) (with context.Context, leave func(), err error) {
	if r.Client.IgnoreRateLimit {
		return ctx, func() {}, nil
	}
	return commit.ThisProcess.Turns.Ahead(ctx, r.Client.Client, r.ID.String())
}

func try(ctx context.Context, client Client, turn *retry.Turn, attempt func(ctx context.Context) error) error {
	once := mautrix.WithMaxRetries(ctx, 0)
	doubtful := false // whether an attempt before the last one can have been done
	policy := policy(ctx, client.Client)
	policy.Turn = turn
	policy.Again = func(err error, verdict retry.Verdict) {
		doubtful = doubtful || !Refused(err)
		log := Logger(ctx, &client.Log)
		if turn == nil || !verdict.Limited {
			log.Warn().Str("because", verdict.Why).Msg("Request failed, another follows")
		} else if writes, rooms, news := turn.Behind(tellBehind); news {
			log.Warn().Str("because", verdict.Why).Int("writes", writes).Int("rooms", rooms).Msg("The homeserver limits what this account sends, and writes wait")
		}
	}
	attempts := 0
	err := policy.Do(ctx, func() error {
		if attempts++; attempts > 1 {
			client.Meter.Add(meter.Counts{Retries: 1})
			meter.Count(ctx, meter.Counts{Retries: 1})
		}
		return attempt(once)
	}, func(err error) retry.Verdict { return judge(client.Client, err) })
	if err != nil && doubtful {
		return doubt{err}
	}
	return err
}

// doubt is the error of an attempt after others that the homeserver may have done, though their answers did not say so.
type doubt struct{ error }

func (d doubt) Unwrap() error { return d.error }

// InDoubt tells whether the error is that of a repeated request of which the homeserver may have done an earlier attempt.
func InDoubt(err error) bool { return errors.As(err, new(doubt)) }

// Refused tells whether the homeserver has said that it did not do what it was asked to, at each attempt. After any other error it may have
// done it.
func Refused(err error) bool {
	var answer mautrix.HTTPError
	status := Status(err)
	return !InDoubt(err) && errors.As(err, &answer) && answer.RespError != nil && status/100 == 4 && status != http.StatusRequestTimeout
}

// policy is mautrix's own, but for the default of the number.
func policy(ctx context.Context, client *mautrix.Client) retry.Policy {
	attempts, said := ctx.Value(mautrix.MaxAttemptsContextKey).(int)
	if !said || attempts <= 0 {
		attempts = 1 + cmp.Or(client.DefaultHTTPRetries, defaultRetries)
	}
	longest := client.MaxHTTPBackoff
	if longest <= 0 {
		longest = defaultLongest
	}
	return retry.Policy{Attempts: attempts, Pause: cmp.Or(client.DefaultHTTPBackoff, defaultPause), Longest: longest}
}
