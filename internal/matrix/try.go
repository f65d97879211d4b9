// Package matrix makes requests to a homeserver: how often, how large the answers may be, and what became of them. It knows no
// memory and no encryption.
package matrix

import (
	"cmp"
	"context"
	"errors"
	"net/http"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/retry"
)

// What mautrix documents as the defaults of a client's DefaultHTTPBackoff and MaxHTTPBackoff.
const (
	defaultPause   = 4 * time.Second
	defaultLongest = 10 * time.Minute
)

// defaultRetries is how often a request is made again where neither the client nor the context says.
const defaultRetries = 3

// Try calls attempt, and again while that can help, as often as the context says (see [mautrix.WithMaxRetries]), or the client.
// In the context that attempt gets, mautrix sends each request once, and so does another Try: what is encrypted for a request must
// not be sent twice.
func Try(ctx context.Context, client *mautrix.Client, attempt func(ctx context.Context) error) error {
	once := mautrix.WithMaxRetries(ctx, 0)
	return policy(ctx, client).Do(ctx, func() error { return attempt(once) }, func(err error) bool { return again(client, err) })
}

func policy(ctx context.Context, client *mautrix.Client) retry.Policy {
	attempts, said := ctx.Value(mautrix.MaxAttemptsContextKey).(int)
	if !said || attempts <= 0 { // as mautrix takes it
		attempts = 1 + cmp.Or(client.DefaultHTTPRetries, defaultRetries)
	}
	longest := client.MaxHTTPBackoff
	if longest <= 0 {
		longest = defaultLongest
	}
	return retry.Policy{Attempts: attempts, Pause: cmp.Or(client.DefaultHTTPBackoff, defaultPause), Longest: longest}
}

// again tells whether a request that failed is worth another one.
func again(client *mautrix.Client, err error) bool {
	var failed mautrix.HTTPError
	switch {
	case !errors.As(err, &failed) || failed.Request == nil:
		return false
	case failed.Response == nil:
		return true
	}
	switch failed.Response.StatusCode {
	case http.StatusTooManyRequests:
		return !client.IgnoreRateLimit
	case http.StatusBadGateway, http.StatusServiceUnavailable, http.StatusGatewayTimeout:
		return true
	}
	return false
}
