package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) rmCommand() *cobra.Command {
	var purge, yes bool
	cmd := &cobra.Command{
		Use:     "rm KEY...",
		Short:   "Remove keys",
		GroupID: groupValues,
		Long: `Remove keys with their values. A key that is not there is no error.

The past still has the values: see history and restore. With --purge it forgets them, as far as Matrix can: every event that
ever held one is redacted, and with it the past of other keys that the same event held. That cannot be undone.`,
		Example: `  roomkv rm greeting
  roomkv rm 'score @alice:example.org' 'score @bob:example.org'
  roomkv rm --purge password                   # asks before, on a terminal; elsewhere it needs --yes`,
		Args: atLeast("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if purge {
				question := fmt.Sprintf("Redact every event that ever held %s?", count(len(args), "key"))
				if sure, err := sure(cmd, yes, question); err != nil || !sure {
					return err
				}
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			if !purge {
				return store.Delete(cmd.Context(), args...)
			}
			purged, err := store.Purge(cmd.Context(), args...)
			return errors.Join(a.printPurged(cmd, purged), err)
		},
	}
	cmd.Flags().BoolVar(&purge, "purge", false, "also redact every event that ever held them")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}

// purged is what --json prints of a purge.
type purged struct {
	State     int      `json:"state_events"`
	Encrypted int      `json:"encrypted_events"`
	Media     []string `json:"media"`
	Left      []string `json:"left"`
	Unseen    bool     `json:"unseen"`
}

func (a *app) printPurged(cmd *cobra.Command, done roomkv.Purged) error {
	line := purged{done.State, done.Encrypted, []string{}, []string{}, done.Unseen}
	for _, uri := range done.Media {
		line.Media = append(line.Media, string(uri))
	}
	for _, left := range done.Left {
		line.Left = append(line.Left, left.Event.String())
	}
	if a.json {
		return json.NewEncoder(cmd.OutOrStdout()).Encode(line)
	}
	out := cmd.ErrOrStderr()
	fmt.Fprintln(out, sentence("Redacted "+count(done.State+done.Encrypted, "event"), []part{{len(done.Left), "are left"}}))
	for _, uri := range line.Media {
		fmt.Fprintf(out, "Only the homeserver's administrator can delete the attachment %s.\n", oneLine(uri))
	}
	if done.Unseen {
		fmt.Fprintln(out, "The homeserver does not show all that was, so that there can be more.")
	}
	return nil
}
