package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// The environment variables that complete a login, and name a memory. Flags come first.
const (
	envHomeserver  = "ROOMKV_HOMESERVER"
	envUser        = "ROOMKV_USER"
	envPassword    = "ROOMKV_PASSWORD"
	envToken       = "ROOMKV_ACCESS_TOKEN"
	envProfile     = "ROOMKV_PROFILE"
	envConfigDir   = "ROOMKV_CONFIG_DIR"
	envRoom        = "ROOMKV_ROOM"
	envSecret      = "ROOMKV_SEALED_SECRET"
	envRecoveryKey = "ROOMKV_RECOVERY_KEY"
)

// account is what the flags say about who logs in, and where.
type account struct {
	homeserver, user        string
	passwordFile, tokenFile string
	profile                 string
}

// register adds the flags, with a prefix for one of two accounts.
func (c *account) register(flags *pflag.FlagSet, prefix string) {
	flags.StringVar(&c.homeserver, prefix+"homeserver", "", "`URL` of the homeserver, or its name ($"+envHomeserver+")")
	flags.StringVar(&c.user, prefix+"user", "", "user `ID` or its first part ($"+envUser+")")
	flags.StringVar(&c.passwordFile, prefix+"password-file", "", "`FILE` with the password (else $"+envPassword+", else asked for)")
	flags.StringVar(&c.tokenFile, prefix+"access-token-file", "", "`FILE` with an access token instead (else $"+envToken+")")
	flags.StringVar(&c.profile, prefix+"profile", "", "`NAME` of the kept login, where there are several ($"+envProfile+")")
}

func (a *app) loginCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "login",
		Short:   "Log in, and keep the login",
		GroupID: groupAccount,
		Long: `Log in, and keep the login for the commands that follow.

Every other verb logs in by itself where that is needed. What is kept, until "roomkv logout", is the access token and in
encrypted rooms the keys, in files that only you can read, under ` + configDirText() + ` or $` + envConfigDir + `.
An access token that is given is not kept, only tried.
Another --profile is another login beside it: of another account, or a second device of the same.`,
		Example: `  roomkv login --homeserver example.org --user bot
  roomkv login --user @other:example.org --profile other
  roomkv login --password-file /run/secrets/bot     # nobody is asked`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			session, err := a.session(cmd.Context(), a.account)
			if err != nil {
				return err
			}
			if session.borrowed {
				fmt.Fprintf(cmd.ErrOrStderr(), "The access token is one of %s on %s, device %s. It is not kept: each command needs it.\n",
					session.client.UserID, session.client.HomeserverURL, session.client.DeviceID)
				return nil
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Logged in as %s on %s, device %s.\n", session.client.UserID, session.client.HomeserverURL, session.client.DeviceID)
			return nil
		},
	}
}

func (a *app) logoutCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "logout",
		Short:   "End the kept login",
		GroupID: groupAccount,
		Long: `End the kept login: the homeserver forgets the device, and this computer its token and its keys.

Values in encrypted rooms that were written here stay readable for the account's other devices that were logged in then,
and where a recovery key was given for all.`,
		Example: "  roomkv logout\n  roomkv logout --profile other",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			kept, err := loadProfile(a.profile)
			if err != nil {
				return err
			}
			if kept.Token == "" {
				return fmt.Errorf("there is no kept login in the profile %q", kept.name)
			}
			client, err := kept.client(cmd.Context())
			if err != nil {
				return err
			}
			if _, err := client.Logout(cmd.Context()); err != nil && !errors.Is(err, mautrix.MUnknownToken) {
				return fmt.Errorf("the homeserver does not log %s out: %w", kept.User, err)
			}
			if err := kept.forget(); err != nil {
				return err
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Logged out %s.\n", kept.User)
			return nil
		},
	}
}

// session logs in as the account says: with an access token, else with the kept login, else with the password. Two memories
// of one account share a session.
func (a *app) session(ctx context.Context, who account) (*session, error) {
	token, err := secret(envToken, who.tokenFile)
	if err != nil {
		return nil, err
	}
	kept, err := loadProfile(who.profile)
	if err != nil {
		return nil, err
	}
	name := kept.name
	if token != "" {
		name = "token " + token
	}
	if opened, ok := a.sessions[name]; ok {
		return opened, nil
	}
	who.homeserver = cmp.Or(who.homeserver, os.Getenv(envHomeserver))
	who.user = cmp.Or(who.user, os.Getenv(envUser))

	var client *mautrix.Client
	switch {
	case token != "":
		client, err = who.withToken(ctx, token)
	case kept.Token != "":
		if err = kept.check(ctx, who); err == nil {
			client, err = kept.client(ctx)
		}
	default:
		client, err = who.withPassword(ctx, kept)
	}
	if err != nil {
		return nil, err
	}
	opened := &session{client: client, dir: kept.dir, borrowed: token != ""}
	if a.sessions == nil {
		a.sessions = map[string]*session{}
	}
	a.sessions[name] = opened
	return opened, nil
}

// withToken finds out whose the token is.
func (c account) withToken(ctx context.Context, token string) (*mautrix.Client, error) {
	url, err := c.url(ctx)
	if err != nil {
		return nil, err
	}
	client, err := newClient(ctx, url)
	if err != nil {
		return nil, err
	}
	client.AccessToken = token
	self, err := client.Whoami(ctx)
	if err != nil {
		return nil, fmt.Errorf("%s does not take the access token: %w", url, err)
	}
	client.UserID, client.DeviceID = self.UserID, self.DeviceID
	return client, nil
}

// withPassword makes a device, and keeps it in the profile.
func (c account) withPassword(ctx context.Context, kept *profile) (*mautrix.Client, error) {
	password, err := secret(envPassword, c.passwordFile)
	if err != nil {
		return nil, err
	}
	if attended() && c.user == "" {
		if c.user, err = ask(ctx, "User: "); err != nil {
			return nil, err
		}
	}
	if c.user == "" {
		return nil, usagef("who are you? Give --user or %s, and see: roomkv login --help", envUser)
	}
	if attended() && c.homeserver == "" && !strings.HasPrefix(c.user, "@") {
		if c.homeserver, err = ask(ctx, "Homeserver: "); err != nil {
			return nil, err
		}
	}
	url, err := c.url(ctx)
	if err != nil {
		return nil, err
	}
	if password == "" && attended() {
		if password, err = askSecret(ctx, fmt.Sprintf("Password of %s on %s: ", c.user, url)); err != nil {
			return nil, err
		}
	}
	if password == "" {
		return nil, usagef("no password for %s, and nobody to ask: set %s or %s, or give --password-file", c.user, envPassword, envToken)
	}
	client, err := newClient(ctx, url)
	if err != nil {
		return nil, err
	}
	_, err = client.Login(ctx, &mautrix.ReqLogin{
		Type:                     mautrix.AuthTypePassword,
		Identifier:               mautrix.UserIdentifier{Type: mautrix.IdentifierTypeUser, User: c.user},
		Password:                 password,
		InitialDeviceDisplayName: "roomkv command",
		StoreCredentials:         true,
	})
	if err != nil {
		return nil, fmt.Errorf("logging in as %s on %s: %w", c.user, url, err)
	}
	if err := kept.keep(client); err != nil {
		_, logoutErr := client.Logout(ctx)
		return nil, errors.Join(fmt.Errorf("keeping the login: %w; set %s to a folder that can be written", err, envConfigDir), logoutErr)
	}
	return client, nil
}

// url is the homeserver's base URL, looked up where only the server's name is known.
func (c account) url(ctx context.Context) (string, error) {
	server := c.homeserver
	if server == "" && strings.HasPrefix(c.user, "@") {
		server = id.UserID(c.user).Homeserver()
	}
	if server == "" {
		return "", usagef("which homeserver? Give --homeserver or %s", envHomeserver)
	}
	if strings.Contains(server, "://") {
		return strings.TrimRight(server, "/"), nil
	}
	found, err := mautrix.DiscoverClientAPI(ctx, server)
	if err != nil {
		return "", fmt.Errorf("looking for the homeserver of %s: %w", server, err)
	}
	if found == nil || found.Homeserver.BaseURL == "" {
		return "https://" + server, nil
	}
	return strings.TrimRight(found.Homeserver.BaseURL, "/"), nil
}

// newClient logs where --verbose asks for it, and nowhere else.
func newClient(ctx context.Context, url string) (*mautrix.Client, error) {
	client, err := mautrix.NewClient(url, "", "")
	if err != nil {
		return nil, usagef("%s cannot be a homeserver's URL: %w", url, err)
	}
	client.Log = *zerolog.Ctx(ctx)
	return client, nil
}

// secret is what the file holds, or else the environment variable, without the newline that editors add.
func secret(env, file string) (string, error) {
	if file == "" {
		return os.Getenv(env), nil
	}
	text, err := os.ReadFile(file)
	if err != nil {
		return "", err
	}
	found := strings.TrimRight(string(text), "\r\n")
	if found == "" {
		return "", fmt.Errorf("%s is empty", file)
	}
	return found, nil
}
