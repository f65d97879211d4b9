package main

import (
	"encoding/json"
	"fmt"
	"strconv"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

// infoLine is what --json prints.
type infoLine struct {
	Room        string `json:"room"`
	UpgradedTo  string `json:"upgraded_to,omitempty"`
	PerKey      bool   `json:"per_key"`
	Shards      int    `json:"shards"`
	Keys        int    `json:"keys"`
	Events      int    `json:"events"`
	Bytes       int    `json:"bytes"`
	Total       int    `json:"total"`
	MaxBytes    int    `json:"max_bytes"`
	More        int    `json:"more"`
	Encrypted   bool   `json:"encrypted"`
	Sealed      bool   `json:"sealed"`
	Place       string `json:"place"`
	Power       *int   `json:"power,omitempty"`
	PowerNeeded *int   `json:"power_needed,omitempty"`
	Retries     int    `json:"retries"`
	Merges      int    `json:"merges"`
}

func (a *app) infoCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "info",
		Short:   "Show how full the memory is",
		GroupID: groupValues,
		Long: `Show how many keys there are, how much of a state event they take, how many more of their size fit, whether values are encrypted,
and what keeps the user from writing.`,
		Example: `  roomkv info
  roomkv info --json | jq .more`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			info, err := store.Info(cmd.Context())
			if err != nil {
				return err
			}
			if a.json {
				line := infoLine{Room: info.Room.String(), UpgradedTo: info.UpgradedTo.String(), PerKey: info.PerKey, Shards: info.Shards, Keys: info.Keys, Events: info.Events,
					Bytes: info.Bytes, Total: info.Total, MaxBytes: roomkv.MaxBytes, More: info.More, Encrypted: info.Encrypted, Sealed: info.Sealed, Place: info.Place.String(),
					Retries: info.Retries, Merges: info.Merges}
				if info.PowerKnown {
					line.Power, line.PowerNeeded = &info.Power, &info.PowerNeeded
				}
				return json.NewEncoder(cmd.OutOrStdout()).Encode(line)
			}
			table := newTable(cmd.OutOrStdout(), "ROOM", oneLine(info.Room.String()))
			table.row("LAYOUT", layoutOf(info))
			table.row("KEYS", strconv.Itoa(info.Keys))
			table.row("LARGEST EVENT", fmt.Sprintf("%d of %d bytes (%d %%)", info.Bytes, roomkv.MaxBytes, 100*info.Bytes/roomkv.MaxBytes))
			if info.Shards > 1 {
				table.row("ALL EVENTS", fmt.Sprintf("%d of %d bytes (%d %%)", info.Total, info.Shards*roomkv.MaxBytes, 100*info.Total/(info.Shards*roomkv.MaxBytes)))
			}
			if info.More >= 0 && info.Keys > 0 {
				table.row("ROOM FOR", fmt.Sprintf("about %d more keys of the average size", info.More))
			}
			table.row("ENCRYPTED", yesNo(info.Encrypted))
			table.row("KEYS SEALED", yesNo(info.Sealed))
			if info.PowerKnown {
				table.row("POWER LEVEL", fmt.Sprintf("%d, and writing takes %d", info.Power, info.PowerNeeded))
			}
			if info.Place == roomkv.InAccountData {
				table.row("WRITES GO TO", info.Place.String())
			}
			if info.UpgradedTo != "" {
				table.row("UPGRADED TO", oneLine(info.UpgradedTo.String()))
			}
			if info.Retries > 0 {
				table.row("RETRIES", strconv.Itoa(info.Retries))
			}
			if info.Merges > 0 {
				table.row("MERGES", strconv.Itoa(info.Merges))
			}
			return table.print()
		},
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

func layoutOf(info roomkv.Info) string {
	switch {
	case info.PerKey:
		return fmt.Sprintf("a state event for each key (%d)", info.Events)
	case info.Shards > 1:
		return fmt.Sprintf("%d state events of up to %d", info.Events, info.Shards)
	}
	return "one state event for all keys"
}

func yesNo(yes bool) string {
	if yes {
		return "yes"
	}
	return "no"
}
