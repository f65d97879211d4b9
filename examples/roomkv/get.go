package main

import (
	"encoding/json"
	"fmt"

	"github.com/spf13/cobra"
)

func (a *app) getCommand() *cobra.Command {
	var raw bool
	cmd := &cobra.Command{
		Use:     "get KEY",
		Short:   "Print a value",
		GroupID: groupValues,
		Long: `Print the value of a key: text as it is, everything else as JSON. With --json also text is JSON, with what Matrix knows of it.

With --raw it is the file that put --raw has stored, byte for byte. Of what others have stored, text is printed without a line break at its end,
and everything else as JSON.

Where there is no such key the exit code is 3.`,
		Example: `  roomkv get greeting
  roomkv get photo --raw >photo.png
  roomkv get settings | jq .volume
  roomkv get greeting --json`,
		Args: exactly("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if raw && a.json {
				return usagef("--raw and --json exclude each other")
			}
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
			if raw {
				_, err = fmt.Fprint(out, plain(string(rawOf(entry.Value)), out))
				return err
			}
			_, err = fmt.Fprintln(out, plain(text(entry.Value), out))
			return err
		},
	}
	cmd.Flags().BoolVar(&raw, "raw", false, "print the bytes and nothing else")
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}
