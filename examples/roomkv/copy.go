package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/roomkv/roomkv"
)

func (a *app) copyCommand() *cobra.Command {
	var from, to memory
	var overwrite, redact, yes bool
	cmd := &cobra.Command{
		Use:     "copy --from-… --to-…",
		Short:   "Copy a memory to another place",
		GroupID: groupMove,
		Long: `Copy every key from one memory to another: another room, another layout, another account on another homeserver. This is also how
the data of opsdroid, or of roomkv with other settings, are migrated.

Every flag that describes a memory exists for each side, as --from-room and --to-room. What is given for neither side, such as
--room, counts for both.

What is there already is not written again, so that copying once more goes on where the last time ended. Where the target has
another value under a key, that stays, and the exit code is 1, unless --overwrite is given.

The source stays as it is, unless --redact-source is given: when all of it is in the other place, its events are redacted, as opsdroid
does after its own migration.`,
		Example: `  roomkv copy --to-room '#new:example.org'
  roomkv copy --from-event-type dev.opsdroid.database          # opsdroid's memory of the same room
  roomkv copy --to-shards 16 --to-event-type com.example.big   # when one event is too small
  roomkv copy --to-user other --to-profile other --to-room '#other:example.net'`,
		Args: noArgs,
		PreRun: func(cmd *cobra.Command, _ []string) {
			inherit(cmd.Flags(), "from-")
			inherit(cmd.Flags(), "to-")
		},
		RunE: func(cmd *cobra.Command, _ []string) error {
			if redact {
				if sure, err := sure(cmd, yes, "Redact the source once it is copied?"); err != nil || !sure {
					return err
				}
			}
			source, err := a.open(cmd.Context(), &from)
			if err != nil {
				return fmt.Errorf("from: %w", err)
			}
			target, err := a.open(cmd.Context(), &to)
			if err != nil {
				return fmt.Errorf("to: %w", err)
			}
			bar := newProgress(cmd.ErrOrStderr(), "Copying")
			options := []roomkv.CopyOption{roomkv.CopyProgress(func(c roomkv.Copied) {
				bar.advance(c.Written+c.Equal+c.Kept+c.Unreadable+c.TooLarge, c.Total)
			})}
			if overwrite {
				options = append(options, roomkv.CopyOverwrite())
			}
			if redact {
				options = append(options, roomkv.CopyRedactSource())
			}
			copied, err := roomkv.Copy(cmd.Context(), target.Store, source.Store, options...)
			bar.end()
			if a.json {
				err = errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(copiedLine(copied)), err)
			} else if err == nil || copied.Total > 0 {
				fmt.Fprintln(cmd.ErrOrStderr(), summary(copied))
			}
			return err
		},
	}
	from.register(cmd.Flags(), "from-", sourceMemory, sourceLogin)
	to.register(cmd.Flags(), "to-", targetMemory, targetLogin)
	cmd.Flags().BoolVar(&overwrite, "overwrite", false, "replace other values that are there under the same keys")
	cmd.Flags().BoolVar(&redact, "redact-source", false, "redact the source when all of it is copied")
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// copiedLine is what --json prints of a copy.
type copiedLine struct {
	Total      int `json:"total"`
	Written    int `json:"written"`
	Equal      int `json:"equal"`
	Kept       int `json:"kept"`
	Unreadable int `json:"unreadable"`
	TooLarge   int `json:"too_large"`
	Redacted   int `json:"redacted"`
}

// summary tells a person what came of a copy.
func summary(c roomkv.Copied) string {
	return sentence("Copied "+count(c.Written, "key"), []part{
		{c.Equal, "were there already"}, {c.Kept, "have other values there, which stay"}, {c.Unreadable, "cannot be read"},
		{c.TooLarge, "are too large"}, {c.Redacted, "state events of the source were redacted"},
	})
}

// inherit gives the flags of one side the values of the common ones where only those were given.
func inherit(flags *pflag.FlagSet, prefix string) {
	flags.VisitAll(func(side *pflag.Flag) {
		name, ok := strings.CutPrefix(side.Name, prefix)
		if common := flags.Lookup(name); ok && !side.Changed && common != nil && common.Changed {
			_ = side.Value.Set(common.Value.String()) // which parsed once already
		}
	})
}
