// Command release checks whether a commit can become a version. It changes nothing.
//
//	go run ./internal/release v0.1.0
//
// It tells what it has checked, what it could not check, and what is wrong. Where something is wrong its exit code is 1. docs/versions.md has the
// rules that it holds.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"strings"
)

// published are the folders of the modules that have versions. The root is first.
var published = []string{".", "session"}

func main() {
	if len(os.Args) != 2 {
		fmt.Fprintln(os.Stderr, "usage: go run ./internal/release v0.1.0")
		os.Exit(2)
	}
	report, err := check(".", os.Args[1])
	if err != nil {
		fmt.Fprintln(os.Stderr, "release:", err)
		os.Exit(1)
	}
	for _, line := range report.done {
		fmt.Println("ok:          ", line)
	}
	for _, line := range report.unchecked {
		fmt.Println("NOT CHECKED: ", line)
	}
	for _, line := range report.wrong {
		fmt.Println("WRONG:       ", line)
	}
	if len(report.wrong) > 0 {
		os.Exit(1)
	}
	tags := tagsOf(os.Args[1])
	fmt.Printf("\nTo release, when .ci/run has passed:\n\n\tgit tag %s\n\tgit push origin %s\n", strings.Join(tags, " && git tag "), strings.Join(tags, " "))
}

// report is what the check has found.
type report struct {
	done, unchecked, wrong []string
}

// add notes a check and what is wrong by it.
func (r *report) add(what string, wrong []string) {
	if len(wrong) == 0 {
		r.done = append(r.done, what)
	}
	r.wrong = append(r.wrong, wrong...)
}

// check checks the repository in the folder. The error is for what keeps it from checking.
func check(root, name string) (*report, error) {
	version, ok := parse(name)
	if !ok {
		return nil, fmt.Errorf("%q is no version such as v0.1.0", name)
	}
	r := &report{}
	wrong, err := gitProblems(root, name)
	if err != nil {
		return nil, err
	}
	r.add("all is committed, and the tags are free", wrong)
	text, err := os.ReadFile(root + "/CHANGELOG.md")
	if err != nil {
		return nil, err
	}
	r.add("CHANGELOG.md has the version", changelogProblems(string(text), name))
	modules, err := modulesIn(root)
	if err != nil {
		return nil, err
	}
	r.add("the modules require each other's version, and replace it by the folder", moduleProblems(modules, name))

	last, err := lastTag(root)
	if err != nil {
		return nil, err
	}
	before, ok := parse(last)
	switch {
	case last == "":
		r.unchecked = append(r.unchecked, "the API: no commit before this one has the tag of a version, so that there is nothing to compare it with. (A clone can lack tags: git fetch --tags)")
		return r, nil
	case !ok:
		return nil, fmt.Errorf("the last tag, %s, is no version", last)
	case !before.less(version):
		r.wrong = append(r.wrong, fmt.Sprintf("%s is not later than %s", name, last))
		return r, nil
	}
	for _, folder := range published {
		changes, err := apiChanges(root, last, folder)
		if err != nil {
			return nil, err
		}
		r.add(fmt.Sprintf("the API of the module in %q since %s", folder, last), changes.problems(folder, before, version))
	}
	return r, nil
}

// tagsOf are the tags of a version: one for each published module.
func tagsOf(version string) (tags []string) {
	for _, folder := range published {
		tags = append(tags, strings.TrimPrefix(folder+"/", "./")+version)
	}
	return tags
}

func gitProblems(root, version string) (wrong []string, err error) {
	changed, err := run(root, "git", "status", "--porcelain")
	if err != nil {
		return nil, err
	}
	if changed != "" {
		wrong = append(wrong, "there are changes that are not committed")
	}
	for _, tag := range tagsOf(version) {
		there, err := run(root, "git", "tag", "--list", tag)
		if err != nil {
			return nil, err
		}
		if there != "" {
			wrong = append(wrong, "the tag "+tag+" is there already")
		}
	}
	return wrong, nil
}

// lastTag is the latest version before the commit that is checked out, and empty where there is none.
func lastTag(root string) (string, error) {
	tags, err := run(root, "git", "-c", "versionsort.suffix=-", "tag", "--list", "v[0-9]*", "--merged", "HEAD", "--sort=-version:refname")
	last, _, _ := strings.Cut(tags, "\n")
	return last, err
}

// run runs a program in a folder and gives what it prints, without blanks around it.
func run(folder, program string, args ...string) (string, error) {
	cmd := exec.Command(program, args...)
	cmd.Dir = folder
	var failed strings.Builder
	cmd.Stderr = &failed
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s %s: %w: %s", program, strings.Join(args, " "), err, strings.TrimSpace(failed.String()))
	}
	return strings.TrimSpace(string(out)), nil
}
