package main

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/id"
)

// profile is a login that is kept in a folder of its own, together with the device's crypto store.
type profile struct {
	name, dir string

	Homeserver string      `json:"homeserver"` // base URL
	User       id.UserID   `json:"user"`
	Device     id.DeviceID `json:"device"`
	Token      string      `json:"access_token"` // "" where nobody has logged in
}

const defaultProfile = "default"

// loadProfile reads the profile of that name, which may have no login yet.
func loadProfile(name string) (*profile, error) {
	name = cmp.Or(name, os.Getenv(envProfile), defaultProfile)
	if !filepath.IsLocal(name) || filepath.Base(name) != name {
		return nil, usagef("%q cannot be the name of a profile", name)
	}
	dir, err := configDir()
	if err != nil {
		return nil, err
	}
	p := &profile{name: name, dir: filepath.Join(dir, name)}
	text, err := os.ReadFile(p.file())
	if errors.Is(err, fs.ErrNotExist) {
		return p, nil
	}
	if err != nil {
		return nil, err
	}
	if json.Unmarshal(text, p) != nil || p.Token == "" { // the error would show the token
		return nil, fmt.Errorf("%s is damaged; remove it, and log in again", p.file())
	}
	return p, nil
}

func (p *profile) file() string { return filepath.Join(p.dir, "login.json") }

// client is logged in already. It sends nothing.
func (p *profile) client(ctx context.Context) (*mautrix.Client, error) {
	client, err := newClient(ctx, p.Homeserver)
	if err != nil {
		return nil, err
	}
	client.UserID, client.DeviceID, client.AccessToken = p.User, p.Device, p.Token
	return client, nil
}

// check makes sure that the kept login is that of the account that is asked for.
func (p *profile) check(ctx context.Context, who account) error {
	instead := fmt.Sprintf("end it with \"roomkv logout --profile %s\", or log in beside it with another --profile", p.name)
	if user := who.user; user != "" && user != p.User.String() && user != p.User.Localpart() {
		return usagef("the profile %q is %s, not %s: %s", p.name, p.User, user, instead)
	}
	if who.homeserver == "" || who.homeserver == p.User.Homeserver() {
		return nil
	}
	url, err := who.url(ctx)
	if err == nil && url != p.Homeserver {
		err = usagef("the profile %q is on %s, not %s: %s", p.name, p.Homeserver, url, instead)
	}
	return err
}

func (p *profile) keep(client *mautrix.Client) error {
	p.Homeserver = strings.TrimRight(client.HomeserverURL.String(), "/")
	p.User, p.Device, p.Token = client.UserID, client.DeviceID, client.AccessToken
	text, err := json.MarshalIndent(p, "", "  ")
	if err != nil {
		return err
	}
	if err := os.MkdirAll(p.dir, 0o700); err != nil {
		return err
	}
	file, err := newFile(p.file(), true)
	if err != nil {
		return err
	}
	_, err = file.Write(append(text, '\n'))
	return file.close(err)
}

// forget removes the login and the crypto stores beside it.
func (p *profile) forget() error { return os.RemoveAll(p.dir) }

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
