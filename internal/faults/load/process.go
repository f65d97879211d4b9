package load

import (
	"context"
	"sync"
	"sync/atomic"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/faults"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// process is one that writes: a client of its own, with what New makes of it.
type process struct {
	number    int
	client    *mautrix.Client
	store     *roomkv.Store
	transport *faults.Transport // nil for one that only reads
	stop      func()            // ends the sync, where there is one
}

// open makes a process of the device, which knows nothing but what is in the device's crypto store. One with a number below 0 has no faults.
func (r *Run) open(ctx context.Context, number int, device *member) (*process, error) {
	client, err := mautrix.NewClient(device.client.HomeserverURL.String(), device.client.UserID, device.client.AccessToken)
	if err != nil {
		return nil, err
	}
	client.DeviceID, client.Client = device.client.DeviceID, device.client.Client
	client.DefaultHTTPBackoff = r.Config.Backoff
	syncer := &patientSyncer{DefaultSyncer: mautrix.NewDefaultSyncer(), first: make(chan struct{})}
	client.Syncer = syncer
	if device.crypto != nil {
		if _, err := hstest.NewCryptoIn(ctx, client, device.crypto); err != nil {
			return nil, err
		}
	}
	p := &process{number: number, client: client, stop: func() {}}
	if p.store, err = r.store(client); err != nil {
		return nil, err
	}
	if number >= 0 {
		p.transport = faults.Under(client, r.Config.decide(number), r.kill)
	}
	if follows := r.Config.Follow && number >= 0; follows || r.Config.Encrypted {
		if follows {
			if err := p.store.Follow(); err != nil {
				return nil, err
			}
		}
		p.sync(ctx, syncer)
	}
	return p, nil
}

// store is one that knows nothing of what others of the client have read and written.
func (r *Run) store(client *mautrix.Client) (*roomkv.Store, error) {
	options := []roomkv.Option{roomkv.WithEventType(r.Type)}
	if r.Config.PerKey {
		options = append(options, roomkv.WithPerKeyState())
	}
	if r.Config.Shards > 0 {
		options = append(options, roomkv.WithShards(r.Config.Shards))
	}
	if r.Config.SingleWriter {
		options = append(options, roomkv.WithSingleWriter())
	}
	return roomkv.New(client, r.Room.String(), options...)
}

// decide says what befalls a process.
func (c Config) decide(process int) faults.Decide {
	if c.Decide != nil {
		return c.Decide(process)
	}
	return faults.Plan{Seed: c.Seed<<8 + uint64(process), Kinds: c.Kinds, Rate: c.Rate, Pace: c.Pace}.Decide
}

// sync syncs until stop, and returns after the first response.
func (p *process) sync(ctx context.Context, syncer *patientSyncer) {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		for ctx.Err() == nil {
			_ = p.client.SyncWithContext(ctx)
		}
	}()
	select {
	case <-syncer.first:
	case <-time.After(30 * time.Second):
	}
	p.stop = sync.OnceFunc(func() {
		cancel()
		<-ended
	})
}

// patientSyncer tells of the first response, and tries again soon after a failure, however many there were.
type patientSyncer struct {
	*mautrix.DefaultSyncer
	first chan struct{}
	once  sync.Once
	seen  atomic.Int64
}

// ProcessResponse implements [mautrix.Syncer].
func (s *patientSyncer) ProcessResponse(ctx context.Context, resp *mautrix.RespSync, since string) error {
	err := s.DefaultSyncer.ProcessResponse(ctx, resp, since)
	s.once.Do(func() { close(s.first) })
	s.seen.Add(1)
	return err
}

// OnFailedSync implements [mautrix.Syncer].
func (s *patientSyncer) OnFailedSync(*mautrix.RespSync, error) (time.Duration, error) {
	return 200 * time.Millisecond, nil
}
