package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

func (a *app) watchCommand() *cobra.Command {
	var prefix, revision string
	cmd := &cobra.Command{
		Use:     "watch [KEY]",
		Short:   "Print changes as they happen",
		GroupID: groupValues,
		Long: `Print each change of a key, or of all keys, whoever makes it, until Ctrl-C, after which the exit code is 0.

In an encrypted room the watch keeps this login's keys to itself, so that other commands there need another --profile.`,
		Example: `  roomkv watch
  roomkv watch greeting
  roomkv watch --prefix 'score ' --json | jq -r '"\(.key) \(.new)"'
  roomkv watch --from '$event'                 # also what came after that revision`,
		Args: cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 1 && prefix != "" {
				return usagef("a KEY and --prefix exclude each other")
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			if err := store.Follow(); err != nil {
				return err
			}
			options := []roomkv.WatchOption{roomkv.WatchPrefix(prefix), roomkv.WatchFrom(roomkv.Revision(revision))}
			if len(args) == 1 {
				options = append(options, roomkv.WatchKey(args[0]))
			}
			ctx := follow(cmd.Context(), store.session.client, store.room)
			out := cmd.OutOrStdout()
			lines := json.NewEncoder(out)
			for change, err := range store.Watch(ctx, options...) {
				switch {
				case cmd.Context().Err() != nil:
					return nil // Ctrl-C is how a watch ends
				case err != nil && change.Revision == "":
					return errors.Join(context.Cause(ctx), err)
				case err != nil:
					fmt.Fprintln(cmd.ErrOrStderr(), "roomkv:", plain(err.Error(), cmd.ErrOrStderr()))
				}
				if a.json {
					err = lines.Encode(changeOf(change))
				} else {
					err = printChange(out, change)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&prefix, "prefix", "", "only keys that begin with `TEXT`")
	cmd.Flags().StringVar(&revision, "from", "", "begin after `REVISION` instead of now")
	cmd.ValidArgsFunction = a.completeKeys
	return cmd
}

// follow syncs the room in the background. What it returns ends with ctx, or with the sync, whose error is then its cause.
func follow(ctx context.Context, client *mautrix.Client, room id.RoomID) context.Context {
	client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = &mautrix.Filter{
		Room:        &mautrix.RoomFilter{Rooms: []id.RoomID{room}, State: &mautrix.FilterPart{LazyLoadMembers: true}},
		Presence:    &mautrix.FilterPart{NotTypes: []event.Type{{Type: "*"}}},
		AccountData: &mautrix.FilterPart{NotTypes: []event.Type{{Type: "*"}}},
	}
	ctx, end := context.WithCancelCause(ctx)
	go func() { end(client.SyncWithContext(ctx)) }()
	return ctx
}
