package homeserver

import (
	"context"
	"errors"
	"strings"
	"sync"
)

// Pair is two homeservers that federate with each other over a link that can be cut. Its methods are safe for
// concurrent use.
type Pair struct {
	A, B *Server

	a, b *link
	up   sync.RWMutex // of both links: see link

	mu  sync.Mutex
	cut bool
}

// StartPair builds Dendrite where the cache has none, and runs two of it. The caller must Close the pair;
// what Start says of a process that ends without that holds here too.
func StartPair(ctx context.Context) (*Pair, error) {
	p := &Pair{}
	if err := p.start(ctx); err != nil {
		return nil, errors.Join(err, p.Close())
	}
	return p, nil
}

func (p *Pair) start(ctx context.Context) (err error) {
	if p.a, err = newLink(&p.up); err != nil {
		return err
	}
	if p.b, err = newLink(&p.up); err != nil {
		return err
	}
	if p.A, err = startNamed(ctx, p.a.name()); err != nil {
		return err
	}
	if p.B, err = startNamed(ctx, p.b.name()); err != nil {
		return err
	}
	p.a.forwardTo(strings.TrimPrefix(p.A.URL, "http://"))
	p.b.forwardTo(strings.TrimPrefix(p.B.URL, "http://"))
	return nil
}

// Cut takes the link away, in both directions and from connections that exist too. Each server goes on
// serving its own clients; a request that needs the other server waits for Restore.
func (p *Pair) Cut() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.cut {
		p.up.Lock()
		p.cut = true
	}
}

// Restore gives the link back. Servers then exchange what they wrote since Cut.
func (p *Pair) Restore() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.cut {
		p.up.Unlock()
		p.cut = false
	}
}

// Close ends both servers as [Server.Close] does, and the link.
func (p *Pair) Close() error {
	var errs []error
	for _, server := range []*Server{p.A, p.B} {
		if server != nil {
			errs = append(errs, server.Close())
		}
	}
	p.Restore() // what waits at the cut then sees that the servers are gone
	for _, link := range []*link{p.a, p.b} {
		if link != nil {
			errs = append(errs, link.close())
		}
	}
	return errors.Join(errs...)
}
