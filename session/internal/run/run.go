// Package run runs a client: it syncs, hands out what that brings, and stops cleanly.
package run

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/session/internal/inbox"
	"github.com/roomkv/roomkv/session/internal/rooms"
	"github.com/roomkv/roomkv/session/internal/syncing"
)

const (
	// How long handlers have to end, and then stores to send what waits. Docker kills a container 10 seconds after SIGTERM.
	toEnd  = 4 * time.Second
	toSend = 4 * time.Second

	// toGiveUp is either of these where the homeserver does not let the client in.
	toGiveUp = time.Second
)

// Runner runs a client. All fields but Signals and Close are set.
type Runner struct {
	Client   *mautrix.Client
	Inbox    *inbox.Inbox // whose Take the client's syncer has
	Rooms    *rooms.Rooms
	Presence event.Presence
	Timeout  time.Duration // of a request
	Errors   Errors
	Log      zerolog.Logger

	// Signals makes a context that ends with the signals that end the process; see [Signals]. Nil is none.
	Signals func(ctx context.Context) (context.Context, context.CancelFunc)

	// Close sends what stores hold, before ctx ends.
	Close func(ctx context.Context) error

	filter string
}

// Errors are what [Runner.Run] fails with.
type Errors struct {
	SignedOut  error // the access token is not valid any more
	Homeserver error // the homeserver refuses what the client asks
}

// Signals ends the context at SIGINT and SIGTERM, until it is cancelled.
func Signals(ctx context.Context) (context.Context, context.CancelFunc) {
	return signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
}

// Run runs until ctx ends or there is one of Signals, and then returns nil, where all was handled and sent. Or it runs until there is something
// that a person must mend, and returns an error of Errors, which can be the cause for which ctx has ended. A second signal ends the process at once.
func (r *Runner) Run(ctx context.Context) error {
	stop := func() {}
	if r.Signals != nil {
		ctx, stop = r.Signals(ctx)
	}
	defer stop()
	if filter := r.Client.Syncer.GetFilterJSON(r.Client.UserID); filter != nil {
		text, err := json.Marshal(filter)
		if err != nil {
			return fmt.Errorf("the filter of the sync cannot be encoded: %w", err)
		}
		r.filter = string(text)
	}
	if err := r.Inbox.Start(ctx); err != nil {
		return err
	}
	r.Rooms.Start(ctx)
	loop := syncing.Loop{Ask: r.ask, Take: r.take, Final: r.final, Log: r.Log}
	err := loop.Run(ctx, r.Inbox.Since())
	if cause := context.Cause(ctx); err == nil && errors.Is(cause, r.Errors.SignedOut) {
		err = cause
	}
	stop()
	return errors.Join(err, r.end(context.WithoutCancel(ctx), err != nil))
}

// ask is one request. The homeserver holds it back for up to hold.
func (r *Runner) ask(ctx context.Context, since string, hold time.Duration) (*mautrix.RespSync, error) {
	ctx, cancel := context.WithTimeout(ctx, hold+r.Timeout)
	defer cancel()
	return syncing.Sync(ctx, r.Client, mautrix.ReqSync{Timeout: int(hold.Milliseconds()), Since: since, FilterID: r.filter, SetPresence: r.Presence})
}

// take hands out a response. A handler that panics, of those that were given to the client's syncer, keeps those after it from that response.
func (r *Runner) take(ctx context.Context, resp *mautrix.RespSync, since string) error {
	if err := r.Inbox.Begin(ctx, resp); err != nil {
		return err
	}
	r.Rooms.Take(resp)
	if err := r.Client.Syncer.ProcessResponse(ctx, resp, since); err != nil {
		if _, panicked := r.Client.Syncer.(*mautrix.DefaultSyncer); !panicked {
			return fmt.Errorf("the client's syncer ends the sync: %w", err)
		}
		r.Log.Error().Str("stack", stackOf(err)).Msg("A handler of the client's syncer has panicked")
	}
	r.Inbox.End(resp, since)
	return nil
}

// stackOf is the stack in an error of [mautrix.DefaultSyncer], without what the handler has panicked with.
func stackOf(err error) string {
	text := err.Error()
	at := strings.LastIndex(text, "\ngoroutine ")
	if at < 0 {
		return ""
	}
	return text[at+1:]
}

// final is the error that ends the sync, nil where that is tried again.
func (r *Runner) final(err error) error {
	if errors.Is(err, r.Errors.SignedOut) || errors.Is(err, r.Errors.Homeserver) {
		return err
	}
	var failed mautrix.HTTPError
	if !errors.As(err, &failed) || failed.Response == nil || failed.RespError == nil {
		return nil
	}
	code := failed.RespError.ErrCode
	switch status := failed.Response.StatusCode; {
	case status == http.StatusUnauthorized, code == mautrix.MUnknownToken.ErrCode, code == "M_USER_DEACTIVATED":
		return fmt.Errorf("%w: the homeserver says %s", r.Errors.SignedOut, named(code))
	case status == http.StatusForbidden:
		return fmt.Errorf("%w: it refuses to sync with %s", r.Errors.Homeserver, named(code))
	case status == http.StatusBadRequest:
		return fmt.Errorf("%w: it does not understand the sync and says %s; where it has lost its data, remove the file inbox of the bot's folder, or look at the filter", r.Errors.Homeserver, named(code))
	}
	return nil
}

// named is an error code, unless it does not look like one.
func named(code string) string {
	for _, c := range code {
		if c != '_' && c != '.' && (c < 'A' || c > 'Z') && (c < '0' || c > '9') {
			return "no known error code"
		}
	}
	return code
}

// end stops what goes on. It takes about 9 seconds at most, and 3 after an error.
func (r *Runner) end(ctx context.Context, failed bool) error {
	ends, sends := toEnd, toSend
	if failed {
		ends, sends = toGiveUp, toGiveUp
	}
	r.Rooms.Stop()
	stopping, cancel := context.WithTimeout(ctx, ends)
	defer cancel()
	err := r.Inbox.Stop(stopping)
	if r.Close == nil {
		return err
	}
	sending, cancel := context.WithTimeout(ctx, sends)
	defer cancel()
	if unsent := r.Close(sending); unsent != nil {
		err = errors.Join(err, fmt.Errorf("sending what stores held back: %w", unsent))
	}
	return err
}
