package session

import (
	"cmp"
	"net/url"
	"slices"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// The defaults of a Config.
const (
	defaultDeviceName = "roomkv bot"
	defaultTimeout    = time.Minute
)

// longestTimeout is more than a request takes. A sync's time is added to it, which would overflow otherwise.
const longestTimeout = 24 * time.Hour

// withDefaults fills in what is not given.
func (c Config) withDefaults() Config {
	c.DeviceName = cmp.Or(c.DeviceName, defaultDeviceName)
	c.Presence = cmp.Or(c.Presence, event.PresenceOnline)
	c.Timeout = min(cmp.Or(c.Timeout, defaultTimeout), longestTimeout)
	if c.Homeserver == "" {
		_, c.Homeserver, _ = id.UserID(c.User).ParseAndDecode()
	}
	return c
}

// check finds the first contradiction.
func (c Config) check() error {
	if err := c.checkSignIn(); err != nil {
		return err
	}
	if err := c.checkEncryption(); err != nil {
		return err
	}
	if err := c.Invites.check(); err != nil {
		return err
	}
	switch {
	case c.Timeout < 0:
		return fail(ErrInvalidConfig, "Timeout is negative, %s", c.Timeout)
	case c.Logger != nil && c.Slog != nil:
		return fail(ErrInvalidConfig, "Logger and Slog are both given, and one is used")
	case !slices.Contains([]event.Presence{"", event.PresenceOnline, event.PresenceOffline, event.PresenceUnavailable}, c.Presence):
		return fail(ErrInvalidConfig, "Presence is %q, and not online, unavailable or offline", c.Presence)
	case c.Proxy != "":
		_, err := c.proxy()
		return err
	}
	return nil
}

func (c Config) checkSignIn() error {
	ways := 0
	for _, given := range []bool{c.Password != "", c.AccessToken != "", c.OAuth != nil} {
		if given {
			ways++
		}
	}
	_, server, err := id.UserID(c.User).Parse()
	full := strings.HasPrefix(c.User, "@")
	switch {
	case c.User == "" && c.AccessToken == "":
		return fail(ErrInvalidConfig, "User is not given; it is the bot's user ID, or the part of it before the server's name")
	case full && (err != nil || server == ""):
		return fail(ErrInvalidConfig, "User %q begins with @ and is no user ID, as @bot:example.org", c.User)
	case !full && strings.Contains(c.User, ":"):
		return fail(ErrInvalidConfig, "User %q is neither a user ID, as @bot:example.org, nor the part of one before the colon", c.User)
	case !full && c.Homeserver == "":
		return fail(ErrInvalidConfig, "Homeserver is not given, and User %q does not name one", c.User)
	case ways > 1:
		return fail(ErrInvalidConfig, "more than one of Password, AccessToken and OAuth is given: leave out all but one")
	case ways == 0 && c.Dir == "":
		return fail(ErrInvalidConfig, "none of Password, AccessToken and OAuth is given, and there is no Dir that keeps a session")
	case c.OAuth != nil && c.Dir == "":
		return fail(ErrInvalidConfig, "OAuth needs a Dir, for what it signs in cannot be signed in again without a person")
	case c.OAuth != nil:
		return c.OAuth.check()
	}
	return nil
}

func (c Config) checkEncryption() error {
	switch {
	case c.NoEncryption && (c.RecoveryKey != "" || c.OnRecoveryKey != nil || c.PickleKey != nil || c.Verification != nil):
		return fail(ErrInvalidConfig, "NoEncryption is set, and so is one of RecoveryKey, OnRecoveryKey, PickleKey and Verification, which are of no use then")
	case c.PickleKey != nil && len(c.PickleKey) == 0:
		return fail(ErrInvalidConfig, "PickleKey is empty; nil is a random key")
	case c.NoEncryption || c.Dir != "":
		return nil
	case c.AccessToken != "":
		return fail(ErrNoDevice, "AccessToken is of a device whose keys are not here, for there is no Dir: give a Password in its place, or a Dir, or set NoEncryption")
	case c.RecoveryKey == "":
		return fail(ErrRecoveryKeyNeeded, "there is no Dir that could keep one: give a RecoveryKey, which NewRecoveryKey makes for a new account, or a Dir, or set NoEncryption")
	}
	return nil
}

// proxy is the URL of the proxy.
func (c Config) proxy() (*url.URL, error) {
	proxy, err := url.Parse(c.Proxy)
	if err != nil || proxy.Host == "" || !slices.Contains([]string{"http", "https", "socks5", "socks5h"}, proxy.Scheme) {
		return nil, fail(ErrInvalidConfig, "Proxy is not the URL of a proxy, as http://proxy.example.org:3128 or socks5://127.0.0.1:1080") // it can hold a password
	}
	return proxy, nil
}
