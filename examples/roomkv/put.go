package main

import (
	"context"
	"encoding/json"
	"io"
	"strings"
	"unicode/utf8"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv"
)

func (a *app) putCommand() *cobra.Command {
	var asString, raw, create bool
	var revision string
	cmd := &cobra.Command{
		Use:     "put KEY VALUE",
		Short:   "Store a value",
		GroupID: groupValues,
		Long: `Store a value under a key, whatever was there.

A value that is JSON is stored as that: 5 is a number, true a boolean. Anything else is text in UTF-8, and so is everything with
--string. The value "-" is read from standard input. Before a value that begins with a dash put "--".

With --raw the value is a file, whose bytes get --raw gives back: one that is text is stored as that, and any other as {"base64": …}. What is too
large for an event of the room goes to the homeserver's media repository.`,
		Example: `  roomkv put greeting 'Hello!'
  roomkv put settings '{"volume": 0.8}'
  roomkv put postcode --string 01067
  roomkv put notes - <notes.txt
  roomkv put photo --raw - <photo.png
  roomkv put lock --create "$HOSTNAME"         # fails where the key is there
  roomkv put temperature -- -5`,
		Args: exactly("KEY", "VALUE"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if create && revision != "" {
				return usagef("--create and --if-revision exclude each other")
			}
			if raw && asString {
				return usagef("--raw and --string exclude each other")
			}
			key, given := args[0], args[1]
			if given == "-" {
				read, err := readAll(cmd.Context(), cmd.InOrStdin())
				if err != nil {
					return err
				}
				given = read
			}
			value := valueOfRaw(given)
			if !raw {
				var err error
				if value, err = valueOf(given, asString); err != nil {
					return err
				}
			}
			store, err := a.open(cmd.Context(), &a.memory)
			if err != nil {
				return err
			}
			switch {
			case create:
				return store.Create(cmd.Context(), key, value)
			case revision != "":
				return store.CompareAndPut(cmd.Context(), key, value, roomkv.Revision(revision))
			}
			return store.Put(cmd.Context(), key, value)
		},
	}
	cmd.Flags().BoolVar(&asString, "string", false, "the value is text, also where it looks like JSON")
	cmd.Flags().BoolVar(&raw, "raw", false, "the value is a file, whatever is in it")
	cmd.Flags().BoolVar(&create, "create", false, "fail where the key is there already")
	cmd.Flags().StringVar(&revision, "if-revision", "", "fail where the key has changed since `REVISION`, which get --json shows")
	cmd.ValidArgsFunction = func(cmd *cobra.Command, args []string, start string) ([]string, cobra.ShellCompDirective) {
		if len(args) > 0 {
			return nil, cobra.ShellCompDirectiveDefault
		}
		return a.completeKeys(cmd, args, start)
	}
	return cmd
}

// valueOf is what is meant by what was typed. What begins like an object, an array or a string of JSON and is none is a
// slip, and must not become text.
func valueOf(given string, asString bool) (any, error) {
	if !utf8.ValidString(given) {
		return nil, usagef("the value is not UTF-8, which all of JSON is; convert a text (with iconv), or encode bytes (with base64)")
	}
	if asString {
		return given, nil
	}
	if json.Valid([]byte(given)) {
		return json.RawMessage(given), nil
	}
	if start := strings.TrimSpace(given); start != "" && strings.ContainsRune(`{["`, rune(start[0])) {
		return nil, usagef("the value begins like JSON and is not; to store it as text, give --string")
	}
	return strings.TrimSuffix(strings.TrimSuffix(given, "\n"), "\r"), nil
}

// readAll reads standard input to its end, or until ctx ends.
func readAll(ctx context.Context, in io.Reader) (string, error) {
	type all struct {
		text []byte
		err  error
	}
	done := make(chan all, 1)
	go func() {
		text, err := io.ReadAll(in)
		done <- all{text, err}
	}()
	select {
	case read := <-done:
		return string(read.text), read.err
	case <-ctx.Done():
		return "", ctx.Err()
	}
}
