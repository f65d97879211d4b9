package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net/url"
	"os"
	"path/filepath"
)

// oldPickle is what earlier versions of the command encrypted their crypto stores with.
const oldPickle = "roomkv"

// oldLogin is what they kept in login.json. Package session's token.json has the same under other names.
type oldLogin struct {
	Homeserver string `json:"homeserver"`
	User       string `json:"user"`
	Device     string `json:"device"`
	Token      string `json:"access_token"`
}

// adopt gives the files of an earlier version the form that package session reads. It can be interrupted at any moment, and then goes on.
func (p *profile) adopt() error {
	old := filepath.Join(p.dir, "login.json")
	text, err := os.ReadFile(old)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	var login oldLogin
	if json.Unmarshal(text, &login) != nil || login.Token == "" { // the error would show the token
		return fmt.Errorf("%s, which an earlier version has written, is damaged; remove it, and log in again", old)
	}
	if err := adoptStore(p.dir, p.dir, login.Device); err != nil {
		return err
	}
	if text, err = json.Marshal(map[string]string{
		"server": login.Homeserver, "homeserver": login.Homeserver, "user_id": login.User, "device_id": login.Device, "access_token": login.Token,
	}); err != nil {
		return err
	}
	if err := replace(filepath.Join(p.dir, "token.json"), text); err != nil {
		return err
	}
	return os.Remove(old)
}

// adoptStore moves the device's crypto store of an earlier version to where package session has it.
func adoptStore(from, to, device string) error {
	old, db := filepath.Join(from, "crypto-"+url.PathEscape(device)+".db"), filepath.Join(to, "crypto.db")
	if _, err := os.Stat(old); errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if _, err := os.Stat(db); err == nil {
		return nil // one that session has made
	}
	if err := os.MkdirAll(to, 0o700); err != nil {
		return err
	}
	if err := replace(filepath.Join(to, "pickle.key"), []byte(oldPickle)); err != nil {
		return err
	}
	for _, part := range []string{"-wal", "-shm", ""} { // the file without which there is nothing to move comes last
		if err := os.Rename(old+part, db+part); err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}

func replace(name string, text []byte) error {
	file, err := newFile(name, true)
	if err != nil {
		return err
	}
	_, err = file.Write(text)
	return file.close(err)
}
