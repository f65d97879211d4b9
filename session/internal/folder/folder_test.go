package folder

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestFiles(t *testing.T) {
	for name, path := range map[string]string{"in memory": "", "on disk": filepath.Join(t.TempDir(), "a", "b")} {
		t.Run(name, func(t *testing.T) {
			f, err := Open(path)
			require.NoError(t, err)
			assert.Equal(t, path, f.Path())
			_, err = f.Read("file")
			require.ErrorIs(t, err, fs.ErrNotExist)
			require.NoError(t, f.Remove("file"))
			require.NoError(t, f.Write("file", []byte("one")))
			require.NoError(t, f.Write("file", []byte("two")))
			got, err := f.Read("file")
			require.NoError(t, err)
			assert.Equal(t, "two", string(got))
			got[0] = 'x'
			got, err = f.Read("file")
			require.NoError(t, err)
			assert.Equal(t, "two", string(got), "it is a copy")
			if path != "" {
				about, err := os.Stat(path)
				require.NoError(t, err)
				assert.Equal(t, fs.FileMode(0o700), about.Mode().Perm())
				about, err = os.Stat(filepath.Join(path, "file"))
				require.NoError(t, err)
				assert.Equal(t, fs.FileMode(0o600), about.Mode().Perm())
			}
			require.NoError(t, f.Remove("file"))
			_, err = f.Read("file")
			require.ErrorIs(t, err, fs.ErrNotExist)
		})
	}
}

func TestLocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	for name, path := range map[string]string{"in memory": "", "on disk": path} {
		t.Run(name, func(t *testing.T) {
			f, err := Open(path)
			require.NoError(t, err)
			other := f // another part of the process
			if path != "" {
				other, err = Open(path) // as another process has it
				require.NoError(t, err)
			}
			unlock, err := f.Lock(t.Context(), "lock")
			require.NoError(t, err)
			for _, at := range []*Folder{f, other} {
				_, err = at.TryLock("lock")
				require.ErrorIs(t, err, ErrLocked)
				ctx, cancel := context.WithTimeout(t.Context(), 20*time.Millisecond)
				_, err = at.Lock(ctx, "lock")
				require.ErrorIs(t, err, context.DeadlineExceeded)
				cancel()
			}
			free, err := other.TryLock("another")
			require.NoError(t, err)
			free()
			time.AfterFunc(20*time.Millisecond, unlock)
			again, err := other.Lock(t.Context(), "lock")
			require.NoError(t, err)
			again()
			again()
			unlock()
			last, err := f.TryLock("lock")
			require.NoError(t, err)
			last()
		})
	}
}

// A process that dies after any step of a Write leaves the old content or the new one, whole.
func TestWriteEndsAfterAnyStep(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	first, second := bytes.Repeat([]byte("1"), 100_000), bytes.Repeat([]byte("2"), 50_000)
	for _, step := range []string{"created", "written", "synced", "renamed"} {
		f, err := Open(path)
		require.NoError(t, err)
		require.NoError(t, f.Write("file", first))
		died := errors.New("died")
		f.step = func(done string) error {
			if done == step {
				panic(died)
			}
			return nil
		}
		require.PanicsWithValue(t, died, func() { _ = f.Write("file", second) })

		next, err := Open(path)
		require.NoError(t, err)
		got, err := next.Read("file")
		require.NoError(t, err)
		assert.Equal(t, step == "renamed", bytes.Equal(second, got), step)
		assert.Equal(t, step != "renamed", bytes.Equal(first, got), step)
		require.NoError(t, next.Write("file", second))
	}
}

// A Write that fails leaves nothing behind, and what a process that has died left is removed an hour later.
func TestLeftovers(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	f, err := Open(path)
	require.NoError(t, err)
	for _, step := range []string{"created", "written", "synced"} {
		full := errors.New("disk is full")
		f.step = func(done string) error {
			if done == step {
				return full
			}
			return nil
		}
		require.ErrorIs(t, f.Write("file", []byte("text")), full)
		files, err := os.ReadDir(path)
		require.NoError(t, err)
		assert.Empty(t, files, step)
	}
	old, young := filepath.Join(path, "file.1"+ending), filepath.Join(path, "file.2"+ending)
	require.NoError(t, os.WriteFile(old, nil, 0o600))
	require.NoError(t, os.WriteFile(young, nil, 0o600))
	require.NoError(t, os.Chtimes(old, time.Time{}, time.Now().Add(-2*leftover)))
	_, err = Open(path)
	require.NoError(t, err)
	assert.NoFileExists(t, old)
	assert.FileExists(t, young)
}

func TestOthersCanUseTheFolder(t *testing.T) {
	path := filepath.Join(t.TempDir(), "data")
	require.NoError(t, os.Mkdir(path, 0o755))
	require.NoError(t, os.Chmod(path, 0o755))
	_, err := Open(path)
	require.NoError(t, err, "an empty one is made private")
	about, err := os.Stat(path)
	require.NoError(t, err)
	assert.Equal(t, fs.FileMode(0o700), about.Mode().Perm())

	require.NoError(t, os.WriteFile(filepath.Join(path, "file"), nil, 0o600))
	for _, mode := range []fs.FileMode{0o750, 0o701, 0o720} {
		require.NoError(t, os.Chmod(path, mode))
		_, err = Open(path)
		require.ErrorContains(t, err, "chmod 700")
	}
	_, err = Open(filepath.Join(path, "file"))
	require.Error(t, err)
}
