package homeserver

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"time"
)

const (
	dendrite     = "github.com/element-hq/dendrite"
	dendriteMain = dendrite + "/cmd/dendrite"
)

// Build returns the path of a Dendrite binary, building it where the user's cache folder has none for the
// pinned version and this Go. The build takes a few minutes and says so on standard error. Callers in any
// number of processes at the same time wait for one build.
func Build(ctx context.Context) (string, error) {
	module, err := moduleDir(ctx)
	if err != nil {
		return "", err
	}
	cache, version, err := cacheDir(module)
	if err != nil {
		return "", err
	}
	binary := filepath.Join(cache, "dendrite")
	if runtime.GOOS == "windows" {
		binary += ".exe"
	}
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	} else if !errors.Is(err, fs.ErrNotExist) {
		return "", err
	}

	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	unlock, err := lockFile(filepath.Join(cache, "lock"))
	if err != nil {
		return "", err
	}
	defer unlock()
	if _, err := os.Stat(binary); err == nil {
		return binary, nil
	}
	fmt.Fprintf(os.Stderr, "roomkv: building the test homeserver, Dendrite %s, into %s (once; about 4 minutes on 2 cores)\n", version, cache)
	began := time.Now()
	if err := build(ctx, module, binary); err != nil {
		return "", fmt.Errorf("building Dendrite %s: %w", version, err)
	}
	fmt.Fprintf(os.Stderr, "roomkv: built Dendrite in %s\n", time.Since(began).Round(time.Second))
	return binary, nil
}

func build(ctx context.Context, module, binary string) error {
	partial := fmt.Sprintf("%s.%d", binary, os.Getpid())
	defer os.Remove(partial)
	cmd := goCommand(ctx, module, "build", "-trimpath", "-o", partial, dendriteMain)
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("%w\n%s", err, out)
	}
	return os.Rename(partial, binary)
}

// goCommand runs the go tool in dir as a fresh shell would, whatever build flags the caller was started with.
func goCommand(ctx context.Context, dir string, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, "go", args...)
	cmd.Dir = dir
	cmd.Env = append(os.Environ(), "CGO_ENABLED=0", "GOFLAGS=", "GOWORK=off")
	return cmd
}

// moduleDir finds the nested module in the source tree. Tests run in their package's folder and go run in the
// caller's, both inside the roomkv module, so the go tool knows where that is.
func moduleDir(ctx context.Context) (string, error) {
	const self = "github.com/roomkv/roomkv/internal/homeserver"
	cmd := goCommand(ctx, "", "list", "-f", "{{.Dir}}", self)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("the test homeserver is built from roomkv's source tree; run this inside a clone of it: %w\n%s", err, stderr.Bytes())
	}
	return filepath.Join(strings.TrimSpace(string(out)), "dendrite"), nil
}

// cacheDir is the folder for the binary that module pins, which the sums of all its dependencies and the
// Go version identify, and Dendrite's version for people.
func cacheDir(module string) (dir, version string, err error) {
	cache, err := os.UserCacheDir()
	if err != nil {
		return "", "", fmt.Errorf("no folder to keep the test homeserver in: %w", err)
	}
	mod, err := os.ReadFile(filepath.Join(module, "go.mod"))
	if err != nil {
		return "", "", err
	}
	sum, err := os.ReadFile(filepath.Join(module, "go.sum"))
	if err != nil {
		return "", "", err
	}
	pinned := regexp.MustCompile(`\b` + dendrite + ` (v\S+)`).FindSubmatch(mod)
	if pinned == nil {
		return "", "", fmt.Errorf("%s does not pin %s", module, dendrite)
	}
	version = string(pinned[1])
	digest := sha256.Sum256(append(mod, sum...))
	name := fmt.Sprintf("dendrite-%s-%s-%x", version, runtime.Version(), digest[:6])
	return filepath.Join(cache, "roomkv", name), version, nil
}
