package load

import (
	"context"
	"net/http"
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
	way       *http.Client // to the homeserver, without faults
	store     *roomkv.Store
	transport *faults.Transport
	crypto    *hstest.CryptoStore // nil without encryption
	stop      func()              // ends the sync, where there is one
}

// open makes a process of the client. Only a writer's has faults.
func (r *Run) open(ctx context.Context, number int, client *mautrix.Client, store *hstest.CryptoStore) (*process, error) {
	p := &process{number: number, client: client, way: client.Client, crypto: store, stop: func() {}}
	client.DefaultHTTPBackoff = r.Config.Backoff
	syncer := &patientSyncer{DefaultSyncer: mautrix.NewDefaultSyncer(), first: make(chan struct{})}
	client.Syncer = syncer
	if r.Config.Encrypted {
		if p.crypto == nil {
			p.crypto = hstest.NewCryptoStore()
		}
		if _, err := hstest.NewCryptoIn(ctx, client, p.crypto); err != nil {
			return nil, err
		}
	}
	var options []roomkv.Option
	if r.Config.PerKey {
		options = append(options, roomkv.WithPerKeyState())
	}
	if r.Config.SingleWriter {
		options = append(options, roomkv.WithSingleWriter())
	}
	var err error
	if p.store, err = roomkv.New(client, r.Room.String(), options...); err != nil {
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

// next opens the process that comes after this one: the same device and crypto store, and nothing else.
func (p *process) next(ctx context.Context, r *Run) (*process, error) {
	client, err := mautrix.NewClient(p.client.HomeserverURL.String(), p.client.UserID, p.client.AccessToken)
	if err != nil {
		return nil, err
	}
	client.DeviceID, client.Client = p.client.DeviceID, p.way
	return r.open(ctx, -1, client, p.crypto)
}
