// Package faults breaks what a Matrix client sends and is sent, in every way that networks, proxies and homeservers are known for.
//
// A [Transport] goes under a client, before any other transport, and under each client that belongs to one process the same one. It asks a
// [Decide] what happens to each request, counts what it has done, and remembers it in order, so that a test can prove that a fault was there.
// A [Plan] decides by a seed.
package faults

import (
	"bytes"
	"cmp"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"maunium.net/go/mautrix"
)

// Transport injects faults into the requests of one process. Its methods are safe for concurrent use.
type Transport struct {
	next   http.RoundTripper
	decide Decide
	kill   func(down time.Duration)

	begun  atomic.Bool
	index  atomic.Int64
	healed chan struct{} // closed when there are no more faults
	heal   func()
	syncs  syncs

	mu       sync.Mutex
	late     int        // deliveries that go on after their requests were answered; they can begin while Wait waits, which a WaitGroup forbids
	arrived  *sync.Cond // when one of them has ended
	injected []Injected
	held     time.Time // until when the process is suspended
	cut      time.Time // until when the process is partitioned
}

// Injected is a fault that was there.
type Injected struct {
	Fault
	At     time.Time
	Index  int
	Method string
	Path   string // escaped, without the query
}

func (i Injected) String() string {
	text := fmt.Sprintf("#%d %s: %s %s", i.Index, i.Kind, i.Method, i.Path)
	if i.Wait > 0 {
		text += fmt.Sprintf(", %s", i.Wait.Round(time.Millisecond))
	}
	if i.Sent {
		text += ", sent"
	}
	return text
}

// New returns a transport before next, which lets everything through until Begin. Kill is called for [Killed] and [KilledAfter], and can be nil where the decision is never that: it kills the homeserver,
// returns, and starts the homeserver again after the time that it is given.
func New(next http.RoundTripper, decide Decide, kill func(down time.Duration)) *Transport {
	t := &Transport{next: cmp.Or(next, http.DefaultTransport), decide: decide, kill: kill, healed: make(chan struct{})}
	t.heal = sync.OnceFunc(func() { close(t.healed) })
	t.arrived = sync.NewCond(&t.mu)
	return t
}

// Under puts a transport under the client, before the transport that the client has.
func Under(client *mautrix.Client, decide Decide, kill func(down time.Duration)) *Transport {
	t := New(client.Client.Transport, decide, kill)
	disturbed := *client.Client
	disturbed.Transport = t
	client.Client = &disturbed
	return t
}

// Begin lets faults happen from now on. The first request after that has the index 0.
func (t *Transport) Begin() { t.begun.Store(true) }

// Heal ends all faults: those that last, too, and what is delayed goes on at once.
func (t *Transport) Heal() { t.heal() }

// Wait returns when everything is delivered that was sent.
func (t *Transport) Wait() {
	t.mu.Lock()
	defer t.mu.Unlock()
	for t.late > 0 {
		t.arrived.Wait()
	}
}

// later makes a delivery that goes on after its request was answered.
func (t *Transport) later(deliver func()) {
	t.mu.Lock()
	t.late++
	t.mu.Unlock()
	go func() {
		deliver()
		t.mu.Lock()
		defer t.mu.Unlock()
		t.late--
		t.arrived.Broadcast()
	}()
}

// Injected are the faults that there were, in their order.
func (t *Transport) Injected() []Injected {
	t.mu.Lock()
	defer t.mu.Unlock()
	return slices.Clone(t.injected)
}

// Count tells how many faults of the kind there were.
func (t *Transport) Count(kind Kind) (n int) {
	for _, injected := range t.Injected() {
		if injected.Kind == kind {
			n++
		}
	}
	return n
}

// Requests tells how many requests there were while there could be faults.
func (t *Transport) Requests() int { return int(t.index.Load()) }

// RoundTrip implements [http.RoundTripper].
func (t *Transport) RoundTrip(req *http.Request) (*http.Response, error) {
	body, err := read(req)
	if err != nil {
		return nil, err
	}
	index, fault := 0, Fault{}
	if t.begun.Load() && !t.isHealed() {
		index = int(t.index.Add(1) - 1)
		fault = t.decide(index, req)
	}
	switch fault.Kind {
	case Partitioned:
		t.mark(&t.cut, fault.Wait)
	case Suspended:
		t.mark(&t.held, fault.Wait)
	}
	if fault.Kind.OfSync() && !t.syncs.can(fault.Kind) {
		fault = Fault{}
	}
	if fault.Kind != None {
		t.note(fault, index, req)
	}
	if !(fault.Kind == Suspended && fault.Sent) { // this one was on its way
		if err := t.waitHeld(req.Context()); err != nil {
			return nil, err
		}
	}
	if t.isCut() && !(fault.Kind == Partitioned && fault.Sent) {
		return nil, refused()
	}
	resp, err := t.disturb(req, body, fault)
	if err := t.waitHeld(req.Context()); err != nil {
		discard(resp)
		return nil, err
	}
	if t.isCut() {
		discard(resp)
		return nil, reset()
	}
	return resp, err
}

// disturb sends the request, as the fault has it, and returns what the client is to see.
func (t *Transport) disturb(req *http.Request, body []byte, fault Fault) (*http.Response, error) {
	ctx := req.Context()
	switch fault.Kind {
	case Drop:
		return nil, refused()
	case Hang:
		if err := t.sleep(ctx, fault.Wait); err != nil {
			return nil, err
		}
		return nil, reset()
	case Lose:
		resp, err := t.send(ctx, req, body)
		discard(resp)
		return nil, cmp.Or(err, reset())
	case Twice:
		second := make(chan struct{})
		go func() {
			defer close(second)
			resp, _ := t.send(context.WithoutCancel(ctx), req, body)
			discard(resp)
		}()
		resp, err := t.send(ctx, req, body)
		t.later(func() { <-second })
		return resp, err
	case Late:
		t.later(func() {
			_ = t.sleep(context.Background(), fault.Wait)
			resp, _ := t.send(context.WithoutCancel(ctx), req, body)
			discard(resp)
		})
		return answer(req, http.StatusGatewayTimeout, "text/html", gatewayPage), nil
	case Slow:
		if !fault.Sent {
			return t.arriveLate(req, body, fault.Wait)
		}
		resp, err := t.send(ctx, req, body)
		if err := t.sleep(ctx, fault.Wait); err != nil {
			discard(resp)
			return nil, err
		}
		return resp, err
	case Truncated, Reset, SlowBody:
		return t.breakBody(req, body, fault)
	case SyncTwice, SyncRepeats, SyncStale, SyncLimited:
		return t.disturbSync(req, body, fault)
	case Killed:
		return t.killAround(req, body, fault)
	case KilledAfter:
		resp, err := t.send(ctx, req, body)
		discard(resp)
		t.kill(fault.Wait)
		return nil, cmp.Or(err, reset())
	}
	if made := refusal(req, fault); made != nil {
		if fault.Sent {
			resp, _ := t.send(ctx, req, body)
			discard(resp)
		}
		return made, nil
	}
	if IsSync(req) {
		return t.disturbSync(req, body, fault)
	}
	return t.send(ctx, req, body)
}

// arriveLate delivers the request after a while, whether or not somebody still waits for the answer.
func (t *Transport) arriveLate(req *http.Request, body []byte, wait time.Duration) (*http.Response, error) {
	type result struct {
		resp *http.Response
		err  error
	}
	arrived := make(chan result, 1)
	t.later(func() {
		_ = t.sleep(context.Background(), wait)
		resp, err := t.send(context.WithoutCancel(req.Context()), req, body)
		if req.Context().Err() != nil {
			discard(resp)
		}
		arrived <- result{resp, err}
	})
	select {
	case r := <-arrived:
		return r.resp, r.err
	case <-req.Context().Done():
		return nil, req.Context().Err()
	}
}

// killAround kills the homeserver before the request reaches it, or while the homeserver is at it.
func (t *Transport) killAround(req *http.Request, body []byte, fault Fault) (*http.Response, error) {
	if fault.Sent {
		time.AfterFunc(time.Duration(fault.Part*float64(killWithin)), func() { t.kill(fault.Wait) })
	} else {
		t.kill(fault.Wait)
	}
	return t.send(req.Context(), req, body)
}

// killWithin is how long a homeserver is at a write, about.
const killWithin = 40 * time.Millisecond

// send delivers the request once.
func (t *Transport) send(ctx context.Context, req *http.Request, body []byte) (*http.Response, error) {
	sent := req.Clone(ctx)
	sent.Body, sent.GetBody = http.NoBody, nil
	if len(body) > 0 {
		sent.Body = io.NopCloser(bytes.NewReader(body))
	}
	return t.next.RoundTrip(sent)
}

func (t *Transport) note(fault Fault, index int, req *http.Request) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.injected = append(t.injected, Injected{Fault: fault, At: time.Now(), Index: index, Method: req.Method, Path: req.URL.EscapedPath()})
}

// mark lets something last from now on.
func (t *Transport) mark(until *time.Time, wait time.Duration) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if end := time.Now().Add(wait); end.After(*until) {
		*until = end
	}
}

func (t *Transport) isHealed() bool {
	select {
	case <-t.healed:
		return true
	default:
		return false
	}
}

func (t *Transport) isCut() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return !t.isHealed() && time.Now().Before(t.cut)
}

// waitHeld waits while the process is suspended.
func (t *Transport) waitHeld(ctx context.Context) error {
	t.mu.Lock()
	until := t.held
	t.mu.Unlock()
	return t.sleep(ctx, time.Until(until))
}

// sleep waits until then, until the faults have ended, or until ctx has, and returns the error of the last.
func (t *Transport) sleep(ctx context.Context, wait time.Duration) error {
	if wait <= 0 {
		return nil
	}
	timer := time.NewTimer(wait)
	defer timer.Stop()
	select {
	case <-timer.C:
		return nil
	case <-t.healed:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func read(req *http.Request) ([]byte, error) {
	if req.Body == nil {
		return nil, nil
	}
	defer req.Body.Close()
	return io.ReadAll(req.Body)
}

func discard(resp *http.Response) {
	if resp != nil {
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
	}
}

func refused() error { return &net.OpError{Op: "dial", Net: "tcp", Err: syscall.ECONNREFUSED} }

func reset() error { return &net.OpError{Op: "read", Net: "tcp", Err: syscall.ECONNRESET} }
