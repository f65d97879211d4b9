package commit_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/merge"
)

// errTooLarge is for a content that no homeserver takes.
var errTooLarge = errors.New("too large")

// simRoom is the place of a dict as a process sees it. It implements [commit.Room].
type simRoom struct {
	process *process
	key     string // the state key
	asker   asker  // of what nobody in particular asks for
}

var _ commit.Room = (*simRoom)(nil)

func (r *simRoom) server() *simServer { return r.process.world.server }

// Current implements [commit.Room].
func (r *simRoom) Current(ctx context.Context) (current *merge.Event, err error) {
	err = r.do(ctx, "GET", r.key, func(*request) func() (string, error) {
		e := r.server().current(r.key)
		if e == nil {
			return func() (string, error) { return "404", nil }
		}
		read := r.server().event(e, false)
		return func() (string, error) {
			current = &read
			return r.process.world.said(read), nil
		}
	})
	return current, err
}

// Recent implements [commit.Room].
func (r *simRoom) Recent(ctx context.Context, from string, limit int) (page commit.Page, err error) {
	return r.list(ctx, strings.TrimSuffix(fmt.Sprintf("%s %d from %s", r.key, limit, from), " from "), limit, func() string { return from })
}

// Before implements [commit.Room].
func (r *simRoom) Before(ctx context.Context, event id.EventID, limit int) (page commit.Page, err error) {
	return r.list(ctx, fmt.Sprintf("%s %d before %s", r.key, limit, short(event)), limit, func() string {
		e := r.server().byID[event]
		return fmt.Sprintf("%d_%d", e.depth, e.seq+1)
	})
}

func (r *simRoom) list(ctx context.Context, what string, limit int, from func() string) (page commit.Page, err error) {
	err = r.do(ctx, "LIST", what, func(q *request) func() (string, error) {
		listed := r.server().page(r.key, from(), limit, r.process.world.rng(q.id+" shuffles"))
		return func() (string, error) {
			page = listed
			var ids []string
			for _, e := range listed.Events {
				ids = append(ids, short(e.ID))
			}
			if listed.Next != "" {
				ids = append(ids, "…")
			}
			return strings.Join(ids, " "), nil
		}
	})
	return page, err
}

// Latest implements [commit.Room].
func (r *simRoom) Latest(ctx context.Context) (events []merge.Event, err error) {
	const limit = 500
	page, err := r.list(ctx, r.key+" latest", limit, func() string { return "" })
	return page.Events, err
}

// Now implements [commit.Room].
func (r *simRoom) Now(context.Context) (int64, error) { return time.Now().UnixMilli(), nil }

// Powerless implements [commit.Room].
func (r *simRoom) Powerless(ctx context.Context, user id.UserID) (since int64, err error) {
	err = r.do(ctx, "GET", "levels", func(*request) func() (string, error) {
		power, from := r.server().current(powerKey), int64(0)
		if !power.allows(string(user)) {
			from = power.ts
		}
		return func() (string, error) {
			since = from
			return fmt.Sprint(since), nil
		}
	})
	return since, err
}

// Stored implements [commit.Room].
func (r *simRoom) Stored(ctx context.Context, event id.EventID) (place int64, known bool, err error) {
	err = r.do(ctx, "PLACE", short(event), func(*request) func() (string, error) {
		e := r.server().byID[event]
		return func() (string, error) {
			if e == nil {
				return "404", nil
			}
			place, known = int64(e.seq), true
			return fmt.Sprint(place), nil
		}
	})
	return place, known, err
}

// Hold implements [commit.Room].
func (*simRoom) Hold(context.Context) (release func(), err error) { return func() {}, nil }

// Send implements [commit.Room].
func (r *simRoom) Send(ctx context.Context, content json.RawMessage) (sent id.EventID, once bool, err error) {
	p := r.process
	err = r.do(ctx, "PUT", r.key, func(q *request) func() (string, error) {
		once = q.attempt == 0
		at := r.server().begin()
		e := &simEvent{
			id: simID(p.world.rng(q.id+" ID"), 0), kind: dictEvent, sender: p.account, key: r.key, content: content,
		}
		return func() (string, error) {
			e.id = id.EventID(fmt.Sprintf("%s%d", e.id[:4], len(r.server().log)))
			stored := r.server().put(e, at)
			if stored == nil {
				return "", errDenied
			}
			sent = stored.id
			read := r.server().event(stored, true)
			said := p.world.said(read)
			if stored != e {
				said += " (as it was)"
			} else {
				p.world.stored(stored)
			}
			return said, nil
		}
	})
	return sent, once, err
}

// Sealer implements [commit.Room].
func (*simRoom) Sealer(context.Context, bool) (commit.Sealer, error) { return nil, nil }

// Drop implements [commit.Room].
func (*simRoom) Drop(context.Context, []string) {}

// Fits implements [commit.Room].
func (r *simRoom) Fits(size int) error {
	if most := r.process.world.MaxSize; most > 0 && size > most {
		return errTooLarge
	}
	return nil
}

// TooLarge implements [commit.Room].
func (*simRoom) TooLarge(err error) bool { return errors.Is(err, errTooLarge) }

// RefusesContent implements [commit.Room].
func (r *simRoom) RefusesContent(err error) (refused, sure bool) { return r.TooLarge(err), true }

// NotSent implements [commit.Room].
func (*simRoom) NotSent(err error) bool { return errors.Is(err, errDenied) }

// Synced implements [commit.Room].
func (r *simRoom) Synced(context.Context) bool { return r.process.live() }

// Refused implements [commit.Room].
func (r *simRoom) Refused(ctx context.Context, event id.EventID) error {
	current, err := r.Current(ctx)
	if err != nil || current != nil && current.ID == event {
		return err
	}
	allowed := true
	err = r.do(ctx, "GET", "levels", func(*request) func() (string, error) {
		may := r.server().current(powerKey).allows(r.process.account)
		return func() (string, error) {
			allowed = may
			return fmt.Sprint(may), nil
		}
	})
	if err == nil && !allowed {
		err = errDenied
	}
	return err
}

// Behind implements [commit.Room].
func (r *simRoom) Behind(event id.EventID) { r.process.behind(event) }

// said is an event for people.
func (w *world) said(e merge.Event) string {
	if !w.traces {
		return ""
	}
	said := short(e.ID) + " " + text(e.Dict)
	if e.Marked {
		said += " ← " + strings.Join(shorts(e.Parents), " ")
		for _, event := range slices.Sorted(maps.Keys(e.Yields)) {
			said += fmt.Sprintf(" (not %s %v)", short(event), e.Yields[event])
		}
	}
	return said
}

// short is an event ID for people.
func short(event id.EventID) string { return strings.TrimPrefix(string(event), "$") }

func shorts(events []id.EventID) []string {
	all := make([]string, len(events))
	for i, event := range events {
		all[i] = short(event)
	}
	return all
}

// text is a dict for people.
func text(dict map[string]string) string {
	body, _ := json.Marshal(dict)
	return strings.NewReplacer(`\"`, "", `"`, "").Replace(string(body))
}
