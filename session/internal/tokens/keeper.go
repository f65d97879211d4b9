package tokens

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/rs/zerolog"
)

// Config is what a [Keeper] needs.
type Config struct {
	Token     Token     // the session, with an access token
	Files     Files     // where it is kept
	Refresher Refresher // nil where no refresh token is used
	Password  *Password // nil where there is none
	Now       func() time.Time
	Log       zerolog.Logger

	// Changed is told of each access token before it is used. It is called once at a time, and not by whoever sends a request.
	Changed func(Token)
}

// Keeper has a bot's session. It alone refreshes the session, and signs in again: one of all goroutines and of all processes that have the same files. Its
// methods are safe for concurrent use.
type Keeper struct {
	config  Config
	flights sync.WaitGroup
	ended   chan struct{} // closed once the session has ended

	mu      sync.Mutex // guards all that follows
	now     session
	flight  *flight       // on its way, nil for none
	unsaved *Token        // was given by the homeserver, and is not in the file yet
	failed  error         // of the last flight
	again   time.Time     // when another one may begin
	pause   time.Duration // what again was after the last flight
	end     error         // why the session has ended
	closed  bool
}

// The pauses after a flight whose token has not been used yet: the first, which doubles, and the longest.
const (
	firstPause   = 250 * time.Millisecond
	longestPause = 30 * time.Second
	longestAsked = 5 * time.Minute // that a server can ask for
)

// How long before its end a token is refreshed: so long, or this part of its life where that is less.
const (
	early     = 30 * time.Second
	earlyPart = 10
)

// session is a token with what is known of it in this process.
type session struct {
	Token
	end      time.Time     // as Token.Expires, with the monotonic clock
	early    time.Duration // how long before the end the token is refreshed
	unusable bool          // the refresh token, for the server has refused it
}

func newSession(token Token, now time.Time) session {
	s := session{Token: token}
	if !token.Expires.IsZero() {
		left := token.Expires.Round(0).Sub(now.Round(0))
		s.end, s.early = now.Add(left), max(0, min(early, left/earlyPart))
	}
	return s
}

// left is how long the access token is good: by the clock on the wall or by the monotonic one, whichever ends earlier. The one may be set, and the other stands
// still while the machine sleeps.
func (s session) left(now time.Time) time.Duration {
	if s.end.IsZero() {
		return longestLife
	}
	return min(s.end.Sub(now), s.Expires.Round(0).Sub(now.Round(0)))
}

// NewKeeper makes a keeper of a session.
func NewKeeper(config Config) *Keeper {
	k := &Keeper{config: config, ended: make(chan struct{}), now: newSession(config.Token, config.Now())}
	k.config.Changed(config.Token)
	return k
}

// Token is the session as it is now.
func (k *Keeper) Token() Token {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.now.Token
}

// Ended is closed once the session has ended for ever. Err then tells why.
func (k *Keeper) Ended() <-chan struct{} { return k.ended }

// Err is an [ErrSignedOut] once the session has ended for ever, and nil before.
func (k *Keeper) Err() error {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.end
}

// Close waits for what is on its way, up to the end of ctx, and begins nothing more. The token can be used still.
func (k *Keeper) Close(ctx context.Context) error {
	k.mu.Lock()
	k.closed = true
	k.mu.Unlock()
	landed := make(chan struct{})
	go func() {
		k.flights.Wait()
		close(landed)
	}()
	select {
	case <-landed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// use gives the token for a request. It waits for another one where the one that there is has ended.
func (k *Keeper) use(ctx context.Context) (string, error) {
	k.mu.Lock()
	now := k.config.Now()
	left := k.now.left(now)
	switch {
	case k.end != nil:
		defer k.mu.Unlock()
		return "", k.end
	case left > k.now.early, !k.refreshes(), k.closed:
		defer k.mu.Unlock()
		return k.now.AccessToken, nil // where it has ended and nothing refreshes it, the homeserver says so
	case left > 0:
		defer k.mu.Unlock()
		_, _ = k.begin(now, cause{}) // and the request does not wait for it
		return k.now.AccessToken, nil
	}
	f, err := k.begin(now, cause{})
	k.mu.Unlock()
	if err != nil {
		return "", err
	}
	return f.wait(ctx)
}

// renew gives another token than the one that the homeserver has refused.
func (k *Keeper) renew(ctx context.Context, refused string, soft bool) (string, error) {
	k.mu.Lock()
	switch {
	case k.end != nil:
		defer k.mu.Unlock()
		return "", k.end
	case k.now.AccessToken != refused:
		defer k.mu.Unlock()
		return k.now.AccessToken, nil
	case k.closed:
		defer k.mu.Unlock()
		return "", errClosed
	}
	f, err := k.begin(k.config.Now(), cause{refused: true, soft: soft})
	k.mu.Unlock()
	if err != nil {
		return "", err
	}
	return f.wait(ctx)
}

// accepted notes that the homeserver has taken the token.
func (k *Keeper) accepted(token string) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.now.AccessToken == token && k.flight == nil {
		k.failed, k.again, k.pause = nil, time.Time{}, 0
	}
}

func (k *Keeper) refreshes() bool {
	return k.now.RefreshToken != "" && k.config.Refresher != nil && !k.now.unusable
}

var (
	errClosed   = errors.New("session: the homeserver has ended the access token, and the bot is closed")
	errNewToken = errors.New("session: the homeserver refuses the access token that it has just given")
)
