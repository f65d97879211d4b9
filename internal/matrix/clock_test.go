package matrix

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/fault"
)

// clocked is a homeserver whose clock is off from that of the tests, and whose answers take a while.
type clocked struct {
	off, takes, age time.Duration
	silent          bool // whether no answer has a date
	down            bool
	asked           int
}

func (s *clocked) RoundTrip(req *http.Request) (*http.Response, error) {
	s.asked++
	if s.down {
		return nil, errors.New("no answer")
	}
	if req.Header.Get("Cache-Control") != "no-cache" || req.Header.Get("Authorization") == "" {
		return nil, errors.New("a cache could answer")
	}
	time.Sleep(s.takes / 2)
	header := http.Header{}
	if !s.silent {
		header.Set("Date", time.Now().Add(s.off-s.age).UTC().Format(http.TimeFormat))
	}
	if s.age > 0 {
		header.Set("Age", "60")
	}
	time.Sleep(s.takes / 2)
	return &http.Response{StatusCode: http.StatusOK, Header: header, Body: io.NopCloser(strings.NewReader("{}")), ContentLength: 2, Request: req}, nil
}

func (s *clocked) clock(t *testing.T) *Clock {
	t.Helper()
	client, err := mautrix.NewClient("http://homeserver.invalid", "@bot:example.org", "token")
	require.NoError(t, err)
	client.Client, client.DefaultHTTPBackoff = &http.Client{Transport: s}, time.Millisecond
	return NewClock(Client{Client: client}, 10*time.Minute)
}

// is tells how far the clock's time is from the homeserver's, and checks that the bounds are right.
func (s *clocked) is(t *testing.T, c *Clock) time.Duration {
	t.Helper()
	first, last, err := c.Between(t.Context())
	require.NoError(t, err)
	exact := time.Now().Add(s.off).UnixMilli()
	assert.LessOrEqual(t, first, exact)
	assert.GreaterOrEqual(t, last, exact)
	now, err := c.Now(t.Context())
	require.NoError(t, err)
	return (time.Duration(now-exact) * time.Millisecond).Abs()
}

func TestClock(t *testing.T) {
	for about, s := range map[string]*clocked{
		"right": {}, "an hour slow": {off: -time.Hour}, "days fast": {off: 100 * time.Hour, takes: 300 * time.Millisecond}, "a slow answer": {takes: 6 * time.Second},
		"a cache": {age: time.Minute},
	} {
		t.Run(about, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				time.Sleep(123 * time.Millisecond)
				c := s.clock(t)
				assert.LessOrEqual(t, s.is(t, c), time.Second/2+s.takes/2+s.age/100)
				asked := s.asked
				s.is(t, c)
				assert.Equal(t, asked, s.asked, "the process's clock goes on from there")
				time.Sleep(9 * time.Second)
				s.is(t, c)
				time.Sleep(10 * time.Minute)
				s.is(t, c)
				assert.Greater(t, s.asked, asked, "the clocks of computers drift")

				s.off += time.Hour // somebody has set the homeserver's clock
				time.Sleep(10 * time.Minute)
				s.is(t, c)
			})
		})
	}
}

func TestClockThatCannotBeKnown(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &clocked{silent: true}
		c := s.clock(t)
		_, err := c.Now(t.Context())
		require.ErrorIs(t, err, fault.ErrNoTime)
		s.silent, s.down = false, true
		_, err = c.Now(t.Context())
		require.Error(t, err)
		require.NotErrorIs(t, err, fault.ErrNoTime)
		s.down = false
		s.is(t, c)
		s.down = true
		time.Sleep(5 * time.Minute)
		s.is(t, c)
	})
}
