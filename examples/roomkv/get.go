package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) getCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "get KEY",
		Short:   "Print a value",
		GroupID: groupValues,
		Long: `Print the value of a key: text as it is, everything else as JSON. With --json also text is JSON, with what Matrix knows of it.

Where there is no such key the exit code is 3.`,
		Example: `  roomkv get greeting
  roomkv get settings | jq .volume
  roomkv get greeting --json`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			entry, err := store.Entry(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			if a.json {
				return json.NewEncoder(out).Encode(lineOf(entry))
			}
			_, err = fmt.Fprintln(out, plain(text(entry.Value), out))
			return err
		},
	}
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}
