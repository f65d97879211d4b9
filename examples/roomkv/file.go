package main

import (
	"cmp"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// file is written under another name until it is complete, so that nobody ever finds half of it. Only its owner can read
// it.
type file struct {
	*os.File
	name  string
	force bool
}

// newFile begins a file. One of that name is there only with force.
func newFile(name string, force bool) (*file, error) {
	if _, err := os.Lstat(name); err == nil && !force {
		return nil, errExists(name)
	}
	temporary, err := os.CreateTemp(filepath.Dir(name), "."+filepath.Base(name)+"-*") // with the mode 0600
	if err != nil {
		return nil, err
	}
	return &file{temporary, name, force}, nil
}

// close gives the file its name where err is nil, and removes it otherwise.
func (f *file) close(err error) error {
	if err == nil {
		err = f.Sync()
	}
	err = cmp.Or(err, f.Close())
	if err == nil && f.force {
		err = os.Rename(f.Name(), f.name)
	} else if err == nil { // a rename would replace what has come since
		if err = os.Link(f.Name(), f.name); errors.Is(err, fs.ErrExist) {
			err = errExists(f.name)
		} else if err != nil { // a file system without links
			err = os.Rename(f.Name(), f.name)
		}
	}
	if remove := os.Remove(f.Name()); !errors.Is(remove, fs.ErrNotExist) {
		err = cmp.Or(err, remove)
	}
	return err
}

func errExists(name string) error {
	return fmt.Errorf("%s is there already; --force replaces it", name)
}
