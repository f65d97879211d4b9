package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
)

func (a *app) lsCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "List the keys",
		GroupID: groupValues,
		Long: `List the keys, or those that begin with PREFIX, with the type and size of each value, and who wrote when.

Unless the memory is kept with --per-key, all keys are in one event, so that sender and time are those of the last change of any
key. A value that cannot be read stands in the list, its error on standard error, and the exit code is then 1.`,
		Example: `  roomkv ls
  roomkv ls score
  roomkv ls --json | jq -r 'select(.value > 10) | .key'`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			prefix := strings.Join(args, "")
			var unreadable error
			table := newTable(cmd.OutOrStdout(), "KEY", "TYPE", "SIZE", "SENDER", "TIME")
			lines := json.NewEncoder(cmd.OutOrStdout())
			for entry, err := range store.All(cmd.Context()) {
				if err != nil && entry.Revision == "" {
					return err // the memory, not one value
				}
				if !strings.HasPrefix(entry.Key, prefix) {
					continue
				}
				unreadable = errors.Join(unreadable, err)
				if a.json {
					if err := lines.Encode(lineOf(entry)); err != nil {
						return err
					}
					continue
				}
				table.row(oneLine(entry.Key), typeOf(entry.Value), sizeOf(entry.Value), oneLine(entry.Sender.String()), timeOf(entry.Time))
			}
			if a.json {
				return unreadable
			}
			if table.rows == 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), "There are no keys.")
				return unreadable
			}
			return errors.Join(table.print(), unreadable)
		},
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}
