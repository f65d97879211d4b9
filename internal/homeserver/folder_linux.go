package homeserver

import (
	"os"
	"syscall"
)

const (
	memoryFolder = "/dev/shm"
	memoryNeeded = 4 << 30 // bytes
)

// dataFolder makes a folder for a server's data, in memory where there is room and TMPDIR names no other place: on a disk tests take several times as
// long, and more where something else writes there.
func dataFolder(pattern string) (string, error) {
	var stat syscall.Statfs_t
	if os.Getenv("TMPDIR") == "" && syscall.Statfs(memoryFolder, &stat) == nil && stat.Bavail >= memoryNeeded/uint64(stat.Bsize) {
		if dir, err := os.MkdirTemp(memoryFolder, pattern); err == nil {
			return dir, nil
		}
	}
	return os.MkdirTemp("", pattern)
}
