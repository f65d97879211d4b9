package load

import (
	"sync"
	"time"
)

// stalls are the times in which this process as a whole did not go on, because the machine was busy: what is late by them is not late.
type stalls struct {
	end  chan struct{}
	mu   sync.Mutex
	last []stall
}

type stall struct{ from, to time.Time }

const (
	pulse    = 20 * time.Millisecond
	tooQuiet = 60 * time.Millisecond
)

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
			if now.Sub(at) > tooQuiet {
				s.mu.Lock()
				s.last = append(s.last, stall{at, now})
				s.mu.Unlock()
			}
			at = now
		}
	}()
	return s
}

func (s *stalls) stop() { close(s.end) }

// during is how long all stalls were that overlap with the time.
func (s *stalls) during(from, to time.Time) (total time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, stall := range s.last {
		if stall.to.After(from) && stall.from.Before(to) {
			total += stall.to.Sub(stall.from)
		}
	}
	return total
}
