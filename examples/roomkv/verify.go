package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session"
)

func (a *app) verifyCommand() *cobra.Command {
	var yes bool
	cmd := &cobra.Command{
		Use:     "verify [USER]",
		Short:   "Let somebody verify this login by comparing emojis",
		GroupID: groupAccount,
		Long: `Wait until USER verifies this login's device from another client, and compare emojis with them. Without USER it is another client of the same account.

In Element, USER opens the account's profile in a room of the two, and chooses Verify. Both sides then show the same emojis, unless somebody is between
them. Once both have said so, each account has signed the other's key. Where nobody can be asked here, it needs --yes: then the other side alone
compares, and this command shows the emojis and takes them for the same.`,
		Example: `  roomkv verify @alice:example.org
  roomkv verify @alice:example.org --yes       # the other side alone compares`,
		Args: atMost("USER"),
		RunE: func(cmd *cobra.Command, args []string) error {
			if !yes && !attended() {
				return usagef("nobody is there to compare emojis: give --yes to leave that to the other side")
			}
			if len(args) > 0 {
				if _, _, err := id.UserID(args[0]).ParseAndValidateRelaxed(); err != nil {
					return usagef("%q is no user ID, as @alice:example.org", args[0])
				}
			}
			login, err := a.connect(cmd.Context(), a.account, nil)
			if err != nil {
				return err
			}
			with := login.bot.Client.UserID
			if len(args) > 0 {
				with = id.UserID(args[0])
			}
			return a.verify(cmd, login, with, yes)
		},
	}
	cmd.Flags().BoolVarP(&yes, "yes", "y", false, "do not ask: the other side alone compares")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// verified is what --json prints of a verification.
type verified struct {
	User     id.UserID   `json:"user"`
	Device   id.DeviceID `json:"device"`
	Verified bool        `json:"verified"`
}

// verify runs the bot until a verification has ended.
func (a *app) verify(cmd *cobra.Command, login *login, with id.UserID, yes bool) error {
	recoveryKey, err := secret(envRecoveryKey, a.recoveryKeyFile)
	if err != nil {
		return err
	}
	ctx, stop := context.WithCancel(cmd.Context())
	defer stop()
	out := cmd.ErrOrStderr()
	ended := make(chan verified, 1)
	bot, err := a.encrypted(ctx, login, recoveryKey, func(config *session.Config) {
		config.Filter = &mautrix.Filter{
			Room:        &mautrix.RoomFilter{State: &mautrix.FilterPart{LazyLoadMembers: true}},
			Presence:    &mautrix.FilterPart{NotTypes: []event.Type{{Type: "*"}}},
			AccountData: &mautrix.FilterPart{NotTypes: []event.Type{{Type: "*"}}},
		}
		config.Verification = &session.Verification{
			Users:   []id.UserID{with},
			Compare: func(ctx context.Context, shown session.SAS) (bool, error) { return compareEmojis(ctx, out, shown, yes) },
			Done: func(user id.UserID, device id.DeviceID, ok bool) {
				select {
				case ended <- verified{user, device, ok}:
				default: // another one has ended before
				}
			},
		}
	})
	login.tellOfKey()
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "Waiting for %s to verify %s, device %s.\nCtrl-C ends that.\n", with, oneLine(bot.Client.UserID.String()), oneLine(bot.Client.DeviceID.String()))
	over := make(chan error, 1)
	go func() { over <- bot.Run(ctx) }()
	select {
	case err := <-over:
		if err == nil { // Run has seen the signal that ends this context too
			<-cmd.Context().Done()
			err = cmd.Context().Err()
		}
		return err
	case done := <-ended:
		stop()
		return a.printVerified(cmd, done, <-over)
	}
}

func (a *app) printVerified(cmd *cobra.Command, done verified, err error) error {
	if a.json {
		err = errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(done), err)
	}
	if !done.Verified {
		return errors.Join(fmt.Errorf("%s, device %s, is not verified: the verification was cancelled, or the emojis are not the same", done.User, oneLine(done.Device.String())), err)
	}
	fmt.Fprintf(cmd.ErrOrStderr(), "Verified: %s, device %s.\n", done.User, oneLine(done.Device.String()))
	return err
}

// compareEmojis shows what the other side must show too.
func compareEmojis(ctx context.Context, out io.Writer, shown session.SAS, yes bool) (bool, error) {
	fmt.Fprintf(out, "%s, device %s, shows the same, if nobody is between you:\n\n", shown.User, oneLine(shown.Device.String()))
	if len(shown.Emojis) == 0 {
		fmt.Fprintf(out, "  %s\n\n", strings.Trim(fmt.Sprint(shown.Decimals), "[]"))
	}
	for i, emoji := range shown.Emojis {
		fmt.Fprintf(out, "  %c  %s\n", emoji, shown.Names[i])
	}
	if yes {
		return true, nil
	}
	answer, err := ask(ctx, "\nIs it the same there? [y/N] ")
	return slices.Contains([]string{"y", "yes"}, strings.ToLower(answer)), err
}
