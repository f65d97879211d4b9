package fallback

import (
	"context"
	"encoding/json"
	"errors"
	"maps"
	"net/http"
	"sync"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fault"
	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/merge"
	"github.com/roomkv/roomkv/internal/replica"
	"github.com/roomkv/roomkv/internal/wire"
)

// accountDict is a room's account data as the stores of one [New] write it: one dict, whatever the layout. It implements [commit.Room].
// There is no history, and nobody else writes while it is held.
type accountDict struct {
	memory.Room
	account *account
	known   *replica.Dict // forgotten whenever somebody begins to write
	writer  *commit.Writer

	mu    sync.Mutex
	below stateView // what who writes has read of the state
}

func newAccountDict(r memory.Room) *accountDict {
	d := &accountDict{Room: r, known: new(replica.Dict)}
	at := commit.Address{Room: r.ID, Type: TypeOf(d.Room), StateKey: "account data of " + r.Client.UserID.String()} // which names the homeserver
	d.account = accountOf(at)
	d.writer = commit.NewWriter(d.known, d, commit.Mode{Single: true, Drop: r.RedactOld})
	return d
}

// TypeOf is the type of the account data: two stores whose state is not the same do not share it.
func TypeOf(r memory.Room) string { return r.Type.Type + r.Layout.Account() }

func (d *accountDict) url() string { return matrix.AccountDataURL(d.Client, d.ID, TypeOf(d.Room)) }

// load asks for the content. The answer that it is empty counts when it comes twice, for homeservers have given it where there was something.
func (d *accountDict) load(ctx context.Context) (content wire.Account, err error) {
	for range 2 {
		body, err := d.Ask(ctx, matrix.MaxEvent, d.url())
		if errors.Is(err, mautrix.MNotFound) {
			return wire.Account{}, nil
		} else if err != nil {
			return wire.Account{}, d.Explain(ctx, "read account data", err)
		}
		content, err = wire.ParseAccount(body)
		if err != nil {
			return wire.Account{}, fault.Of(fault.ErrCorrupt, err, "the account data %s of %s for %s: %v", TypeOf(d.Room), d.Client.UserID, d.ID, err)
		}
		if content.ID != "" {
			break
		}
	}
	return content, nil
}

// learn gives the content, and asks for it where it is not known.
func (d *accountDict) learn(ctx context.Context) (wire.Account, error) {
	if content, known := d.account.current(); known {
		return content, nil
	}
	unlock, err := commit.Lock(ctx, d.account.dict)
	if err != nil {
		return wire.Account{}, err
	}
	defer unlock()
	return d.learnLocked(ctx)
}

// learnLocked is learn for who has the lock.
func (d *accountDict) learnLocked(ctx context.Context) (wire.Account, error) {
	content, known := d.account.current()
	if known {
		return content, nil
	}
	content, err := d.load(ctx)
	if err == nil {
		d.account.set(content)
		d.account.tell()
	}
	return content, err
}

// save replaces the content, of which the caller has yet to note that. An empty one is as good as none, for Matrix cannot delete it.
func (d *accountDict) save(ctx context.Context, content wire.Account) error {
	text := content.Content()
	// A captive portal answers too, but no JSON.
	err := matrix.Get(ctx, d.Client, matrix.Request{Method: http.MethodPut, URL: d.url(), JSON: text}, &struct{}{})
	if err == nil {
		return nil
	}
	d.account.forget() // the homeserver can have it all the same
	if matrix.IsStatus(err, http.StatusRequestEntityTooLarge) {
		return d.tooLarge(len(text), err)
	}
	return d.Explain(ctx, "write account data", err)
}

func (d *accountDict) tooLarge(size int, cause error) error {
	return fault.Of(fault.ErrTooLarge, cause, "the account data for %s would have %d bytes, and what must fit into a room's state some day may have %d",
		d.ID, size, wire.MaxEvent)
}

// beneath is what the state has under the names, for who holds the dict.
func (d *accountDict) beneath(ctx context.Context, names []string) (stateView, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	err := d.below.read(ctx, names, true)
	view := d.below
	view.dicts = maps.Clone(view.dicts) // whose caller may have given up while others go on
	return view, err
}

// Hold implements [commit.Room]. It fails with errAgain where the memory is no longer written here.
func (d *accountDict) Hold(ctx context.Context) (release func(), err error) {
	leave, err := d.account.gate.alone(ctx)
	if err != nil {
		return nil, err
	}
	unlock, err := commit.Lock(ctx, d.account.dict)
	if err != nil {
		leave()
		return nil, err
	}
	release = func() {
		unlock()
		leave()
	}
	if to, _ := d.account.destination(d.Policy.AnswerFor); to != toAccount {
		err = errAgain
	} else {
		_, err = d.learnLocked(ctx)
	}
	if err != nil {
		release()
		return nil, err
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.known.Forget()
	d.below = newStateView(d.Room)
	return release, nil
}

// Current implements [commit.Room].
func (d *accountDict) Current(context.Context) (*merge.Event, error) {
	content, _ := d.account.current()
	if content.ID == "" {
		return nil, nil
	}
	return &merge.Event{ID: eventOf(content), Sender: d.Client.UserID, Dict: content.All()}, nil
}

// Send implements [commit.Room].
func (d *accountDict) Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error) {
	read, err := wire.ParseAccount(content)
	if err != nil {
		return "", false, fault.Of(fault.ErrCorrupt, err, "the account data for %s", d.ID)
	}
	stamped := d.account.stamp(read)
	if err = d.save(ctx, stamped); err == nil {
		d.account.set(stamped)
		d.account.tell()
	}
	return eventOf(stamped), true, err
}

// Sealer implements [commit.Room].
func (d *accountDict) Sealer(ctx context.Context, again bool) (commit.Sealer, error) {
	return d.Room.Sealer(ctx, again)
}

// Drop implements [commit.Room].
func (d *accountDict) Drop(ctx context.Context, stored []string) { d.DropOld(ctx, stored) }

// Fits implements [commit.Room].
func (d *accountDict) Fits(size int) error {
	if size > wire.MaxEvent {
		return d.tooLarge(size, nil)
	}
	return nil
}

// TooLarge implements [commit.Room].
func (*accountDict) TooLarge(err error) bool { return errors.Is(err, fault.ErrTooLarge) }

// RefusesContent implements [commit.Room].
func (*accountDict) RefusesContent(err error) (refused, sure bool) { return matrix.RefusesContent(err) }

// NotSent implements [commit.Room], as do those after it: there are no rivals that a look back could find.
func (*accountDict) NotSent(error) bool { return true }

func (*accountDict) Recent(context.Context, string, int) (commit.Page, error) {
	return commit.Page{}, nil
}

func (*accountDict) Before(context.Context, id.EventID, int) (commit.Page, error) {
	return commit.Page{}, nil
}

func (*accountDict) Latest(context.Context) ([]merge.Event, error) { return nil, nil }

func (*accountDict) Powerless(context.Context, id.UserID) (since int64, err error) { return 0, nil }

func (*accountDict) Stored(context.Context, id.EventID) (place int64, known bool, err error) {
	return 0, false, nil
}

func (*accountDict) Synced(context.Context) bool { return false }

func (*accountDict) Behind(id.EventID) {}

func (*accountDict) Refused(context.Context, id.EventID) error { return nil }
