// Package folder keeps a bot's files: in a folder that only its owner can read, or in memory.
package folder

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"
)

// Folder is a folder of files. Its methods are safe for concurrent use, also by several processes.
type Folder struct {
	path string
	step func(done string) error // is told of each step of Write, in tests

	mu    sync.Mutex
	files map[string][]byte // of a folder in memory
	locks map[string]chan struct{}
}

// ErrDamaged is the kind of an error of a file that is there, and is not as it was written.
var ErrDamaged = errors.New("damaged file")

const (
	ending   = ".new"    // of a file that Write has not finished
	leftover = time.Hour // after which nobody finishes it
)

// Open opens the folder, and makes it where it does not exist. It fails where others than its owner can use the folder, but makes an empty one private.
// With "" for a path the folder is in memory, and ends with the process.
func Open(path string) (*Folder, error) {
	f := InMemory()
	f.path = path
	if path == "" {
		return f, nil
	}
	if err := os.MkdirAll(path, 0o700); err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, err
	}
	if err := private(path, len(entries) == 0); err != nil {
		return nil, err
	}
	for _, entry := range entries {
		about, err := entry.Info()
		if err == nil && strings.HasSuffix(entry.Name(), ending) && time.Since(about.ModTime()) > leftover {
			_ = os.Remove(filepath.Join(path, entry.Name()))
		}
	}
	return f, nil
}

// InMemory is an empty folder in memory.
func InMemory() *Folder {
	return &Folder{step: func(string) error { return nil }, files: map[string][]byte{}, locks: map[string]chan struct{}{}}
}

// Path is where the folder is, empty for one in memory.
func (f *Folder) Path() string { return f.path }

// Read is what the file holds. Where there is none, the error is [fs.ErrNotExist].
func (f *Folder) Read(name string) ([]byte, error) {
	if f.path != "" {
		return os.ReadFile(filepath.Join(f.path, name))
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	content, ok := f.files[name]
	if !ok {
		return nil, fmt.Errorf("%s: %w", name, fs.ErrNotExist)
	}
	return slices.Clone(content), nil
}

// Write replaces the file. Whoever reads it, also after a crash at any moment, finds all of the new content or all of the old. When Write returns nil, the
// new content is on the disk.
func (f *Folder) Write(name string, content []byte) (err error) {
	if f.path == "" {
		f.mu.Lock()
		defer f.mu.Unlock()
		f.files[name] = slices.Clone(content)
		return nil
	}
	file, err := os.CreateTemp(f.path, name+".*"+ending) // with mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignore(file.Close(), os.ErrClosed), ignore(os.Remove(file.Name()), fs.ErrNotExist))
		}
	}()
	if err := f.step("created"); err != nil {
		return err
	}
	if _, err := file.Write(content); err != nil {
		return err
	}
	if err := f.step("written"); err != nil {
		return err
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return err
	}
	if err := f.step("synced"); err != nil {
		return err
	}
	if err := os.Rename(file.Name(), filepath.Join(f.path, name)); err != nil {
		return err
	}
	if err := f.step("renamed"); err != nil {
		return err
	}
	return flush(f.path)
}

// Remove removes the file. It is no error where there is none.
func (f *Folder) Remove(name string) error {
	if f.path != "" {
		if err := ignore(os.Remove(filepath.Join(f.path, name)), fs.ErrNotExist); err != nil {
			return err
		}
		return flush(f.path)
	}
	f.mu.Lock()
	defer f.mu.Unlock()
	delete(f.files, name)
	return nil
}

// ErrLocked is the error of [Folder.TryLock] where somebody has the lock.
var ErrLocked = errors.New("locked")

// TryLock takes the lock of that name, until unlock is called or the process ends. It fails with [ErrLocked] where another process has it, or another
// part of this one.
func (f *Folder) TryLock(name string) (unlock func(), err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.locks[name] != nil {
		return nil, fmt.Errorf("%s: %w", name, ErrLocked)
	}
	release := func() {}
	if f.path != "" {
		if release, err = lockFile(filepath.Join(f.path, name)); err != nil {
			return nil, err
		}
	}
	done := make(chan struct{})
	f.locks[name] = done
	return sync.OnceFunc(func() {
		release()
		f.mu.Lock()
		defer f.mu.Unlock()
		delete(f.locks, name)
		close(done)
	}), nil
}

// The pauses between two looks at a lock that another process has: the first, which doubles, and the longest.
const (
	firstLook   = time.Millisecond
	longestLook = 50 * time.Millisecond
)

// Lock waits for the lock of that name and takes it, as [Folder.TryLock] does. It fails with ctx's error where that ends first.
func (f *Folder) Lock(ctx context.Context, name string) (unlock func(), err error) {
	for pause := firstLook; ; pause = min(2*pause, longestLook) {
		if unlock, err = f.TryLock(name); !errors.Is(err, ErrLocked) {
			return unlock, err
		}
		f.mu.Lock()
		here := f.locks[name] // closed when who has it in this folder gives it back
		f.mu.Unlock()
		select {
		case <-here:
		case <-time.After(pause):
		case <-ctx.Done():
			return nil, fmt.Errorf("waiting for the lock %s: %w", name, ctx.Err())
		}
	}
}

// ignore is nil for an error of that kind.
func ignore(err, kind error) error {
	if errors.Is(err, kind) {
		return nil
	}
	return err
}
