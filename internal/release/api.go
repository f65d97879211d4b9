package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

const apidiff = "golang.org/x/exp/cmd/apidiff@v0.0.0-20261113113407-e3970619a1a4"

// changes are those of a module's API.
type changes struct {
	incompatible, compatible []string
}

// apiChanges compares the API of the module in the folder with what it was at the tag.
func apiChanges(root, tag, folder string) (changes, error) {
	work, err := os.MkdirTemp("", "release-")
	if err != nil {
		return changes{}, err
	}
	defer os.RemoveAll(work)
	old := filepath.Join(work, "old")
	if err := os.Mkdir(old, 0o755); err != nil {
		return changes{}, err
	}
	archive := filepath.Join(work, "old.tar")
	if _, err := run(root, "git", "archive", "--output", archive, tag); err != nil {
		return changes{}, err
	}
	if _, err := run(old, "tar", "-xf", archive); err != nil {
		return changes{}, err
	}
	was, is := filepath.Join(work, "was"), filepath.Join(work, "is")
	if _, err := os.Stat(filepath.Join(old, folder, "go.mod")); os.IsNotExist(err) {
		return changes{}, nil // the module is new
	}
	path, err := run(filepath.Join(root, folder), "go", "list", "-m")
	if err != nil {
		return changes{}, err
	}
	if _, err := diff(filepath.Join(old, folder), "-w", was, path); err != nil {
		return changes{}, err
	}
	if _, err := diff(filepath.Join(root, folder), "-w", is, path); err != nil {
		return changes{}, err
	}
	told, err := diff(root, was, is)
	return changesIn(told), err
}

// diff runs apidiff on modules, without the packages that only a C library can build.
func diff(folder string, args ...string) (string, error) {
	cmd := exec.Command("go", append([]string{"run", apidiff, "-m"}, args...)...)
	cmd.Dir = folder
	cmd.Env = append(os.Environ(), "GOFLAGS=-tags=goolm "+os.Getenv("GOFLAGS"))
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("apidiff %s in %s: %w: %s", strings.Join(args, " "), folder, err, strings.TrimSpace(failed.String()))
	}
	return string(out), nil
}

// changesIn reads what apidiff prints: two lists, each under a heading.
func changesIn(text string) (found changes) {
	list := &found.incompatible // in doubt
	for line := range strings.Lines(text) {
		switch line = strings.TrimSpace(line); {
		case strings.HasPrefix(line, "Incompatible changes:"):
			list = &found.incompatible
		case strings.HasPrefix(line, "Compatible changes:"):
			list = &found.compatible
		case strings.HasPrefix(line, "- "):
			*list = append(*list, strings.TrimPrefix(line, "- "))
		}
	}
	return found
}

// problems are the changes that the step from one version to the next does not allow; see docs/versions.md.
func (c changes) problems(folder string, before, after version) (wrong []string) {
	major, minor := after.major > before.major, after.minor > before.minor
	if !major && (before.major > 0 || !minor) {
		for _, change := range c.incompatible {
			wrong = append(wrong, fmt.Sprintf("the API of the module in %q is no longer compatible: %s", folder, change))
		}
	}
	if !major && !minor {
		for _, change := range c.compatible {
			wrong = append(wrong, fmt.Sprintf("the API of the module in %q has more, which takes a new minor version: %s", folder, change))
		}
	}
	return wrong
}
