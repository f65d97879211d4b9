//go:build unix

package folder

import (
	"errors"
	"fmt"
	"os"
	"syscall"
)

// private makes sure that nobody but the owner can use the folder.
func private(path string, empty bool) error {
	about, err := os.Stat(path)
	if err != nil {
		return err
	}
	if about.Mode().Perm()&0o077 == 0 {
		return nil
	}
	if empty && os.Chmod(path, 0o700) == nil {
		return nil
	}
	return fmt.Errorf("others can use the folder %s, whose mode is %#o: run chmod 700 on it, or name one in it that does not exist yet", path, about.Mode().Perm())
}

// flush waits until the folder itself, with the names of its files, is on the disk.
func flush(path string) error {
	dir, err := os.Open(path)
	if err != nil {
		return err
	}
	return errors.Join(dir.Sync(), dir.Close())
}

// lockFile takes the lock of the file, which the kernel gives back when the process ends.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	for {
		switch err = syscall.Flock(int(file.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err {
		case nil:
			return func() { _ = file.Close() }, nil
		case syscall.EINTR:
			continue
		case syscall.EWOULDBLOCK:
			err = ErrLocked
		}
		return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, file.Close())
	}
}
