package load

import (
	"sync"
	"time"
)

// stalls are the times in which this process did not go on, because it was stopped or the machine was busy. What is late by them is not late.
type stalls struct {
	end  chan struct{}
	mu   sync.Mutex
	last []stall
}

type stall struct {
	at    time.Time // its end
	delay time.Duration
}

const pulse = 20 * time.Millisecond

func watchStalls() *stalls {
	s := &stalls{end: make(chan struct{})}
	go func() {
		for at := time.Now(); ; {
			select {
			case <-s.end:
				return
			case <-time.After(pulse):
			}
			now := time.Now()
			if delay := now.Sub(at) - pulse; delay > pulse/4 {
				s.mu.Lock()
				s.last = append(s.last, stall{now, delay})
				s.mu.Unlock()
			}
			at = now
		}
	}()
	return s
}

func (s *stalls) stop() { close(s.end) }

// steps is how many goroutines have to go on, one after the other, for a call to return.
const steps = 10

// excuse is how much later than otherwise a call may return that had to at the deadline.
func (s *stalls) excuse(deadline, end time.Time) time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	longest := time.Duration(0)
	for _, stall := range s.last {
		if stall.at.After(deadline) && stall.at.Add(-stall.delay).Before(end) {
			longest = max(longest, stall.delay)
		}
	}
	return steps * longest
}
