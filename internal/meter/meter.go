// Package meter counts what operations take: requests, the bytes that they carry, and merges. It knows no network.
package meter

import "sync"

// Counts is what something has taken.
type Counts struct {
	Requests int   // those that were made again included
	Retries  int   // how often something was tried again
	Sent     int64 // bytes of the bodies of requests
	Received int64 // bytes of the bodies of answers, as far as they were read
	Merges   int   // events that merged what several writers had written
}

func (c *Counts) add(more Counts) {
	c.Requests += more.Requests
	c.Retries += more.Retries
	c.Sent += more.Sent
	c.Received += more.Received
	c.Merges += more.Merges
}

// Meter counts until it is closed. The zero value is ready, a nil Meter counts nothing, and methods are safe for concurrent use.
type Meter struct {
	mu     sync.Mutex
	counts Counts
	closed bool
}

// Add counts more, and tells whether it did.
func (m *Meter) Add(more Counts) bool {
	if m == nil {
		return false
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	if !m.closed {
		m.counts.add(more)
	}
	return !m.closed
}

// Counts is what was counted until now.
func (m *Meter) Counts() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.counts
}

// Close gives what was counted. What comes later is not counted.
func (m *Meter) Close() Counts {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed = true
	return m.counts
}
