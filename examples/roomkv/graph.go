package main

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/examples/roomkv/internal/graph"
)

// maxDrawn is how many events a picture has at most. Each can be 64 KiB, and all are in memory.
const maxDrawn = 1000

func (a *app) graphCommand() *cobra.Command {
	var format, output string
	var limit int
	var values, force bool
	cmd := &cobra.Command{
		Use:     "graph",
		Short:   "Draw the history of the memory",
		GroupID: groupHistory,
		Long: `Draw the events of the memory, the newest first: who wrote each and when, which keys it changed, what it was made from, and where
writers forked and merged. It is an SVG, or a text for Graphviz (dot).

Values are not in the picture without --values, and those of sealed keys never are. A sealed key is shown as the begin of its hash.
A file that is there already stays unless --force is given.`,
		Example: `  roomkv graph -o memory.svg
  roomkv graph --limit 20 --values -o memory.svg
  roomkv graph --format dot | dot -Tpng >memory.png
  roomkv graph --json | jq -r 'select(.parents | length > 1) | .event'   # merges`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			draw := graph.SVG
			switch {
			case a.json:
				draw = writeLines
			case format == "dot":
				draw = graph.DOT
			case format != "svg":
				return usagef("--format is %q, and neither svg nor dot", format)
			}
			if limit < 1 || limit > maxDrawn {
				return usagef("--limit is %d, and must be from 1 to %d", limit, maxDrawn)
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			events, err := eventsOf(cmd.Context(), store.bot.Client, store.room, &a.memory, limit, values)
			if err != nil {
				return err
			}
			if len(events) == 0 {
				return fmt.Errorf("%w: there is no event of the memory in %s", roomkv.ErrNotFound, store.room)
			}
			if err := addValues(cmd.Context(), store.Store, events); err != nil {
				return err
			}
			if output == "" || output == "-" {
				return draw(cmd.OutOrStdout(), events)
			}
			file, err := newFile(output, force)
			if err != nil {
				return err
			}
			return file.close(draw(file, events))
		},
	}
	cmd.Flags().StringVar(&format, "format", "svg", "draw an `svg`, or write a text for Graphviz: dot")
	cmd.Flags().IntVar(&limit, "limit", 100, "draw the newest `N` events only")
	cmd.Flags().BoolVar(&values, "values", false, "show the beginning of each value too")
	cmd.Flags().StringVarP(&output, "output", "o", "", "write to `FILE`, which only you can read")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the file that is there")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	_ = cmd.RegisterFlagCompletionFunc("format", cobra.FixedCompletions([]string{"svg", "dot"}, cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// writeLines is what --json prints: an event a line.
func writeLines(out io.Writer, events []graph.Event) error {
	lines := json.NewEncoder(out)
	for _, evt := range events {
		if err := lines.Encode(evt); err != nil {
			return err
		}
	}
	return nil
}
