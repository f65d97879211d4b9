package fakehs

import (
	"context"
	"fmt"

	"maunium.net/go/mautrix/id"
)

// Synced waits until the sync of a device has brought all that was stored before the call, and waits for more: a client that handles responses before it
// asks again has then handled all of them. It makes lists have what was stored, as [Server.Settle] does. The error is that of ctx, or that
// there is no such device.
func (s *Server) Synced(ctx context.Context, name id.UserID, called id.DeviceID) error {
	s.mu.Lock()
	own := s.users[name]
	if own == nil || own.devices[called] == nil {
		s.mu.Unlock()
		return fmt.Errorf("%s has no device %s here", name, called)
	}
	d, upTo := own.devices[called], s.pos
	s.settled = s.pos
	s.tell()
	for {
		parked, there := s.parked, d.settled(upTo)
		s.mu.Unlock()
		if there {
			return nil
		}
		select {
		case <-parked:
		case <-ctx.Done():
			return ctx.Err()
		}
		s.mu.Lock()
	}
}

// waits notes that a sync waits, and up to which place there is nothing for it. The caller has the lock.
func (s *Server) waits(r *request, upTo int64) {
	r.device.waits, r.device.heard = r, upTo
	close(s.parked)
	s.parked = make(chan struct{})
}

// waited notes that a sync waits no more. Another one of its device can wait by then. The caller has the lock.
func (s *Server) waited(r *request) {
	if r.device.waits == r {
		r.device.waits = nil
	}
}

// settled tells whether a sync of the device waits, and there is nothing for it up to a place. A sync whose client has gone does not count.
func (d *device) settled(upTo int64) bool {
	return d.waits != nil && d.waits.Context().Err() == nil && d.heard >= upTo
}
