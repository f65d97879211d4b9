package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) historyCommand() *cobra.Command {
	var limit int
	cmd := &cobra.Command{
		Use:     "history KEY",
		Short:   "Show what a key's value was",
		GroupID: groupHistory,
		Long: `Show every value that a key had, newest first, with who wrote it and when, as far back as the homeserver goes.

The REVISION of each can be given to restore --at. Values that were redacted are gone. Where there never was such a key
the exit code is 3.`,
		Example: `  roomkv history greeting
  roomkv history greeting --limit 3
  roomkv history greeting --json | jq -r 'select(.sender == "@alice:example.org") | .value'`,
		Args: exactly("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if limit < 0 {
				return usagef("--limit is %d, and nothing has fewer revisions than 0", limit)
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			lines := json.NewEncoder(out)
			table := newTable(out, "TIME", "SENDER", "REVISION", "VALUE")
			var unreadable error
			shown := 0
			for entry, err := range store.History(cmd.Context(), args[0]) {
				if err != nil && entry.Revision == "" {
					return err
				}
				unreadable = errors.Join(unreadable, err)
				value := brief(entry.Value)
				switch {
				case entry.Deleted:
					value = "(removed)"
				case err != nil:
					value = "(unreadable)"
				}
				if a.json {
					if err := lines.Encode(lineOf(entry)); err != nil {
						return err
					}
				}
				table.row(timeOf(entry.Time), oneLine(entry.Sender.String()), oneLine(string(entry.Revision)), value)
				if shown++; shown == limit {
					break
				}
			}
			if shown == 0 {
				return fmt.Errorf("%w: %q was never in %s, as far as the homeserver knows", roomkv.ErrNotFound, args[0], store.room)
			}
			if a.json {
				return unreadable
			}
			return errors.Join(table.print(), unreadable)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "show the newest `N` only")
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}
