package fakehs

import (
	"bytes"
	"io"
	"net/http"
	"time"

	"maunium.net/go/mautrix/id"
)

// Next sends a request on to the server, as often as it is called.
type Next func(req *http.Request) (*http.Response, error)

// interceptor is what stands before the server.
type interceptor struct {
	f func(req *http.Request, next Next) (*http.Response, error)
}

// Intercept makes every request from now on go through f until remove is called. It can wait, answer by itself, lose the response, or send
// the request more than once. Of several the latest is called first. The request's body can be read in f and still be sent on.
func (s *Server) Intercept(f func(req *http.Request, next Next) (*http.Response, error)) (remove func()) {
	own := &interceptor{f}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.intercept = append(append([]*interceptor(nil), s.intercept...), own)
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		var rest []*interceptor
		for _, other := range s.intercept {
			if other != own {
				rest = append(rest, other)
			}
		}
		s.intercept = rest
	}
}

// pass sends a request through all that stands before the server.
func (s *Server) pass(req *http.Request, body []byte) (*http.Response, error) {
	s.mu.Lock()
	chain := s.intercept
	s.mu.Unlock()
	next := func(req *http.Request) (*http.Response, error) {
		body, err := bodyOf(req)
		if err != nil {
			return nil, err
		}
		return s.serve(req, body), nil
	}
	for _, link := range chain {
		inner := next
		next = func(req *http.Request) (*http.Response, error) {
			body, err := bodyOf(req)
			if err != nil {
				return nil, err
			}
			return link.f(withBody(req, body), inner)
		}
	}
	return next(withBody(req, body))
}

// replay is a body that is still there when it was read.
type replay struct {
	io.Reader
	whole []byte
}

func (*replay) Close() error { return nil }

func withBody(req *http.Request, body []byte) *http.Request {
	req = req.Clone(req.Context())
	req.Body = &replay{bytes.NewReader(body), body}
	return req
}

// bodyOf is the whole body, also where somebody has read it, unless they have put another one there.
func bodyOf(req *http.Request) ([]byte, error) {
	if known, ok := req.Body.(*replay); ok {
		return known.whole, nil
	}
	return readAll(req.Body)
}

// Write is an event that is about to be stored.
type Write struct {
	Room     id.RoomID
	Sender   id.UserID
	Type     string
	StateKey *string
}

// BeforeStore has f called after the server has looked at the room for an event and before it stores the event. Other requests go on
// while f waits. A nil f ends that.
func (s *Server) BeforeStore(f func(Write)) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.beforeSend = f
}

// together is how many writes are to begin before the first of them is stored.
type together struct {
	left int
	all  chan struct{}
}

// Together makes the next n events be built on the same state of the room: none of them is stored before all have begun. In Linear mode
// they must be of n users, for a user's writes come one after the other there.
func (s *Server) Together(n int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.together = &together{left: n, all: make(chan struct{})}
}

// pause is what happens between the look at the room and the storing of an event. The caller does not have the lock.
func (s *Server) pause(write Write, meeting *together) {
	s.mu.Lock()
	f := s.beforeSend
	s.mu.Unlock()
	if meeting != nil {
		<-meeting.all
	}
	if f != nil {
		f(write)
	}
	if s.spread > 0 {
		time.Sleep(s.spread)
	}
}

// meet counts a write that has begun. The caller has the lock.
func (s *Server) meet() *together {
	meeting := s.together
	if meeting == nil {
		return nil
	}
	meeting.left--
	if meeting.left == 0 {
		close(meeting.all)
		s.together = nil
	}
	return meeting
}
