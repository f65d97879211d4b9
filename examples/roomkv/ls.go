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
	var descending, values bool
	cmd := &cobra.Command{
		Use:     "ls [PREFIX]",
		Short:   "List the keys",
		GroupID: groupValues,
		Long: `List the keys, or those that begin with PREFIX, with the type and size of each value, and who wrote when. With --values also the
beginning of each value.

Unless the memory is kept with --per-key, many keys are in one event, so that sender and time are those of the last change of any
of these. A value that cannot be read stands in the list, its error on standard error, and the exit code is then 1.`,
		Example: `  roomkv ls
  roomkv ls score
  roomkv ls score/ --limit 20 --values
  roomkv ls score/ --limit 20 --after score/carol
  roomkv ls --json | jq -r 'select(.value > 10) | .key'`,
		Args: cobra.MaximumNArgs(1),
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
			titles := []string{"KEY", "TYPE", "SIZE", "SENDER", "TIME"}
			if values {
				titles = append(titles, "VALUE")
			}
			table := newTable(cmd.OutOrStdout(), titles...)
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
				row := []string{oneLine(entry.Key), typeOf(entry.Value), sizeOf(entry.Value), oneLine(entry.Sender.String()), timeOf(entry.Time)}
				if values {
					shown := brief(entry.Value)
					if err != nil {
						shown = "(unreadable)"
					}
					row = append(row, shown)
				}
				table.row(row...)
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
	cmd.Flags().IntVar(&limit, "limit", 0, "list so many keys at most, at least 1")
	cmd.Flags().StringVar(&after, "after", "", "begin after this key")
	cmd.Flags().BoolVar(&descending, "descending", false, "list the last key first")
	cmd.Flags().BoolVar(&values, "values", false, "show the beginning of each value too")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}
