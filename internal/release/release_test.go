package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestVersions(t *testing.T) {
	for text, want := range map[string]version{"v0.1.0": {0, 1, 0, ""}, "v12.0.3": {12, 0, 3, ""}, "v1.0.0-rc.1": {1, 0, 0, "rc.1"}} {
		got, ok := parse(text)
		assert.True(t, ok, text)
		assert.Equal(t, want, got, text)
	}
	for _, text := range []string{"", "0.1.0", "v0.1", "v01.0.0", "v1.0.0+more", "v1.0.0 ", "v99999999999999999999.0.0"} {
		_, ok := parse(text)
		assert.False(t, ok, text)
	}
	inOrder := []string{"v0.1.0-rc.1", "v0.1.0", "v0.1.1", "v0.2.0", "v1.0.0"}
	for i := range inOrder[1:] {
		before, _ := parse(inOrder[i])
		after, _ := parse(inOrder[i+1])
		assert.True(t, before.less(after), inOrder[i])
		assert.False(t, after.less(before), inOrder[i])
		assert.False(t, before.less(before), inOrder[i])
	}
}

func TestChangelog(t *testing.T) {
	const good = "# Changelog\n\n## [Unreleased]\n\n## [0.1.0] - 2026-12-01\n\n### Added\n\n- All.\n\n## [0.0.1] - 2026-11-01\n"
	assert.Empty(t, changelogProblems(good, "v0.1.0"))
	for old, replaced := range map[string]string{"## [Unreleased]": "", "[0.1.0]": "[0.2.0]", " - 2026-12-01": "", "- All.": ""} {
		assert.Len(t, changelogProblems(strings.Replace(good, old, replaced, 1), "v0.1.0"), 1, old)
	}
	assert.Len(t, changelogProblems(good, "v0.0.1"), 1, "nothing is under it")
}

const ours = "example.org/m"

func TestModuleProblems(t *testing.T) {
	good := func() []module {
		return []module{
			{".", ours, map[string]string{"example.org/other": "v2.0.0"}, map[string]string{}},
			{"session", ours + "/session", map[string]string{ours: "v0.1.0"}, map[string]string{ours: ".."}},
			{"a/b", ours + "/a/b", map[string]string{ours: "v0.1.0", ours + "/session": "v0.1.0"}, map[string]string{ours: "../..", ours + "/session": "../../session", "example.org/other": "../../other"}},
		}
	}
	assert.Empty(t, moduleProblems(good(), "v0.1.0"))
	assert.Len(t, moduleProblems(good(), "v0.2.0"), 3)
	assert.Len(t, moduleProblems(good()[:1], "v0.1.0"), 1, "there is no session")
	for name, spoil := range map[string]func(all []module){
		"an old version":          func(all []module) { all[1].require[ours] = "v0.0.0" },
		"no replacement":          func(all []module) { delete(all[2].replace, ours) },
		"the wrong folder":        func(all []module) { all[2].replace[ours] = ".." },
		"a published replacement": func(all []module) { all[0].replace["example.org/other"] = "../other" },
	} {
		all := good()
		spoil(all)
		assert.Len(t, moduleProblems(all, "v0.1.0"), 1, name)
	}
}

// The modules of this repository name each other rightly, whatever version the next one is.
func TestModulesHere(t *testing.T) {
	modules, err := modulesIn("../..")
	require.NoError(t, err)
	assert.Greater(t, len(modules), len(published))
	for _, m := range modules {
		if m.folder == "session" {
			assert.Empty(t, moduleProblems(modules, m.require["github.com/roomkv/roomkv"]))
		}
	}
}

func TestSteps(t *testing.T) {
	nothing, added, broken := changes{}, changes{compatible: []string{"F: added"}}, changes{incompatible: []string{"F: removed"}}
	for _, test := range []struct {
		change        changes
		before, after string
		allowed       bool
	}{
		{nothing, "v0.1.0", "v0.1.1", true}, {added, "v0.1.0", "v0.1.1", false}, {broken, "v0.1.0", "v0.1.1", false},
		{added, "v0.1.3", "v0.2.0", true}, {broken, "v0.1.3", "v0.2.0", true},
		{nothing, "v1.0.0", "v1.0.1", true}, {added, "v1.0.0", "v1.0.1", false}, {broken, "v1.0.0", "v1.0.1", false},
		{added, "v1.0.0", "v1.1.0", true}, {broken, "v1.0.0", "v1.1.0", false},
		{broken, "v0.9.0", "v1.0.0", true}, {broken, "v1.9.0", "v2.0.0", true},
	} {
		before, _ := parse(test.before)
		after, _ := parse(test.after)
		assert.Equal(t, test.allowed, len(test.change.problems(".", before, after)) == 0, "%s to %s: %v", test.before, test.after, test.change)
	}
}

// In a repository of a test, apidiff tells what has changed since the last tag.
func TestRepository(t *testing.T) {
	root := t.TempDir()
	git := func(args ...string) {
		t.Helper()
		_, err := run(root, "git", append([]string{"-c", "user.name=test", "-c", "user.email=test@example.org", "-c", "commit.gpgsign=false", "-c", "tag.gpgsign=false"}, args...)...)
		require.NoError(t, err)
	}
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(root, name)
		require.NoError(t, os.MkdirAll(filepath.Dir(path), 0o755))
		require.NoError(t, os.WriteFile(path, []byte(text), 0o644))
	}
	commit := func(version, api string) {
		t.Helper()
		write("m.go", "package m\n\n"+api+"\n")
		write("CHANGELOG.md", "## [Unreleased]\n\n## ["+strings.TrimPrefix(version, "v")+"] - 2026-12-01\n\n- All.\n")
		write("session/go.mod", "module "+ours+"/session\n\ngo 1.26\n\nreplace "+ours+" => ..\n\nrequire "+ours+" "+version+"\n")
		git("add", "-A")
		git("commit", "-q", "-m", version)
	}
	git("init", "-q")
	write("go.mod", "module "+ours+"\n\ngo 1.26\n")
	write("session/session.go", "package session\n\nimport \"example.org/m\"\n\nvar S m.T\n")
	write("internal/i/i.go", "package i\n\nvar Hidden int\n")

	commit("v0.1.0", "type T int\n\nfunc F() {}")
	found, err := check(root, "v0.1.0")
	require.NoError(t, err)
	assert.Empty(t, found.wrong)
	assert.Len(t, found.done, 3)
	require.Len(t, found.unchecked, 1, "there is no tag")
	assert.Contains(t, found.unchecked[0], "nothing to compare")
	for _, tag := range tagsOf("v0.1.0") {
		git("tag", tag)
	}
	found, err = check(root, "v0.1.0")
	require.NoError(t, err)
	assert.Len(t, found.wrong, 3, "two tags are there, and the version is not later: %v", found.wrong)

	require.NoError(t, os.Remove(filepath.Join(root, "internal/i/i.go"))) // which nobody can import
	commit("v0.1.1", "type T int\n\nfunc F() {}")
	found, err = check(root, "v0.1.1")
	require.NoError(t, err)
	assert.Empty(t, found.wrong)
	assert.Empty(t, found.unchecked)

	write("internal/i/i.go", "package i\n")
	commit("v0.1.1", "type T int\n\nfunc F(int) {}\n\nfunc G() {}")
	write("left", "")
	found, err = check(root, "v0.1.1")
	require.NoError(t, err)
	require.Len(t, found.wrong, 3, "%v", found.wrong)
	assert.Contains(t, found.wrong[0], "not committed")
	assert.Contains(t, found.wrong[1], "F: changed")
	assert.Contains(t, found.wrong[2], "G: added")
}
