package commit

import (
	"context"
	"time"
)

// Policy is how long and how often a writer waits, asks, and believes what it knows. The zero value of [Mode] has [DefaultPolicy].
//
// Writers of one dict rely on each other's OwnFresh, Skew and LeftOut: whoever changes these must change them for all. Everything else only
// decides what a write costs and how soon it fails.
type Policy struct {
	// Now and After are the clock. Deadlines of contexts go by package time all the same.
	Now   func() time.Time
	After func(time.Duration) <-chan time.Time

	// OwnFresh is how long a writer goes on from its own last write without a read, if it knows of nobody else's write since then, nor for as long
	// before. A look back for the rivals of anybody's event reaches OwnFresh farther back than the event, so that a longer one makes every such look back longer.
	OwnFresh time.Duration

	// AnyFresh is the same for what others have written. What is sent on top of something old hides others' writes until a merge puts them
	// back.
	AnyFresh time.Duration

	// Skew is how long a homeserver takes, at most, to store an event after it has given that its time and its depth, by which it lists it.
	// Look backs reach Skew farther back than they would have to otherwise.
	Skew time.Duration

	// LeftOut is how long before its sender's power is taken an event was sent, at most, that a homeserver leaves out of the state for that.
	LeftOut time.Duration

	// GiveUp is how long a write goes on whose callers have all given up. The homeserver may have carried it out, and then its rivals must be
	// found. Package roomkv assumes that the writer of an event that is older than GiveUp has merged its rivals or never will. Nothing enforces
	// that: a write whose callers wait goes on for as long as they do.
	GiveUp time.Duration

	// SyncWait is how long a sync may take to bring what was sent before a look back is made for it.
	SyncWait time.Duration

	// Lag is the pause after which an event is looked for that the homeserver has acknowledged and does not list. It doubles with each try.
	// Dendrite lists an event some milliseconds later. MaxLag bounds how long a writer that has seen such a lag waits before it looks at all.
	Lag    time.Duration
	MaxLag time.Duration

	// Tries is how often such an event is looked for: with 12 tries and a Lag of 4 ms for 16 seconds. From the try DeepFrom on the look back goes
	// on where it could have ended, because the event may be listed among older ones. From the try GivenFrom on an event suffices that the homeserver
	// has given as the current one: it never lists what was sent before the user came.
	Tries     int
	DeepFrom  int
	GivenFrom int

	// ListTries is how often lists are asked for again that lack the current event though they go back beyond it, or are empty. In a room whose
	// earlier events may not be seen they stay empty.
	ListTries int

	// CurrentTries is how often the current event is asked for while the sync brings another one during the request.
	CurrentTries int

	// PowerTries is how often a read is made that fails because it shares the requests of writes which the homeserver refuses.
	PowerTries int

	// How many events the first page of a look back asks for. An event repeats the whole dict: FewEvents where nobody else writes, SomeEvents where
	// others do, ManyEvents where even more is expected and for all further pages, and AllEvents, of any type, where an event was left out of the state.
	FewEvents  int
	SomeEvents int
	ManyEvents int
	AllEvents  int

	// PageBytes is about how many bytes a page may have. It asks for fewer events where the dict is large.
	PageBytes int

	// Pages is how many pages a look back reads, at most: others can talk without end.
	Pages int

	// SendTime is how long sending takes, until it was measured. Writers that find each other wait for multiples of what was
	// measured, but of no more than MaxSendTime: under load a homeserver is slow for all of them.
	SendTime    time.Duration
	MaxSendTime time.Duration

	// MaxWait is how long a writer waits, at most, for another to merge before it looks. Patience times that must be less than GiveUp, so that a write
	// whose callers have given up still merges.
	MaxWait time.Duration

	// Patience is how often a writer looks whether somebody else merges before it does so itself.
	Patience int

	// SettleAfter is the pause after which a write that failed, and may have been stored, looks for rivals once more in the background. It doubles,
	// until SettleFor has passed since. Then whoever reads or writes next has to.
	SettleAfter time.Duration
	SettleFor   time.Duration

	// RepairAfter is about how long after it was seen a fork is merged by anybody, half as long to half as long again. Its writers come first,
	// who need some requests for it.
	RepairAfter time.Duration

	// MaxFailed is over how many events in a row a homeserver may fail, until it is taken to be down and not to fail over what is in them.
	MaxFailed int

	// MaxHeads is how many heads one event merges: their names must leave room for the dict.
	MaxHeads int
}

// DefaultPolicy is a copy of the policy that writers have without another one.
func DefaultPolicy() *Policy {
	p := defaultPolicy
	return &p
}

var defaultPolicy = Policy{
	Now: time.Now, After: time.After,
	OwnFresh: time.Minute, AnyFresh: time.Second, Skew: 500 * time.Millisecond, LeftOut: 10 * time.Second, GiveUp: 10 * time.Second,
	SyncWait: 300 * time.Millisecond, Lag: 4 * time.Millisecond, MaxLag: 20 * time.Millisecond,
	Tries: 12, DeepFrom: 5, GivenFrom: 8, ListTries: 3, CurrentTries: 4, PowerTries: 5,
	FewEvents: 6, SomeEvents: 20, ManyEvents: 50, AllEvents: 500, PageBytes: 512 << 10, Pages: 20,
	SendTime: 40 * time.Millisecond, MaxSendTime: 500 * time.Millisecond, MaxWait: 2500 * time.Millisecond, Patience: 3,
	SettleAfter: time.Second, SettleFor: 45 * time.Second, RepairAfter: 1500 * time.Millisecond,
	MaxFailed: 16, MaxHeads: 40,
}

const (
	// MaxReplicas is how many replicas stay that nobody holds: with one state key one for each room, with a state event for each key one for
	// each key that was changed or, while following, read.
	MaxReplicas = 4096

	// maxWritten is how many writes [Written] remembers; the oldest are forgotten first.
	maxWritten = 4096
)

// since is how long ago a moment was.
func (p *Policy) since(moment time.Time) time.Duration { return p.Now().Sub(moment) }

// sleep fails with the context's error where that ends first.
func (p *Policy) sleep(ctx context.Context, wait time.Duration) error {
	select {
	case <-p.After(wait):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}
