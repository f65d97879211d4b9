package faults

// Kind is a kind of fault. Its text is its name in a test's output.
type Kind string

// The kinds of faults. A request here is an attempt: mautrix sends a request that failed again, and each attempt is decided on by itself.
const (
	None Kind = "" // the request goes through

	// Of the connection.
	Drop      Kind = "drop"      // the request is never sent, and the client is told so at once
	Hang      Kind = "hang"      // the request is never sent, and the client is told nothing for a while
	Lose      Kind = "lose"      // the request is sent, and the answer is lost with the connection
	Twice     Kind = "twice"     // a write is delivered twice, both at once
	Late      Kind = "late"      // the client is told 504 at once, and a write is delivered later
	Truncated Kind = "truncated" // the body ends too soon, with the status and the headers of the whole
	Reset     Kind = "reset"     // the connection breaks inside the body
	SlowBody  Kind = "slowbody"  // the body comes a few bytes at a time
	Slow      Kind = "slow"      // the answer is slow, or the request is slow to arrive

	// Of the homeserver, or a proxy before it. Half of the requests that fail so were sent.
	Limited       Kind = "429"           // 429 with nothing that says for how long
	LimitedHeader Kind = "429 header"    // 429 with a Retry-After header
	LimitedBody   Kind = "429 body"      // 429 with retry_after_ms in the body, as Dendrite's
	LimitedBoth   Kind = "429 both"      // 429 with both, as Synapse's
	Timeout       Kind = "408"           // Request Timeout
	Internal      Kind = "500"           // Internal Server Error, with Matrix's M_UNKNOWN
	BadGateway    Kind = "502"           // Bad Gateway
	Unavailable   Kind = "503"           // Service Unavailable
	GatewayLate   Kind = "504"           // Gateway Timeout
	Cloudflare    Kind = "520 to 530"    // what a large content delivery network says
	HTML          Kind = "html with 200" // a page of HTML with status 200, as of a captive portal
	HTMLGateway   Kind = "html with 502" // a page of HTML with status 502, as of a proxy

	// Of the sync alone. One that leaves events out and does not say so is not among them: the specification says that it is limited then, and
	// nobody who follows could tell that there is a gap.
	SyncTwice   Kind = "sync twice"   // the sync is asked for twice, and the second answer counts
	SyncRepeats Kind = "sync repeats" // the last answer comes again
	SyncStale   Kind = "sync stale"   // an answer from before the last comes again, so that the sync goes on from there
	SyncLimited Kind = "sync limited" // the timelines are cut, and the answer says so

	// Of a whole process: all its requests.
	Partitioned Kind = "partitioned" // no request gets through for a while, in either direction
	Suspended   Kind = "suspended"   // no request goes on for a while, as of a process that was stopped

	// Of the homeserver as a whole.
	Killed      Kind = "killed"       // the homeserver is killed before a write reaches it or while it is at that, and started again after a while
	KilledAfter Kind = "killed after" // the homeserver is killed when it has stored a write and has not answered yet, and started again
)

// Kinds are all kinds but None.
var Kinds = []Kind{
	Drop, Hang, Lose, Twice, Late, Truncated, Reset, SlowBody, Slow,
	Limited, LimitedHeader, LimitedBody, LimitedBoth, Timeout, Internal, BadGateway, Unavailable, GatewayLate, Cloudflare, HTML, HTMLGateway,
	SyncTwice, SyncRepeats, SyncStale, SyncLimited,
	Partitioned, Suspended, Killed, KilledAfter,
}

// OfSync tells whether the kind befalls syncs alone.
func (k Kind) OfSync() bool {
	switch k {
	case SyncTwice, SyncRepeats, SyncStale, SyncLimited:
		return true
	}
	return false
}

// OfWrites tells whether the kind befalls writes alone.
func (k Kind) OfWrites() bool { return k == Twice || k == Late || k.Kills() }

// Kills tells whether the kind kills the homeserver.
func (k Kind) Kills() bool { return k == Killed || k == KilledAfter }
