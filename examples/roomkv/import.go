package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// importing is what the flags say of an import.
type importing struct {
	overwrite, replace, dryRun, yes bool

	format string
	room   string // whose account data it is, empty for the account's own
}

func (a *app) importCommand() *cobra.Command {
	var i importing
	cmd := &cobra.Command{
		Use:     "import FILE|TYPE",
		Short:   "Bring a saved memory back",
		GroupID: groupMove,
		Long: `Store what export has saved, from a file or, with "-", from standard input.

The file is checked first: of a damaged one nothing is stored. What is there already is not written again, so that importing once
more goes on where the last time ended. Where there is another value under a key, that stays, and the exit code is 1, unless
--overwrite is given. Keys that are not in the file stay too, unless --replace is given, which asks before on a terminal and needs
--yes elsewhere. With --dry-run nothing is changed, and the counts are those of what would be. Of what was there before, which export
--history saves, nothing is stored.

With --format json the file is one JSON object, each name of which is a key, and with --format jsonl it has lines of
{"key":…,"value":…}. With --format account-data there is no file: a TYPE of the user's account data takes its place, the map of a bot
that keeps one there, and each name in the map is a key. It is that of the whole account, or with --of-room that of a room. Account data stays as
it is. Where there is none the exit code is 3.`,
		Example: `  roomkv import memory.jsonl
  roomkv import memory.jsonl --room '#new:example.org'
  roomkv import memory.jsonl --replace         # and remove what is not in it
  roomkv import settings.json --format json --dry-run
  roomkv import com.example.mybot --format account-data --of-room '#lobby:example.org'
  gunzip <memory.jsonl.gz | roomkv import -`,
		Args: exactly("FILE or TYPE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case !slices.Contains(importFormats, i.format):
				return usagef("--format is one of %s, and not %q", strings.Join(importFormats, ", "), i.format)
			case i.room != "" && i.format != ofAccountData:
				return usagef("--of-room is for --format %s", ofAccountData)
			case i.replace && !i.yes && !i.dryRun && !attended():
				return usagef("nobody is there to be asked: give --yes, or --dry-run to see what would be done")
			}
			return a.importFrom(cmd, args[0], i)
		},
	}
	cmd.Flags().StringVar(&i.format, "format", importFormats[0], "what is imported: "+strings.Join(importFormats, ", "))
	cmd.Flags().StringVar(&i.room, "of-room", "", "the `ROOM` whose account data it is: an ID (!…) or an alias (#…); without it, the account's")
	cmd.Flags().BoolVar(&i.overwrite, "overwrite", false, "replace other values that are there under the same keys")
	cmd.Flags().BoolVar(&i.replace, "replace", false, "do so, and remove the keys that are not in the file")
	cmd.Flags().BoolVarP(&i.dryRun, "dry-run", "n", false, "count what would be done, and change nothing")
	cmd.Flags().BoolVarP(&i.yes, "yes", "y", false, "do not ask")
	return cmd
}

// ofAccountData is the format of what is in no file.
const ofAccountData = "account-data"

// importFormats are what --format can be; the first is what export has written.
var importFormats = []string{"export", "json", "jsonl", ofAccountData}

// importFrom imports a file or the type of account data.
func (a *app) importFrom(cmd *cobra.Command, source string, i importing) error {
	from := cmd.InOrStdin()
	if i.format != ofAccountData && source != "-" {
		file, err := os.Open(source)
		if err != nil {
			return err
		}
		defer file.Close()
		from = file
	}
	store, err := a.open(cmd.Context(), &a.memory)
	if err != nil {
		return err
	}
	if i.replace && !i.dryRun {
		question := fmt.Sprintf("Replace the memory in %s by what is imported, and remove what is not in that?", store.room)
		if sure, err := sure(cmd, i.yes, question); err != nil || !sure {
			return err
		}
	}
	bar := newProgress(cmd.ErrOrStderr(), "Importing")
	options := append(i.options(), roomkv.ImportProgress(func(i roomkv.Imported) { bar.advance(i.Done(), i.Total) }))
	var imported roomkv.Imported
	if i.format == ofAccountData {
		imported, err = store.ImportAccountData(cmd.Context(), id.RoomID(i.room), source, options...)
	} else {
		imported, err = store.Import(cmd.Context(), from, options...)
	}
	bar.end()
	switch {
	case a.json:
		err = errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(importedLine(imported)), err)
	case err == nil || imported.Total > 0 && !errors.Is(err, roomkv.ErrDamaged):
		fmt.Fprintln(cmd.ErrOrStderr(), importSummary(imported, i.dryRun))
	}
	return err
}

func (i importing) options() (options []roomkv.ImportOption) {
	switch i.format {
	case "json":
		options = append(options, roomkv.ImportJSON())
	case "jsonl":
		options = append(options, roomkv.ImportJSONLines())
	}
	if i.overwrite {
		options = append(options, roomkv.ImportOverwrite())
	}
	if i.replace {
		options = append(options, roomkv.ImportReplace())
	}
	if i.dryRun {
		options = append(options, roomkv.ImportDryRun())
	}
	return options
}

// importedLine is what --json prints of an import.
type importedLine struct {
	Total      int `json:"total"`
	Written    int `json:"written"`
	Equal      int `json:"equal"`
	Kept       int `json:"kept"`
	TooLarge   int `json:"too_large"`
	Removed    int `json:"removed"`
	Unreadable int `json:"unreadable"`
}

// importSummary tells a person what came of an import.
func importSummary(i roomkv.Imported, dryRun bool) string {
	done, removed := "Imported ", "were removed"
	if dryRun {
		done, removed = "Would import ", "would be removed"
	}
	return sentence(done+count(i.Written, "key"), []part{
		{i.Equal, "were there already"}, {i.Kept, "have other values here, which stay"},
		{i.TooLarge, "are too large for the homeserver"}, {i.Removed, removed}, {i.Unreadable, "have no value in the file"},
	})
}
