package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) restoreCommand() *cobra.Command {
	var at string
	var dryRun, yes bool
	cmd := &cobra.Command{
		Use:     "restore --at TIME|REVISION",
		Short:   "Make the memory what it was",
		GroupID: groupHistory,
		Long: `Make the whole memory what it was at a time, or with a revision, which history and get --json show.

First it shows what would change: "+" comes back, "-" goes, "~" changes. Then it asks, on a terminal; elsewhere it needs --yes.
What is there now stays in the history, so that a restore can be undone by another one.`,
		Example: `  roomkv restore --at 2h --dry-run              # two hours ago
  roomkv restore --at '2026-11-21 14:30'        # local time; also 14:30, 2026-11-21, and RFC 3339
  roomkv restore --at '$event' --yes            # a revision`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			moment, err := momentOf(at, time.Now())
			if err != nil {
				return err
			}
			if !dryRun && !yes && !attended() {
				return usagef("nobody is there to be asked: give --yes, or --dry-run to see what would change")
			}
			ctx := cmd.Context()
			store, err := a.open(ctx, &a.memory)
			if err != nil {
				return err
			}
			then, err := store.At(ctx, moment)
			if err != nil {
				return err
			}
			differences, err := compare(ctx, store.Store, then)
			if err != nil {
				return err
			}
			if err := a.printDifferences(cmd.OutOrStdout(), differences); err != nil {
				return err
			}
			if len(differences) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "The memory is as it was then.")
				return nil
			}
			if dryRun {
				return nil
			}
			if sure, err := sure(cmd, yes, fmt.Sprintf("Change %s?", count(len(differences), "key"))); err != nil || !sure {
				return err
			}
			changed, err := store.Restore(ctx, then)
			fmt.Fprintf(cmd.ErrOrStderr(), "Changed %s.\n", count(changed, "key"))
			return err
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "the `MOMENT`: a time, how long ago (90s, 15m, 2h, 3d), or a revision ($…)")
	cmd.Flags().BoolVarP(&dryRun, "dry-run", "n", false, "show what would change, and change nothing")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// layouts of a time as people type it.
var layouts = []string{time.RFC3339, time.DateTime, "2006-01-02 15:04", "2006-01-02T15:04:05", "2006-01-02T15:04", time.DateOnly}

// clocks are times of today.
var clocks = []string{time.TimeOnly, "15:04"}

// momentOf is the moment that was typed, where now is.
func momentOf(at string, now time.Time) (roomkv.Moment, error) {
	var none roomkv.Moment
	switch {
	case at == "":
		return none, usagef("when? Give --at")
	case strings.HasPrefix(at, "$"):
		return roomkv.AtRevision(roomkv.Revision(at)), nil
	}
	then, err := timeAt(at, now)
	switch {
	case err != nil:
		return none, err
	case then.After(now):
		return none, usagef("%s is yet to come", then.Format(time.DateTime))
	}
	return roomkv.AtTime(then), nil
}

func timeAt(at string, now time.Time) (time.Time, error) {
	var days int
	if n, err := fmt.Sscanf(at, "%dd", &days); n == 1 && err == nil && at == fmt.Sprintf("%dd", days) {
		return now.AddDate(0, 0, -days), nil
	}
	if d, err := time.ParseDuration(at); err == nil {
		return now.Add(-d.Abs()), nil
	}
	for _, layout := range layouts {
		if t, err := time.ParseInLocation(layout, at, now.Location()); err == nil {
			return t, nil
		}
	}
	for _, layout := range clocks {
		if t, err := time.ParseInLocation(layout, at, now.Location()); err == nil {
			return time.Date(now.Year(), now.Month(), now.Day(), t.Hour(), t.Minute(), t.Second(), 0, now.Location()), nil
		}
	}
	return time.Time{}, usagef("%q is neither a time (2026-11-21 14:30) nor a while ago (2h) nor a revision ($…)", at)
}

// difference is what a restore does to a key.
type difference struct {
	Key   string `json:"key"`
	Now   side   `json:"now"`
	Then  side   `json:"then"`
	Error string `json:"error,omitempty"` // why a value cannot be read
}

// side is a value now or then. It is null in JSON where there is none, and where it cannot be read.
type side struct {
	value json.RawMessage
	there bool
	err   error
}

func sideOf(entry roomkv.Entry, err error) side {
	var spelled bytes.Buffer
	if err == nil {
		err = json.Compact(&spelled, entry.Value)
	}
	return side{spelled.Bytes(), true, err}
}

func (s side) MarshalJSON() ([]byte, error) {
	if len(s.value) == 0 {
		return []byte("null"), nil
	}
	return s.value, nil
}

func (s side) String() string {
	if s.err != nil {
		return "(unreadable)"
	}
	return brief(s.value)
}

// compare finds what a restore would change, in the order of the keys. What was redacted since cannot come back, and two values
// that cannot be read cannot be compared.
func compare(ctx context.Context, now *roomkv.Store, then *roomkv.Snapshot) ([]difference, error) {
	differences := map[string]*difference{}
	at := func(key string) *difference {
		if differences[key] == nil {
			differences[key] = &difference{Key: key}
		}
		return differences[key]
	}
	for entry, err := range then.All(ctx) {
		if err != nil && entry.Key == "" {
			return nil, err
		}
		at(entry.Key).Then = sideOf(entry, err)
	}
	for entry, err := range now.All(ctx) {
		if err != nil && entry.Key == "" {
			return nil, err
		}
		at(entry.Key).Now = sideOf(entry, err)
	}
	var found []difference
	for _, key := range slices.Sorted(maps.Keys(differences)) {
		d := differences[key]
		if errors.Is(d.Then.err, roomkv.ErrRedacted) || d.Now.there && d.Then.there && d.Now.err == nil && bytes.Equal(d.Now.value, d.Then.value) {
			continue
		}
		for _, err := range []error{d.Then.err, d.Now.err} {
			if err != nil {
				d.Error = err.Error()
			}
		}
		found = append(found, *d)
	}
	return found, nil
}

func (a *app) printDifferences(out io.Writer, differences []difference) error {
	style, lines := styleFor(out), json.NewEncoder(out)
	for _, d := range differences {
		var err error
		switch key := style.bold(oneLine(d.Key)); {
		case a.json:
			err = lines.Encode(d)
		case !d.Now.there:
			_, err = fmt.Fprintf(out, "%s %s: %s\n", style.green("+"), key, d.Then)
		case !d.Then.there:
			_, err = fmt.Fprintf(out, "%s %s: %s\n", style.red("-"), key, d.Now)
		default:
			_, err = fmt.Fprintf(out, "~ %s: %s → %s\n", key, style.red(d.Now.String()), style.green(d.Then.String()))
		}
		if err != nil {
			return err
		}
	}
	return nil
}
