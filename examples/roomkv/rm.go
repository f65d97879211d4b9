package main

import "github.com/spf13/cobra"

func (a *app) rmCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "rm KEY...",
		Short:   "Remove keys",
		GroupID: groupValues,
		Long:    `Remove keys with their values. A key that is not there is no error. The past still has them: see history and restore.`,
		Example: `  roomkv rm greeting
  roomkv rm 'score @alice:example.org' 'score @bob:example.org'`,
		Args: cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			return store.Delete(cmd.Context(), args...)
		},
	}
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}
