package fakehs

import (
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"
)

// RateLimit is how many events each user may send.
type RateLimit struct {
	Burst    int           // so many at once
	Every    time.Duration // and another one after each such time
	InHeader bool          // whether Retry-After tells, in seconds, how long to wait; else retry_after_ms in the body does, as on Dendrite
	Exempt   []id.UserID   // whom an administrator has freed of it, as Synapse's override_ratelimit does
}

// SynapseDefault is Synapse's rc_message where nobody has set it: 0.2 a second after a burst of 10.
var SynapseDefault = RateLimit{Burst: 10, Every: 5 * time.Second, InHeader: true}

// bucket is what a user may still send.
type bucket struct {
	left int
	at   time.Time // when left was that
}

// SetRateLimit makes the server refuse what is too much with 429. Nil, which is the default, ends that.
func (s *Server) SetRateLimit(limit *RateLimit) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.limit = limit
	for _, user := range s.users {
		user.bucket = bucket{}
	}
}

// limited are the parts of a path that say that the request sends an event.
var limited = []string{"send", "state", "redact", "createRoom"}

// throttle refuses a request that is one too many.
func (s *Server) throttle(r *request) error {
	if r.Method == http.MethodGet || !slices.ContainsFunc(limited, func(part string) bool { return slices.Contains(strings.Split(r.URL.Path, "/"), part) }) {
		return nil
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.limit == nil || slices.Contains(s.limit.Exempt, r.device.user.id) {
		return nil
	}
	now, own := time.Now(), &r.device.user.bucket
	if own.at.IsZero() {
		*own = bucket{s.limit.Burst, now}
	}
	if more := int(now.Sub(own.at) / s.limit.Every); more > 0 {
		own.left, own.at = min(s.limit.Burst, own.left+more), own.at.Add(time.Duration(more)*s.limit.Every)
	}
	if own.left > 0 {
		own.left--
		return nil
	}
	wait := own.at.Add(s.limit.Every).Sub(now)
	no := refuse(http.StatusTooManyRequests, "M_LIMIT_EXCEEDED", "Too Many Requests")
	if s.limit.InHeader {
		no.header = http.Header{"Retry-After": {strconv.Itoa(int((wait + time.Second - 1) / time.Second))}}
	} else {
		no.more = object{"retry_after_ms": wait.Milliseconds()}
	}
	return no
}
