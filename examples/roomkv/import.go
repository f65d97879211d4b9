package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) importCommand() *cobra.Command {
	var overwrite, replace, yes bool
	var format string
	cmd := &cobra.Command{
		Use:     "import FILE",
		Short:   "Bring a saved memory back",
		GroupID: groupMove,
		Long: `Store what export has saved, from a file or, with "-", from standard input.

The file is checked first: of a damaged one nothing is stored. What is there already is not written again, so that importing once
more goes on where the last time ended. Where there is another value under a key, that stays, and the exit code is 1, unless
--overwrite is given. Keys that are not in the file stay too, unless --replace is given, which asks before on a terminal and needs
--yes elsewhere. With --format json the file is one JSON object, each name of which is a key, and with --format jsonl it has lines of
{"key":…,"value":…}. Of what was there before, which export --history saves, nothing is stored.`,
		Example: `  roomkv import memory.jsonl
  roomkv import memory.jsonl --room '#new:example.org'
  roomkv import memory.jsonl --replace         # and remove what is not in it
  roomkv import settings.json --format json
  gunzip <memory.jsonl.gz | roomkv import -`,
		Args: cobra.ExactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			var options []roomkv.ImportOption
			switch format {
			case "export":
			case "json":
				options = append(options, roomkv.ImportJSON())
			case "jsonl":
				options = append(options, roomkv.ImportJSONLines())
			default:
				return usagef("--format is export, json or jsonl, and not %q", format)
			}
			from := cmd.InOrStdin()
			if args[0] != "-" {
				file, err := os.Open(args[0])
				if err != nil {
					return err
				}
				defer file.Close()
				from = file
			}
			return a.importFrom(cmd, from, overwrite, replace, yes, options)
		},
	}
	cmd.Flags().StringVar(&format, "format", "export", "what the file is: what export has written, json or jsonl")
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace other values that are there under the same keys")
	cmd.Flags().BoolVar(&replace, "replace", false, "do so, and remove the keys that are not in the file")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	return cmd
}

func (a *app) importFrom(cmd *cobra.Command, from io.Reader, overwrite, replace, yes bool, options []roomkv.ImportOption) error {
	if replace && !yes && !attended() {
		return usagef("nobody is there to be asked: give --yes")
	}
	store, err := a.open(cmd.Context(), &a.memory)
	if err != nil {
		return err
	}
	if overwrite {
		options = append(options, roomkv.ImportOverwrite())
	}
	if replace {
		question := fmt.Sprintf("Replace the memory in %s by the file's, and remove what is not in it?", store.room)
		if sure, err := sure(cmd, yes, question); err != nil || !sure {
			return err
		}
		options = append(options, roomkv.ImportReplace())
	}
	bar := newProgress(cmd.ErrOrStderr(), "Importing")
	options = append(options, roomkv.ImportProgress(func(i roomkv.Imported) {
		bar.advance(i.Done(), i.Total)
	}))
	imported, err := store.Import(cmd.Context(), from, options...)
	bar.end()
	switch {
	case a.json:
		err = errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(importedLine(imported)), err)
	case err == nil || imported.Total > 0 && !errors.Is(err, roomkv.ErrDamaged):
		fmt.Fprintln(cmd.ErrOrStderr(), importSummary(imported))
	}
	return err
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
func importSummary(i roomkv.Imported) string {
	return sentence("Imported "+count(i.Written, "key"), []part{
		{i.Equal, "were there already"}, {i.Kept, "have other values here, which stay"},
		{i.TooLarge, "are too large for the homeserver"}, {i.Removed, "were removed"}, {i.Unreadable, "have no value in the file"},
	})
}
