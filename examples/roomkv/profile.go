package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/roomkv/roomkv/session"
)

// profile is a folder that package session keeps a login in, together with the device's keys.
type profile struct {
	name, dir string
	kept      session.Kept
}

const defaultProfile = "default"

// loadProfile reads the profile of that name, which may have no login yet.
func loadProfile(name string) (*profile, error) {
	name = cmp.Or(name, os.Getenv(envProfile), defaultProfile)
	if !filepath.IsLocal(name) || filepath.Base(name) != name || name == "." { // the last one is the folder of all profiles
		return nil, usagef("%q cannot be the name of a profile", name)
	}
	dir, err := configDir()
	if err != nil {
		return nil, err
	}
	p := &profile{name: name, dir: filepath.Join(dir, name)}
	if err := p.adopt(); err != nil {
		return nil, err
	}
	p.kept, err = session.ReadDir(p.dir)
	return p, err
}

// check makes sure that the kept login is that of the account that is asked for.
func (p *profile) check(who account) error {
	instead := fmt.Sprintf("end it with \"roomkv logout --profile %s\", or log in beside it with another --profile", p.name)
	kept := p.kept
	if user := who.user; user != "" && user != kept.User.String() && user != kept.User.Localpart() {
		return usagef("the profile %q is %s, not %s: %s", p.name, kept.User, user, instead)
	}
	switch server := strings.TrimRight(who.homeserver, "/"); server {
	case "", kept.User.Homeserver(), strings.TrimRight(kept.Homeserver, "/"), kept.URL:
		return nil
	default:
		return usagef("the profile %q is on %s, not %s: %s", p.name, kept.URL, server, instead)
	}
}

// recoveryFile is where package session keeps a recovery key that it has made, in the folder with the keys.
const recoveryFile = "recovery.key"

// forget removes the login and its keys. A recovery key that the profile keeps can be the only copy, so that it stays, in the file that forget names.
func (p *profile) forget() (keptKey string, err error) {
	text, err := os.ReadFile(filepath.Join(p.dir, recoveryFile))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return "", os.RemoveAll(p.dir)
	case err != nil:
		return "", err
	}
	if keptKey, err = p.saveKey(text); err != nil {
		return "", err
	}
	return keptKey, os.RemoveAll(p.dir)
}

// saveKey puts the recovery key beside the profiles, in a file that has none of another account or time.
func (p *profile) saveKey(text []byte) (name string, err error) {
	of := strings.Map(func(r rune) rune {
		if strings.ContainsRune("/\\:*?\"<>|", r) {
			return '_'
		}
		return r
	}, strings.TrimPrefix(p.kept.User.String(), "@"))
	for n := 1; ; n++ {
		name = filepath.Join(filepath.Dir(p.dir), fmt.Sprintf("recovery-key-%d-of-%s", n, of))
		if there, err := os.ReadFile(name); err == nil && string(there) == string(text) {
			return name, nil
		} else if err == nil {
			continue
		}
		file, err := newFile(name, false)
		if err != nil {
			return "", err
		}
		_, err = file.Write(text)
		return name, file.close(err)
	}
}

func configDir() (string, error) {
	if dir := os.Getenv(envConfigDir); dir != "" {
		return dir, nil
	}
	dir, err := os.UserConfigDir()
	if err != nil {
		return "", fmt.Errorf("no folder for logins: %w; set %s", err, envConfigDir)
	}
	return filepath.Join(dir, "roomkv"), nil
}

// configDirText is for the help.
func configDirText() string {
	dir, err := configDir()
	if err != nil {
		return "your folder for settings"
	}
	return dir
}
