package main

import (
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
	if closed := f.Close(); err == nil {
		err = closed
	}
	if err == nil {
		err = f.publish()
	}
	if removed := os.Remove(f.Name()); err == nil && !errors.Is(removed, fs.ErrNotExist) {
		err = removed
	}
	return err
}

// publish gives the file its name. A link, unlike a rename, does not replace what has come there since.
func (f *file) publish() error {
	if !f.force {
		err := os.Link(f.Name(), f.name)
		if errors.Is(err, fs.ErrExist) {
			return errExists(f.name)
		}
		if err == nil {
			return nil
		} // else a file system without links
	}
	return os.Rename(f.Name(), f.name)
}

func errExists(name string) error {
	return fmt.Errorf("%s is there already; --force replaces it", name)
}
