//go:build unix

package homeserver

import (
	"os"
	"syscall"
)

// lockFile waits for an exclusive lock on the file at path, across processes. The kernel gives it back when
// its holder dies.
func lockFile(path string) (unlock func(), err error) {
	file, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, err
	}
	for {
		err := syscall.Flock(int(file.Fd()), syscall.LOCK_EX)
		if err == nil {
			return func() { _ = file.Close() }, nil
		}
		if err != syscall.EINTR {
			_ = file.Close()
			return nil, &os.PathError{Op: "lock", Path: path, Err: err}
		}
	}
}
