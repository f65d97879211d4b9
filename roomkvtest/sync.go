package roomkvtest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"maunium.net/go/mautrix"
)

// settleWithin is how long a sync may take to bring what there is. Only handlers that do not return take long.
const settleWithin = 30 * time.Second

// Sync runs the client's sync until the test ends or stop is called. Register handlers before. Sync returns once the handlers have returned for what there
// was, and stop once the sync has ended. The test fails if the sync ends by itself with an error.
func (s *Server) Sync(client *mautrix.Client) (stop func()) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		defer cancel()
		if err := client.SyncWithContext(ctx); err != nil && ctx.Err() == nil {
			s.t.Errorf("roomkvtest: the sync of %s has ended: %v", client.UserID, err)
		}
	}()
	stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
	s.t.Cleanup(stop)
	if err := s.settled(ctx, client); err != nil {
		stop()
		s.t.Fatalf("roomkvtest: %v", err)
	}
	return stop
}

// Settle waits until all that was sent before the call is in lists, such as that of the room's messages. It also waits until the sync of each client has
// brought that, and its handlers have returned. A handler must not call it. Handlers that go on in goroutines of their own, as those of package session do,
// are not waited for.
func (s *Server) Settle(clients ...*mautrix.Client) {
	s.t.Helper()
	s.fake.Settle()
	for _, client := range clients {
		if err := s.settled(context.Background(), client); err != nil {
			s.t.Fatalf("roomkvtest: %v", err)
		}
	}
}

func (s *Server) settled(ctx context.Context, client *mautrix.Client) error {
	limited, cancel := context.WithTimeout(ctx, settleWithin)
	defer cancel()
	switch err := s.fake.Synced(limited, client.UserID, client.DeviceID); {
	case err != nil && errors.Is(limited.Err(), context.DeadlineExceeded):
		return fmt.Errorf("%s does not sync, or a handler takes more than %v", client.UserID, settleWithin)
	case err != nil:
		return fmt.Errorf("the sync of %s: %w", client.UserID, err)
	}
	return nil
}
