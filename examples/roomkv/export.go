package main

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) exportCommand() *cobra.Command {
	var history, force bool
	cmd := &cobra.Command{
		Use:     "export [FILE]",
		Short:   "Save the memory to a file",
		GroupID: groupMove,
		Long: `Save the whole memory as JSON Lines, to a file or to standard output: each key with its value, who wrote it and when.

What is encrypted in the room is in clear in the file, which only you can read. The file gets its name when it is complete, and
a file that is there already stays unless --force is given. Where a value cannot be read, its key is in the file without it, and
the exit code is 1.`,
		Example: `  roomkv export memory.jsonl
  roomkv export memory.jsonl --history         # with all that was there before
  roomkv export | gzip >memory.jsonl.gz
  roomkv export | jq -r .key`,
		Args: atMost("FILE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if len(args) == 0 || args[0] == "-" {
				_, err := a.export(cmd, cmd.OutOrStdout(), history)
				return err
			}
			file, err := newFile(args[0], force)
			if err != nil {
				return err
			}
			exported, err := a.export(cmd, file, history)
			if exported.Complete {
				err = errors.Join(file.close(nil), err)
			} else {
				err = file.close(err)
			}
			if a.json {
				err = errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(exportedLine(exported)), err)
			}
			return err
		},
	}
	cmd.Flags().BoolVar(&history, "history", false, "also what was there before")
	cmd.Flags().BoolVarP(&force, "force", "f", false, "replace the file that is there")
	return cmd
}

// exportedLine is what --json prints of an export.
type exportedLine struct {
	Total      int  `json:"total"`
	Revisions  int  `json:"revisions"`
	Unreadable int  `json:"unreadable"`
	Complete   bool `json:"complete"`
}

func (a *app) export(cmd *cobra.Command, to io.Writer, history bool) (exported roomkv.Exported, err error) {
	store, err := a.open(cmd.Context(), &a.memory)
	if err != nil {
		return exported, err
	}
	var options []roomkv.ExportOption
	if history {
		options = append(options, roomkv.ExportHistory())
	}
	var bar progress
	if !isTerminal(to) { // where the lines themselves are seen
		bar = newProgress(cmd.ErrOrStderr(), "Exporting")
	}
	exported, err = store.Export(cmd.Context(), &counter{Writer: to, advance: bar.advance}, options...)
	bar.end()
	if exported.Complete && !a.json {
		text := "Exported " + count(exported.Total, "key")
		if history {
			text += " with " + count(exported.Revisions, "revision")
		}
		if exported.Unreadable > 0 {
			text += fmt.Sprintf(", %d of which without a value", exported.Unreadable)
		}
		fmt.Fprintln(cmd.ErrOrStderr(), text+".")
	}
	return exported, err
}

// counter tells how many lines were written.
type counter struct {
	io.Writer
	advance func(done, total int)
	lines   int
}

func (c *counter) Write(text []byte) (int, error) {
	n, err := c.Writer.Write(text)
	c.lines += bytes.Count(text[:n], []byte("\n"))
	c.advance(c.lines, 0)
	return n, err
}
