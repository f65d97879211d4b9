package main

import (
	"encoding/json"
	"errors"
	"fmt"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

func (a *app) roomsCommand() *cobra.Command {
	var long bool
	cmd := &cobra.Command{
		Use:     "rooms",
		Short:   "List the rooms that have a memory",
		GroupID: groupValues,
		Long: `List the rooms that the account has joined and that have a memory of this event type and layout in their state. With --long also their names, which takes a
request for each. A memory in account data is not among them.`,
		Example: `  roomkv rooms
  roomkv rooms --long
  roomkv rooms --event-type dev.opsdroid.database
  for room in $(roomkv rooms); do roomkv export "$room.jsonl" --room "$room"; done`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx := cmd.Context()
			layout, err := a.layout()
			if err != nil {
				return err
			}
			login, err := a.connect(ctx, a.account, nil)
			if err != nil {
				return err
			}
			client := login.bot.Client
			store, err := login.bot.Store("", roomkv.WithEventType(a.eventType), layout)
			if err != nil {
				return err
			}
			out := cmd.OutOrStdout()
			lines, table := json.NewEncoder(out), newTable(out, "ROOM", "NAME")
			for room, err := range store.Rooms(ctx) {
				if err != nil {
					return err
				}
				line := roomLine{Room: room}
				if long {
					var name event.RoomNameEventContent
					if err := client.StateEvent(ctx, room, event.StateRoomName, "", &name); err != nil && !errors.Is(err, mautrix.MNotFound) {
						return fmt.Errorf("asking for the name of %s: %w", room, err)
					}
					line.Name = name.Name
				}
				switch table.row(oneLine(room.String()), oneLine(line.Name)); {
				case a.json:
					err = lines.Encode(line)
				case !long:
					_, err = fmt.Fprintln(out, oneLine(room.String()))
				}
				if err != nil {
					return err
				}
			}
			if len(table.rows) == 0 && !a.json {
				fmt.Fprintln(cmd.ErrOrStderr(), "No room has such a memory.")
				return nil
			}
			if a.json || !long {
				return nil
			}
			return table.print()
		},
	}
	cmd.Flags().BoolVarP(&long, "long", "l", false, "show the rooms' names too")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// roomLine is a room as --json prints it.
type roomLine struct {
	Room id.RoomID `json:"room"`
	Name string    `json:"name,omitempty"`
}
