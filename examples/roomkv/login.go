package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"

	"github.com/roomkv/roomkv/session"
)

func (a *app) loginCommand() *cobra.Command {
	var browser, deviceCode bool
	cmd := &cobra.Command{
		Use:     "login",
		Short:   "Log in, and keep the login",
		GroupID: groupAccount,
		Long: `Log in, and keep the login for the commands that follow.

Every other verb logs in by itself where a password is given or can be asked for. Where the homeserver has no passwords, --oauth shows the address
of a page on which you approve the login, in a browser on this computer, and --device-code a code for a browser anywhere.

What is kept, until "roomkv logout", are the access token, which is refreshed when it ends, and in encrypted rooms the keys. They are in files that
only you can read, under ` + configDirText() + ` or $` + envConfigDir + `.
An access token that is given is not kept, only tried.
Another --profile is another login beside it: of another account, or a second device of the same.`,
		Example: `  roomkv login --homeserver example.org --user bot
  roomkv login --user @bot:example.org --oauth
  roomkv login --user @bot:example.org --device-code
  roomkv login --user @other:example.org --profile other
  roomkv login --password-file /run/secrets/bot     # nobody is asked`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if browser && deviceCode {
				return usagef("--oauth and --device-code exclude each other")
			}
			var oauth *session.OAuth
			errs := cmd.ErrOrStderr()
			switch {
			case browser:
				oauth = &session.OAuth{Flow: session.OAuthBrowser, ShowURL: showURL(errs)}
			case deviceCode:
				oauth = &session.OAuth{Flow: session.OAuthDeviceCode, ShowCode: showCode(errs)}
			}
			login, err := a.signIn(cmd.Context(), oauth)
			if err != nil {
				return err
			}
			if login.borrowed && oauth != nil {
				return usagef("an access token is given, so that there is nothing to log in: leave out --access-token-file and %s", envToken)
			}
			client := login.bot.Client
			if a.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(loginLine{client.UserID.String(), client.DeviceID.String(), client.HomeserverURL.String(), !login.borrowed})
			}
			if login.borrowed {
				fmt.Fprintf(errs, "The access token is one of %s on %s, device %s. It is not kept: each command needs it.\n", oneLine(client.UserID.String()), client.HomeserverURL, oneLine(client.DeviceID.String()))
				return nil
			}
			fmt.Fprintf(errs, "Logged in as %s on %s, device %s.\n", oneLine(client.UserID.String()), client.HomeserverURL, oneLine(client.DeviceID.String()))
			return nil
		},
	}
	cmd.Flags().BoolVar(&browser, "oauth", false, "approve the login on a page in a browser on this computer")
	cmd.Flags().BoolVar(&deviceCode, "device-code", false, "approve the login with a code, in a browser anywhere")
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// signIn logs in, also where the homeserver has ended the kept login.
func (a *app) signIn(ctx context.Context, oauth *session.OAuth) (*login, error) {
	login, err := a.connect(ctx, a.account, oauth)
	if err != nil {
		return nil, err
	}
	_, err = login.bot.Client.Whoami(ctx)
	if errors.Is(err, session.ErrSignedOut) && !login.borrowed {
		err = a.close()
		a.logins = nil
		if err == nil {
			login, err = a.connect(ctx, a.account, oauth)
		}
	}
	return login, err
}

// loginLine is what --json prints of a login.
type loginLine struct {
	User       string `json:"user"`
	Device     string `json:"device"`
	Homeserver string `json:"homeserver"`
	Kept       bool   `json:"kept"`
}

func showURL(out io.Writer) func(context.Context, string) error {
	return func(_ context.Context, url string) error {
		_, err := fmt.Fprintf(out, "Open this page in a browser on this computer, and approve the login:\n\n  %s\n\n", plain(url, out))
		return err
	}
}

func showCode(out io.Writer) func(context.Context, session.UserCode) error {
	return func(_ context.Context, code session.UserCode) error {
		address, action := code.URL, "enter"
		if code.FullURL != "" {
			address, action = code.FullURL, "compare"
		}
		_, err := fmt.Fprintf(out, "Open this page in a browser, and %s the code %s, until %s:\n\n  %s\n\n",
			action, plain(code.Code, out), code.Expires.Local().Format(time.TimeOnly), plain(address, out))
		return err
	}
}

func (a *app) logoutCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "logout",
		Short:   "End the kept login",
		GroupID: groupAccount,
		Long: `End the kept login: the homeserver forgets the device, and this computer its token and its keys.

Values in encrypted rooms stay readable with the account's recovery key. Where this command has made that key, it stays in a file, which logout names.`,
		Example: "  roomkv logout\n  roomkv logout --profile other",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kept, err := loadProfile(a.profile)
			if err != nil {
				return err
			}
			if kept.kept.User == "" {
				return fmt.Errorf("there is no kept login in the profile %q", kept.name)
			}
			if kept.kept.SignedIn {
				if err := kept.signOut(cmd.Context()); err != nil {
					return fmt.Errorf("the homeserver does not log %s out: %w", kept.kept.User, err)
				}
			}
			key, err := kept.forget()
			if err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Logged out %s.\n", oneLine(kept.kept.User.String()))
			if key != "" {
				fmt.Fprintf(cmd.ErrOrStderr(), "The account's recovery key is in %s.\nWithout it, encrypted values cannot be read again: give it as --recovery-key-file.\n", key)
			}
			return nil
		},
	}
	cmd.ValidArgsFunction = cobra.NoFileCompletions
	return cmd
}

// signOut has the homeserver forget the device.
func (p *profile) signOut(ctx context.Context) error {
	config, err := p.config(ctx, account{}, "", nil)
	if err != nil {
		return err
	}
	config.Password = "" // a session that has ended is not to begin again
	bot, err := session.Open(ctx, config)
	if err != nil {
		return err
	}
	return bot.SignOut(ctx)
}
