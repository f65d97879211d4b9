package matrix

import (
	"context"
	"io"
	"net/http"
	"strconv"
	"sync"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fault"
)

const (
	// dateStep is what the Date header of an answer is rounded down to (RFC 9110, section 5.6.7).
	dateStep = time.Second

	// sharp is how far the bounds of the homeserver's time may be apart. Where a slow answer leaves them further apart, the homeserver is asked again, up
	// to clockTries times.
	sharp      = dateStep + 500*time.Millisecond
	clockTries = 4

	// bluntFor is how long bounds count that are further apart.
	bluntFor = 10 * time.Second

	// clockDrift is how much of the time that passes a process's clock is off, at most: clocks of computers are some 0.005 % fast or slow.
	clockDrift = 10_000

	// clockJump is how far the process's clock may be from what has passed by its monotonic clock, more than before, until the homeserver's time is
	// asked for again: the monotonic clock of Linux stands still while the machine sleeps.
	clockJump = time.Second

	// lastYear is the last one whose dates are believed: a time.Duration since 1970 can hold it.
	lastYear = 2200
)

// Clock is the homeserver's clock, as far as its answers tell. It goes on by the process's monotonic clock, and never by what time the process has. It is
// known between two bounds, which are a second apart and what the answer took; each further answer can only bring them together. It is safe for
// concurrent use.
type Clock struct {
	client Client
	every  time.Duration // after which the homeserver is asked again

	asking chan struct{} // holds an element while somebody asks

	mu          sync.Mutex
	base        time.Time     // what the rest counts from, zero where nothing is known
	first, last time.Duration // between which the homeserver's time was at base, since the Unix epoch
	asked       time.Time
}

// NewClock returns the clock of the client's homeserver, which is asked when the time is first needed, and again after a while.
func NewClock(client Client, every time.Duration) *Clock {
	return &Clock{client: client, every: every, asking: make(chan struct{}, 1)}
}

// Now is the homeserver's time, in Unix milliseconds. It makes a request where that is not known. It fails with [fault.ErrNoTime] where the
// homeserver's answers have no time, and with the error of a request.
func (c *Clock) Now(ctx context.Context) (int64, error) {
	first, last, err := c.Between(ctx)
	return first + (last-first)/2, err
}

// Between gives bounds of the homeserver's time; see [Clock.Now].
func (c *Clock) Between(ctx context.Context) (first, last int64, err error) {
	if first, last, known := c.known(); known {
		return first, last, nil
	}
	select {
	case c.asking <- struct{}{}:
		defer func() { <-c.asking }()
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	for try := 0; ; try++ {
		if first, last, known := c.known(); known && (try >= clockTries || last-first <= sharp.Milliseconds()) {
			return first, last, nil
		}
		if err := c.ask(ctx); err != nil {
			return 0, 0, err
		}
	}
}

func (c *Clock) known() (first, last int64, known bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	at := time.Now()
	age, every := at.Sub(c.asked), c.every
	if c.last-c.first > sharp {
		every = min(every, bluntFor)
	}
	if c.base.IsZero() || age >= every || c.jumped(at) {
		return 0, 0, false
	}
	now := at.Sub(c.base)
	return (now + c.first - age/clockDrift).Milliseconds(), (now + c.last + age/clockDrift).Milliseconds(), true
}

// jumped tells whether the process's clock has gone on by something else than its monotonic clock.
func (c *Clock) jumped(at time.Time) bool {
	return (at.Round(0).Sub(c.base.Round(0)) - at.Sub(c.base)).Abs() > clockJump // Round takes away the reading of the monotonic clock
}

// ask asks the homeserver for something that needs no login.
func (c *Clock) ask(ctx context.Context) error {
	var date, age string
	var sent, received time.Time
	err := Try(ctx, c.client, func(ctx context.Context) error {
		sent = time.Now()
		_, err := once(ctx, c.client.Client, Request{Method: http.MethodGet, URL: c.client.BuildURL(mautrix.ClientURLPath{"versions"}), Fresh: true,
			Read: func(resp *http.Response, body io.Reader) error {
				received, date, age = time.Now(), resp.Header.Get("Date"), resp.Header.Get("Age")
				_, err := io.Copy(io.Discard, body)
				return err
			}})
		return err
	})
	if err != nil {
		return fault.Because(err, "cannot ask the homeserver for its time: %s", Describe(err))
	}
	at, err := http.ParseTime(date)
	if err != nil || at.Year() <= 1970 || at.Year() > lastYear {
		return fault.Of(fault.ErrNoTime, nil, "the homeserver's answers have no Date that can be read, so that nobody can tell what has expired")
	}
	told, step := time.Duration(at.UnixMilli())*time.Millisecond, dateStep
	if seconds, err := strconv.ParseInt(age, 10, 32); err == nil && seconds > 0 { // a cache has answered all the same
		told, step = told+time.Duration(seconds)*time.Second, 2*dateStep
	}
	c.learn(told, step, sent, received)
	return nil
}

// learn takes in what an answer says. Where that contradicts earlier answers, the homeserver's clock was set, and the last one counts.
func (c *Clock) learn(date, step time.Duration, sent, received time.Time) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.base.IsZero() || c.jumped(received) {
		c.base, c.asked, c.first, c.last = received, received, 0, 1<<63-1
	}
	drift := received.Sub(c.asked) / clockDrift
	c.first, c.last = c.first-drift, c.last+min(drift, 1<<63-1-c.last)
	first, last := date-received.Sub(c.base), date+step-sent.Sub(c.base)
	if first > c.last || last < c.first {
		c.first, c.last = first, last
	}
	c.first, c.last, c.asked = max(c.first, first), min(c.last, last), received
}
