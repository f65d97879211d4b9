package load

import (
	"context"
	"encoding/json"
	"fmt"
	"net/url"
	"slices"
	"sort"
	"strings"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

func (r *Run) stateType() event.Type { return event.Type{Type: r.Type, Class: event.StateEventType} }

// state is what the room's state has, read without roomkv.
type state struct {
	events map[string]id.EventID      // by state key
	values map[string]json.RawMessage // by key
}

func (r *Run) state(ctx context.Context) (state, error) {
	all, err := r.owner.State(ctx, r.Room)
	s := state{map[string]id.EventID{}, map[string]json.RawMessage{}}
	for stateKey, evt := range all[r.stateType()] {
		s.events[stateKey] = evt.ID
		_ = json.Unmarshal(evt.Content.VeryRaw, &s.values)
	}
	return s, err
}

// compare holds what a reader has read against the state.
func (r *Run) compare(s state) (found []Violation) {
	for key, read := range r.Final {
		var tokens []string
		text, inState := s.values[key]
		_ = json.Unmarshal(text, &tokens)
		if stateOf(tokens, inState) != stateOf(read.tokens, read.found) {
			found = append(found, violation(Unequal, key, "a reader reads %s, and the room's state has %s", list(read.tokens, read.found), list(tokens, inState)))
		}
	}
	return found
}

// Report describes the violations, and of each key concerned what was done with it: the calls, the faults and the room's events.
func (r *Run) Report(ctx context.Context) string {
	var text strings.Builder
	fmt.Fprintf(&text, "%s, %s in %s\n", r.Config, r.Type, r.Room)
	told := map[string]bool{}
	all := slices.Concat(r.Violations, r.Excused)
	for _, violation := range all {
		fmt.Fprintf(&text, "%s: %s: %s\n", violation.Kind, violation.Key, violation.Text)
	}
	for _, violation := range all {
		if violation.Key != "" && !told[violation.Key] && len(told) < 2 {
			told[violation.Key] = true
			text.WriteString(r.history(ctx, violation.Key))
		}
	}
	return text.String()
}

// history is what was done with a key, in order.
func (r *Run) history(ctx context.Context, key string) string {
	type entry struct {
		at   time.Time
		text string
	}
	var entries []entry
	for _, call := range r.of(key) {
		entries = append(entries, entry{call.Start, call.line(r.Began)})
	}
	for _, kill := range r.Kills {
		entries = append(entries, entry{kill, fmt.Sprintf("%8.3f            the homeserver is killed", kill.Sub(r.Began).Seconds())})
	}
	for process, injected := range r.Injected {
		for _, fault := range injected {
			if r.Config.PerKey && strings.Contains(fault.Path, "/state/"+r.Type) && !strings.HasSuffix(fault.Path, url.PathEscape(key)) {
				continue // another key's
			}
			entries = append(entries, entry{fault.At, fmt.Sprintf("%8.3f            process %d  fault %s", fault.At.Sub(r.Began).Seconds(), process, fault)})
		}
	}
	sort.SliceStable(entries, func(i, j int) bool { return entries[i].at.Before(entries[j].at) })
	var text strings.Builder
	fmt.Fprintf(&text, "history of %s; times in seconds:\n", key)
	for _, entry := range entries {
		text.WriteString("  " + entry.text + "\n")
	}
	fmt.Fprintf(&text, "events of %s, the newest first:\n", key)
	for _, line := range r.events(ctx, key) {
		text.WriteString("  " + line + "\n")
	}
	return text.String()
}

// maxPages bounds how much of a room is told.
const maxPages = 10

// events describes the state events that have the key, as the homeserver lists them.
func (r *Run) events(ctx context.Context, key string) (lines []string) {
	ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
	defer cancel()
	from := ""
	for range maxPages {
		page, err := r.owner.Messages(ctx, r.Room, from, "", mautrix.DirectionBackward, &mautrix.FilterPart{Types: []event.Type{r.stateType()}}, 100)
		if err != nil {
			return append(lines, err.Error())
		}
		for _, evt := range page.Chunk {
			var content map[string]json.RawMessage
			if evt.Type.Type != r.Type || evt.StateKey == nil || json.Unmarshal(evt.Content.VeryRaw, &content) != nil {
				continue
			}
			value, there := content[key]
			if !there && (r.Config.PerKey || len(content) > 0 && *evt.StateKey != "") {
				continue
			}
			var marks struct {
				Events []id.EventID `json:"events"`
			}
			_ = json.Unmarshal(content["roomkv.parents"], &marks)
			var parents []string
			for _, parent := range marks.Events {
				parents = append(parents, short(parent))
			}
			lines = append(lines, fmt.Sprintf("%8.3f  %s by %.12s, replaces %s, parents %v: %s", time.UnixMilli(evt.Timestamp).Sub(r.Began).Seconds(),
				short(evt.ID), evt.Sender, short(evt.Unsigned.ReplacesState), parents, value))
		}
		if from = page.End; from == "" || len(page.Chunk) == 0 {
			break
		}
	}
	return lines
}

func short(event id.EventID) string { return fmt.Sprintf("%.7s", event) }
