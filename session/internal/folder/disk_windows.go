package folder

import (
	"errors"
	"os"

	"golang.org/x/sys/windows"
)

// private does nothing: a folder on Windows has the access list of the one that it is in, which in a user's own folders is the user's.
func private(string, bool) error { return nil }

// flush does nothing, for Windows cannot.
func flush(string) error { return nil }

// lockFile takes the lock of the file, which the system gives back when the process ends.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	err = windows.LockFileEx(windows.Handle(file.Fd()), windows.LOCKFILE_EXCLUSIVE_LOCK|windows.LOCKFILE_FAIL_IMMEDIATELY, 0, 1, 0, new(windows.Overlapped))
	if err == nil {
		return func() { _ = file.Close() }, nil
	}
	if errors.Is(err, windows.ERROR_LOCK_VIOLATION) {
		err = ErrLocked
	}
	return nil, errors.Join(&os.PathError{Op: "lock", Path: path, Err: err}, file.Close())
}
