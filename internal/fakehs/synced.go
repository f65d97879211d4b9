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
		parked, there := s.parked, d.waits && d.heard >= upTo
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

// park notes whether a sync of the device waits, and up to which place there is nothing for it. The caller has the lock.
func (s *Server) park(d *device, waits bool, upTo int64) {
	d.waits, d.heard = waits, upTo
	close(s.parked)
	s.parked = make(chan struct{})
}
