package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"

	"github.com/spf13/pflag"
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

// complete asks the person at the terminal for what the flags lack, but for the password. Elsewhere what lacks is wrong usage.
func (c *account) complete(ctx context.Context) (err error) {
	if c.user == "" && attended() {
		if c.user, err = ask(ctx, "User: "); err != nil {
			return err
		}
	}
	if c.user == "" {
		return usagef("who are you? Give --user or %s", envUser)
	}
	if c.homeserver == "" && !strings.HasPrefix(c.user, "@") && attended() {
		if c.homeserver, err = ask(ctx, "Homeserver: "); err != nil {
			return err
		}
	}
	return c.check()
}

// check makes sure that the homeserver is known.
func (c *account) check() error {
	if c.homeserver == "" && id.UserID(c.user).Homeserver() == "" {
		return usagef("which homeserver? Give --homeserver or %s", envHomeserver)
	}
	return nil
}

// password is the one that was given. Without one it asks the person at the terminal.
func (c *account) password(ctx context.Context) (string, error) {
	password, err := secret(envPassword, c.passwordFile)
	if err == nil && password == "" && attended() {
		password, err = askSecret(ctx, fmt.Sprintf("Password of %s: ", c.user))
	}
	if err == nil && password == "" {
		err = usagef("no password for %s, and nobody to ask: set %s or %s, give --password-file, or sign in with roomkv login --oauth", c.user, envPassword, envToken)
	}
	return password, err
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
		return "", errors.New(file + " is empty")
	}
	return found, nil
}
