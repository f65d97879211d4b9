package roomkv

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/wire"
)

// accountPrefix begins what stands for an event, where there is none because it is in account data.
const accountPrefix = "account_data:"

func eventOf(content wire.Account) id.EventID { return id.EventID(accountPrefix + content.ID) }

func revisionOf(over wire.Over) id.EventID { return id.EventID(fmt.Sprint(accountPrefix, over.Time)) }

func isAccount(event id.EventID) bool { return strings.HasPrefix(event.String(), accountPrefix) }

// phase is where the memory of a room is written.
type phase int

const (
	unknown phase = iota
	inState
	falling // on its way from the state to account data; nobody else begins to write
	inAccount
)

const (
	// maxRecent is how many events are remembered that were sent lately, maxTaken how many that count, and maxOwn how many contents
	// that were saved.
	maxRecent = 256
	maxTaken  = 4096
	maxOwn    = 64
)

// account is what this process knows of a room's memory in a user's account data, and of the user's power there. All stores
// share it: each write replaces the whole. Its methods are safe for concurrent use.
type account struct {
	power commit.Dict // the lock of who finds out where the memory is written, or changes that
	dict  commit.Dict // the lock of who writes account data

	mu       sync.Mutex
	phase    phase
	asked    time.Time // when the power was last asked for
	moved    time.Time // when the memory was last moved into the state
	moves    int       // how often somebody has tried to move it there
	known    bool      // whether content is what the homeserver has
	content  wire.Account
	version  int                  // of the content
	own      []string             // the IDs of the last contents that were saved
	last     int64                // the latest time in any content
	placed   map[string]wire.Over // what of the content was moved into the state, and counted there since
	recent   map[string]recent
	edits    map[string]*unsettled   // by state key
	taken    []id.EventID            // the last events whose changes count, whatever becomes of their edits
	merged   map[string][]id.EventID // by state key, the events that account data has merged since the last move
	leftOut  map[string]bool         // the state keys for which the state has lacked an event, since the last move
	sending  int                     // how many state events are on their way
	arrived  chan struct{}           // closed when none is any more, nil where nobody waits for that
	watchers map[*watcher]bool
}

// recent is the last event that was sent for a state key.
type recent struct {
	event   id.EventID
	content []byte
	at      time.Time
}

// unsettled is a key of the per-key layout with changes that depend on what was there before, and that are being made, or have failed
// and can have been made all the same.
type unsettled struct {
	name   string
	edits  int          // how many
	events []id.EventID // what was sent meanwhile, the last of it
	failed time.Time    // when the last edit ended that failed
}

// accounts has an account for each memory for which somebody has asked.
var accounts = struct {
	mu  sync.Mutex
	all map[commit.Dict]*account
}{all: map[commit.Dict]*account{}}

// accountOf is what is known for the room. Who uses two homeservers has two user IDs.
func accountOf(r roomState) *account {
	at := commit.Dict{Room: r.ID, Type: r.accountType(), StateKey: "account data of " + r.Client.UserID.String()}
	accounts.mu.Lock()
	defer accounts.mu.Unlock()
	known := accounts.all[at]
	if known == nil {
		power := at
		power.StateKey = "power of " + r.Client.UserID.String()
		known = &account{dict: at, power: power}
		accounts.all[at] = known
	}
	return known
}

// accountType is the type of the account data: two stores whose state is not the same do not share it.
func (r roomState) accountType() string {
	if stateKey := r.core.Layout.StateKey(""); r.core.Layout.Atomic() && stateKey != "" {
		return r.Type.Type + "." + stateKey
	}
	return r.Type.Type
}

// current is the content as it is known.
func (a *account) current() wire.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.content
}

func (a *account) isKnown() bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.known
}

// set notes what the homeserver has.
func (a *account) set(content wire.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.content, a.known = content, true
	a.version++
	a.own = append(a.own[max(0, len(a.own)-maxOwn):], content.ID)
	for _, over := range content.Over {
		a.last = max(a.last, over.Time)
	}
	for w := range a.watchers {
		w.push(w.room, news{account: &version{content, a.version}})
	}
}

// forget makes the content unknown.
func (a *account) forget() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.known = false
}

// heard is for a content that the sync brought. One that was not known before makes the homeserver be asked: what the sync brings can
// be older than what was saved since.
func (a *account) heard(content wire.Account) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.known && !slices.Contains(a.own, content.ID) {
		a.known = false
	}
}

// stamp gives times to what is new in the content.
func (a *account) stamp(content wire.Account) wire.Account {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := max(time.Now().UnixMilli(), a.last+1)
	for name, over := range content.Over {
		old, known := a.content.Over[name]
		stored, there := content.Names[name]
		before, was := a.content.Names[name]
		if over.Time = old.Time; !known || old.Base != over.Base || stored != before || there != was {
			over.Time = now
		}
		content.Over[name] = over
	}
	return wire.AccountOf(content.Names, content.Over)
}

// version is a content and its place among others.
type version struct {
	wire.Account
	number int
}

// watch has the watcher news of what comes after the version that is returned.
func (a *account) watch(w *watcher) version {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.watchers == nil {
		a.watchers = map[*watcher]bool{}
	}
	a.watchers[w] = true
	return version{a.content, a.version}
}

func (a *account) unwatch(w *watcher) {
	a.mu.Lock()
	defer a.mu.Unlock()
	delete(a.watchers, w)
}

// where tells whether reads must look at account data, and whether writes go there. It is not known where the homeserver must
// be asked first, or something be moved.
func (a *account) where(writing bool) (away, known bool) {
	a.mu.Lock()
	defer a.mu.Unlock()
	full := a.content.ID != ""
	switch {
	case !a.known || a.phase == unknown || a.phase == falling:
		return false, false
	case a.phase == inAccount:
		return true, !writing || time.Since(a.asked) < askAgain
	case writing:
		return false, !full || time.Since(a.moved) < askAgain
	default:
		return full, true
	}
}

// now is the phase.
func (a *account) now() phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.phase
}

func (a *account) enter(p phase) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.phase, a.asked = p, time.Now(); p == inAccount {
		a.placed = nil
	}
}

// enterMoved is for when the state has all that account data has.
func (a *account) enterMoved() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.phase, a.moved, a.placed = inState, time.Now(), a.content.Over
	a.leftOut, a.merged = nil, nil
	a.moves++
}

// failedMove is for when the state can have some of what account data has.
func (a *account) failedMove() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.moves++
}

// isPlaced tells whether what the content has under the name was moved into the state before, and counted there since.
func (a *account) isPlaced(content wire.Account, name string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	placed, ok := a.placed[name]
	return ok && placed == content.Over[name]
}

// count is how often somebody has tried to move the memory.
func (a *account) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.moves
}

// askAnew is for when the power may be another one. It gives the phase.
func (a *account) askAnew() phase {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked = time.Time{}
	return a.phase
}

// send notes that a state event is on its way until done is called. Nobody writes to the state while the memory is in account data or
// goes there, but for who moves a memory: what is there would no longer count once the state beneath it has changed.
func (a *account) send(moving bool) (done func(), err error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if !moving && (a.phase == falling || a.phase == inAccount) {
		return nil, errAgain
	}
	a.sending++
	return func() {
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.sending--; a.sending == 0 && a.arrived != nil {
			close(a.arrived)
			a.arrived = nil
		}
	}, nil
}

// arrive waits until no state event is on its way.
func (a *account) arrive(ctx context.Context) error {
	a.mu.Lock()
	if a.sending > 0 && a.arrived == nil {
		a.arrived = make(chan struct{})
	}
	arrived := a.arrived
	a.mu.Unlock()
	if arrived == nil {
		return ctx.Err()
	}
	select {
	case <-arrived:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// sent notes an event; see [overlay.rescue].
func (a *account) sent(stateKey string, event id.EventID, content []byte) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recent == nil {
		a.recent = map[string]recent{}
	}
	if len(a.recent) >= maxRecent {
		a.forgetBefore(time.Now().Add(-time.Second))
	}
	a.recent[stateKey] = recent{event, content, time.Now()}
	if m := a.edits[stateKey]; m != nil {
		m.events = append(m.events[max(0, len(m.events)-maxRecent):], event)
	}
}

// forgetBefore forgets what was sent before that time, but for what belongs to edits that have not ended.
func (a *account) forgetBefore(then time.Time) {
	maps.DeleteFunc(a.edits, func(_ string, u *unsettled) bool { return u.edits == 0 && u.failed.Before(then) })
	maps.DeleteFunc(a.recent, func(stateKey string, r recent) bool { return a.edits[stateKey] == nil && r.at.Before(then) })
}

// begin notes that an edit of the name has begun, until done is called.
func (a *account) begin(stateKey, name string) (done func(err error)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.edits == nil {
		a.edits = map[string]*unsettled{}
	}
	u := a.edits[stateKey]
	if u == nil {
		if len(a.edits) >= maxRecent {
			a.forgetBefore(time.Now().Add(-time.Second))
		}
		u = &unsettled{name: name}
		a.edits[stateKey] = u
	}
	u.edits++
	return func(err error) {
		a.mu.Lock()
		defer a.mu.Unlock()
		u.edits--
		if err != nil { // what was sent for it can still be on its way
			u.failed = time.Now()
		} else if u.edits == 0 && u.failed.IsZero() {
			delete(a.edits, stateKey)
		}
	}
}

func (a *account) unsettled(stateKey string) unsettled {
	a.mu.Lock()
	defer a.mu.Unlock()
	u := a.edits[stateKey]
	if u == nil {
		return unsettled{}
	}
	return unsettled{u.name, u.edits, slices.Clone(u.events), u.failed}
}

// lately are the events that were sent lately, each by its state key.
func (a *account) lately() map[string]recent {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.forgetBefore(time.Now().Add(-askAgain))
	return maps.Clone(a.recent)
}

// rescued notes that the event's content is where it counts.
func (a *account) rescued(stateKey string, event id.EventID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.recent[stateKey].event == event {
		delete(a.recent, stateKey)
	}
}

// has notes that account data has what these events say.
func (a *account) has(stateKey string, events []id.EventID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.merged == nil {
		a.merged = map[string][]id.EventID{}
	}
	a.merged[stateKey] = events
}

// hasMerged tells whether account data has what the event says.
func (a *account) hasMerged(stateKey string, event id.EventID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.Contains(a.merged[stateKey], event)
}

// lacks notes that the state does not have what was sent for the state key.
func (a *account) lacks(stateKey string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.leftOut == nil {
		a.leftOut = map[string]bool{}
	}
	a.leftOut[stateKey] = true
}

func (a *account) isLeftOut(stateKey string) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.leftOut[stateKey]
}

// take notes that what the events have changed counts where the memory is.
func (a *account) take(events ...id.EventID) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.taken = append(a.taken[max(0, len(a.taken)-maxTaken):], events...)
}

func (a *account) hasTaken(events []id.EventID) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	return slices.ContainsFunc(events, func(event id.EventID) bool { return slices.Contains(a.taken, event) })
}

// loadAccount asks for account data.
func (r roomState) loadAccount(ctx context.Context) (wire.Account, error) {
	body, err := r.Ask(ctx, matrix.MaxEvent, r.accountURL())
	if errors.Is(err, mautrix.MNotFound) {
		return wire.Account{}, nil
	} else if err != nil {
		return wire.Account{}, r.Explain(ctx, "read account data", err)
	}
	content, err := wire.ParseAccount(body)
	if err != nil {
		return wire.Account{}, fault.Of(ErrCorrupt, err, "the account data %s of %s for %s: %v", r.accountType(), r.Client.UserID, r.ID, err)
	}
	return content, nil
}

// saveAccount replaces account data. An empty content is as good as none, for Matrix cannot delete it.
func (o *overlay) saveAccount(ctx context.Context, content wire.Account) error {
	text := content.Content()
	// A captive portal answers too, but no JSON.
	err := matrix.Get(ctx, o.Client, matrix.Request{Method: http.MethodPut, URL: o.accountURL(), JSON: text}, &struct{}{})
	if err == nil {
		o.account.set(content)
		return nil
	}
	o.account.forget() // the homeserver can have it all the same
	if matrix.IsStatus(err, http.StatusRequestEntityTooLarge) {
		return o.accountTooLarge(len(text), err)
	}
	return o.Explain(ctx, "write account data", err)
}

func (r roomState) accountURL() string {
	return r.Client.BuildClientURL("v3", "user", r.Client.UserID, "rooms", r.ID, "account_data", r.accountType())
}

func (r roomState) accountTooLarge(size int, cause error) error {
	return fault.Of(ErrTooLarge, cause, "the account data for %s would have %d bytes, and what must fit into a room's state some day may have %d",
		r.ID, size, wire.MaxEvent)
}
