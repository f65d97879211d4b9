package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) lsCommand() *cobra.Command {
	var limit int
	var after string
	var descending, long, values bool
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "List the keys",
		GroupID: groupValues,
		Long: `List the keys, or those that begin with PREFIX, with the beginning of each value: as much as a line of the terminal has room for. With --long also the
type and size of each value, and who wrote when.

Unless the memory is kept with --per-key, many keys are in one event, so that sender and time are those of the last change of any
of these. A value that cannot be read stands in the list, its error on standard error, and the exit code is then 1.`,
		Example: `  roomkv ls
  roomkv ls score
  roomkv ls --long
  roomkv ls score/ --limit 20 --after score/carol
  roomkv ls --json | jq -r 'select(.value > 10) | .key'`,
		Args: atMost("PREFIX"),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			opts := []roomkv.ListOption{roomkv.Prefix(strings.Join(args, ""))}
			if cmd.Flags().Changed("limit") {
				opts = append(opts, roomkv.Limit(limit))
			}
			if cmd.Flags().Changed("after") {
				opts = append(opts, roomkv.StartAfter(after))
			}
			if descending {
				opts = append(opts, roomkv.Descending())
			}
			var unreadable error
			table := newTable(cmd.OutOrStdout(), columns(long)...)
			lines := json.NewEncoder(cmd.OutOrStdout())
			for entry, err := range store.All(cmd.Context(), opts...) {
				if err != nil && entry.Revision == "" {
					return err // the memory, not one value
				}
				unreadable = errors.Join(unreadable, err)
				if a.json {
					if err := lines.Encode(lineOf(entry)); err != nil {
						return err
					}
					continue
				}
				table.row(cells(entry, err, long, isTerminal(cmd.OutOrStdout()))...)
			}
			if a.accountData {
				if err := sayPlace(cmd, store); err != nil {
					return err
				}
			}
			if a.json {
				return unreadable
			}
			if len(table.rows) == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "There are no keys.")
				return unreadable
			}
			return errors.Join(table.print(), unreadable)
		},
	}
	cmd.Flags().IntVar(&limit, "limit", 0, "list so many keys at most, at least 1")
	cmd.Flags().StringVar(&after, "after", "", "begin after this key")
	cmd.Flags().BoolVar(&descending, "descending", false, "list the last key first")
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show types, sizes, senders and times too")
	cmd.Flags().BoolVar(&values, "values", false, "")
	_ = cmd.Flags().MarkDeprecated("values", "values are shown without it") // fails for a flag that does not exist
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func columns(long bool) []string {
	if long {
		return []string{"KEY", "TYPE", "SIZE", "SENDER", "TIME", "VALUE"}
	}
	return []string{"KEY", "VALUE"}
}

// cells are those of an entry, or of one whose value cannot be read. A terminal cuts the value to its width.
func cells(entry roomkv.Entry, unreadable error, long, terminal bool) []string {
	shown := brief(entry.Value)
	switch {
	case unreadable != nil:
		shown = "(unreadable)"
	case terminal:
		shown = beginning(entry.Value)
	}
	if !long {
		return []string{oneLine(entry.Key), shown}
	}
	return []string{oneLine(entry.Key), typeOf(entry.Value), sizeOf(entry.Value), oneLine(entry.Sender.String()), timeOf(entry.Time), shown}
}

// sayPlace tells where the memory is, where that is not the room's state.
func sayPlace(cmd *cobra.Command, store *opened) error {
	info, err := store.Info(cmd.Context())
	if err == nil && info.Place == roomkv.InAccountData {
		fmt.Fprintln(cmd.ErrOrStderr(), "The memory is in account data, which only this account can read: the account may not write to the room's state.")
	}
	return err
}
