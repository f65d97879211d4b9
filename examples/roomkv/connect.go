package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/session"
)

// login is an account that has logged in. Its keys are opened when the first encrypted room asks for them.
type login struct {
	profile  *profile
	borrowed bool // whether it is by an access token that was given
	config   session.Config
	bot      *session.Bot // without encryption
	secure   *session.Bot // with it, nil until it is needed
	made     bool         // whether opening that has made a recovery key
}

// connect logs in as the account says: with an access token, else with the kept login, else by OAuth where that is not nil, else with the password. Two
// memories of one account share a login.
func (a *app) connect(ctx context.Context, who account, oauth *session.OAuth) (*login, error) {
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
	if opened, ok := a.logins[name]; ok {
		return opened, nil
	}
	who.homeserver = cmp.Or(who.homeserver, os.Getenv(envHomeserver))
	who.user = cmp.Or(who.user, os.Getenv(envUser))
	l := &login{profile: kept, borrowed: token != ""}
	if l.config, err = kept.config(ctx, who, token, oauth); err != nil {
		return nil, err
	}
	if l.bot, err = session.Open(ctx, l.config); err != nil {
		return nil, err
	}
	if !l.borrowed && !kept.kept.SignedIn {
		if kept.kept, err = session.ReadDir(kept.dir); err != nil {
			return nil, errors.Join(err, l.close())
		}
	}
	l.config.OAuth = nil // it is kept now
	if a.logins == nil {
		a.logins = map[string]*login{}
	}
	a.logins[name] = l
	return l, nil
}

// config is how package session is to log in, without encryption.
func (p *profile) config(ctx context.Context, who account, token string, oauth *session.OAuth) (session.Config, error) {
	log := *zerolog.Ctx(ctx) // where --verbose asks for it, and nowhere else
	config := session.Config{DeviceName: "roomkv command", NoEncryption: true, Presence: event.PresenceOffline, Logger: &log}
	if token != "" {
		config.AccessToken, config.User, config.Homeserver = token, who.user, who.homeserver
		return config, who.check()
	}
	config.Dir = p.dir
	if p.kept.User != "" {
		if err := p.check(who); err != nil {
			return config, err
		}
		who.user, who.homeserver = p.kept.User.String(), p.kept.Homeserver
	}
	var err error
	switch {
	case p.kept.SignedIn: // with the password it can sign in again where the homeserver ends the session
		config.Password, err = secret(envPassword, who.passwordFile)
	case oauth != nil:
		config.OAuth = oauth
		err = who.complete(ctx)
	default:
		if err = who.complete(ctx); err == nil {
			config.Password, err = who.password(ctx)
		}
	}
	config.User, config.Homeserver = who.user, who.homeserver
	return config, err
}

// encrypted is the bot with encryption, and with the account's key backup. Where the account has neither, they are set up. adapt changes how
// the bot is opened; with nil it also fetches the keys that others have sent.
func (a *app) encrypted(ctx context.Context, l *login, recoveryKey string, adapt func(*session.Config)) (*session.Bot, error) {
	if l.secure != nil {
		return l.secure, nil
	}
	config := l.config
	config.NoEncryption, config.RecoveryKey = false, recoveryKey
	if l.borrowed { // its device has keys of its own
		if l.bot.Client.DeviceID == "" {
			return nil, errors.New("the access token has no device, which an encrypted room needs; log in with a password")
		}
		config.Dir = l.keysDir()
		if err := adoptStore(l.profile.dir, config.Dir, l.bot.Client.DeviceID.String()); err != nil {
			return nil, err
		}
	}
	if adapt != nil {
		adapt(&config)
	}
	made := l.recoveryFile()
	_, before := os.Stat(made)
	opened, err := session.Open(ctx, config)
	if err != nil {
		return nil, err
	}
	l.secure = opened
	if _, err := os.Stat(made); err == nil {
		l.made = errors.Is(before, fs.ErrNotExist)
	}
	if adapt == nil {
		return opened, opened.FetchKeys(ctx)
	}
	return opened, nil
}

// tellOfKey tells the person of a recovery key that was made on the way.
func (l *login) tellOfKey() {
	if !l.made {
		return
	}
	fmt.Fprintf(os.Stderr, "%s had no key backup, and has one now. The recovery key is in %s.\n"+
		"Keep a copy in another place: without it, what is encrypted is lost with this computer.\n", oneLine(l.bot.Client.UserID.String()), l.recoveryFile())
	l.made = false
}

// keysDir is where the keys of the device are.
func (l *login) keysDir() string {
	if l.borrowed {
		return filepath.Join(l.profile.dir, "device-"+url.PathEscape(l.bot.Client.DeviceID.String()))
	}
	return l.profile.dir
}

// recoveryFile is where package session keeps a recovery key that it has made.
func (l *login) recoveryFile() string { return filepath.Join(l.keysDir(), recoveryFile) }

// close is for when the command is over.
func (l *login) close() error {
	var err error
	if l.secure != nil {
		err = l.secure.Close()
	}
	return errors.Join(err, l.bot.Close())
}

func (a *app) close() error {
	var err error
	for _, l := range a.logins {
		err = errors.Join(err, l.close())
	}
	return err
}
