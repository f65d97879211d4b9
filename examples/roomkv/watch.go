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
	var prefixes []string
	var revision string
	var initial bool
	cmd := &cobra.Command{
		Use:     "watch [KEY]",
		Short:   "Print changes as they happen",
		GroupID: groupValues,
		Long: `Print each change of a key, or of all keys, whoever makes it, until Ctrl-C, after which the exit code is 0.

With --initial what is there comes first, each key as one that was not there before. With --json a line with "end_of_initial" then says that this was all.

In an encrypted room the watch keeps this login's keys to itself, so that other commands there need another --profile.`,
		Example: `  roomkv watch
  roomkv watch greeting
  roomkv watch --prefix 'score ' --json | jq -r '"\(.key) \(.new)"'
  roomkv watch --initial --prefix poll/ --prefix quiz/   # what is there, and then what changes
  roomkv watch --from '$event'                 # also what came after that revision`,
		Args: atMost("KEY"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case len(args) == 1 && len(prefixes) > 0:
				return usagef("a KEY and --prefix exclude each other")
			case initial && revision != "":
				return usagef("--initial and --from exclude each other")
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			if err := store.Follow(); err != nil {
				return err
			}
			options := []roomkv.WatchOption{roomkv.WatchFrom(roomkv.Revision(revision))}
			if initial {
				options = append(options, roomkv.WatchInitial())
			}
			if len(prefixes) > 0 {
				options = append(options, roomkv.WatchPrefix(prefixes...))
			}
			if len(args) == 1 {
				options = append(options, roomkv.WatchKey(args[0]))
			}
			ctx := follow(cmd.Context(), store.bot.Client, store.room)
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
				switch {
				case a.json && change.EndOfInitial:
					err = lines.Encode(struct {
						EndOfInitial bool            `json:"end_of_initial"`
						Revision     roomkv.Revision `json:"revision"`
					}{true, change.Revision})
				case a.json:
					err = lines.Encode(changeOf(change))
				case change.EndOfInitial: // what comes next shows it by its old value
					err = nil
				default:
					err = printChange(out, change)
				}
				if err != nil {
					return err
				}
			}
			return nil
		},
	}
	cmd.Flags().StringArrayVar(&prefixes, "prefix", nil, "only keys that begin with `TEXT`; may be given several times")
	cmd.Flags().BoolVar(&initial, "initial", false, "print first what is there")
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
