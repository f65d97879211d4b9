package faults

import (
	"math/rand/v2"
	"net/http"
	"strings"
	"time"
)

// Fault is what happens to one request.
type Fault struct {
	Kind   Kind
	Sent   bool          // whether the request reaches the homeserver, where the kind leaves that open
	Wait   time.Duration // how long what the kind delays is delayed
	Status int           // the HTTP status, where the kind leaves that open
	Part   float64       // how much of the body arrives, where that breaks
}

// Decide says what happens to a request of a process, which is the index-th that the process has sent, from 0 on. It is called concurrently.
type Decide func(index int, req *http.Request) Fault

// Plan decides by chance, and in the same way each time: the fault of a request depends on the plan, on the request's index, and on
// whether the request is a write or a sync.
type Plan struct {
	Seed  uint64
	Kinds []Kind
	Rate  float64 // how many of the requests that a kind can befall have a fault, from 0 to 1
	Pace  float64 // what every delay is multiplied with; 1 is as in life
}

// Decide implements [Decide].
func (p Plan) Decide(index int, req *http.Request) Fault {
	random := rand.New(rand.NewPCG(p.Seed, uint64(index)))
	chance, pick := random.Float64(), random.IntN(max(1, len(p.Kinds)))
	fault := Fault{Sent: random.IntN(2) == 0, Part: random.Float64()}
	spread, spared := random.Float64(), random.IntN(4)
	if len(p.Kinds) == 0 || chance >= p.Rate {
		return Fault{}
	}
	fault.Kind = p.Kinds[pick]
	switch {
	case fault.Kind.OfSync() && !IsSync(req), fault.Kind.OfWrites() && !IsWrite(req):
		return Fault{}
	case IsSync(req) && !fault.Kind.OfSync() && !ofProcess(fault.Kind) && spared > 0: // a follower goes on without
		return Fault{}
	}
	if fault.Kind == Cloudflare {
		fault.Status = 520 + random.IntN(11)
	}
	shortest, longest := span(fault.Kind)
	fault.Wait = time.Duration(p.Pace * float64(shortest+time.Duration(spread*spread*float64(longest-shortest))))
	return fault
}

// ofProcess tells whether the kind befalls more than one request.
func ofProcess(kind Kind) bool { return kind == Partitioned || kind == Suspended || kind.Kills() }

// span is how long, at least and at most, what the kind delays is delayed. Most are nearer to the shortest.
func span(kind Kind) (shortest, longest time.Duration) {
	switch kind {
	case Late:
		return 100 * time.Millisecond, 20 * time.Second
	case Hang:
		return time.Second, 60 * time.Second
	case SlowBody, Slow:
		return 200 * time.Millisecond, 15 * time.Second
	case LimitedHeader, LimitedBody, LimitedBoth:
		return 100 * time.Millisecond, 40 * time.Second
	case Partitioned:
		return 2 * time.Second, 30 * time.Second
	case Suspended:
		return 5 * time.Second, 40 * time.Second
	case Killed, KilledAfter:
		return 500 * time.Millisecond, 5 * time.Second
	}
	return 0, 0
}

// IsSync tells whether the request is a sync of the client's own, which goes on from another or waits for what comes. One that lists a room's
// state does neither.
func IsSync(req *http.Request) bool {
	query := req.URL.Query()
	return strings.HasSuffix(req.URL.Path, "/sync") && (query.Has("since") || query.Has("timeout") && query.Get("timeout") != "0")
}

// IsWrite tells whether the request changes something.
func IsWrite(req *http.Request) bool {
	return req.Method != http.MethodGet && req.Method != http.MethodHead
}
