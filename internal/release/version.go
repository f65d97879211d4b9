package main

import (
	"cmp"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// version is a version of a module, without what may stand behind the patch.
type version struct {
	major, minor, patch int
	pre                 string // of a version before the release, such as rc.1
}

var versionForm = regexp.MustCompile(`^v(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)(?:-([0-9A-Za-z.-]+))?$`)

// parse is not ok for what is no canonical version of Go's.
func parse(text string) (v version, ok bool) {
	parts := versionForm.FindStringSubmatch(text)
	if parts == nil {
		return version{}, false
	}
	var numbers [3]int
	for i := range numbers {
		n, err := strconv.Atoi(parts[i+1])
		if err != nil {
			return version{}, false
		}
		numbers[i] = n
	}
	return version{numbers[0], numbers[1], numbers[2], parts[4]}, true
}

// less tells whether v comes before other. Of versions before one release any order will do.
func (v version) less(other version) bool {
	by := cmp.Or(cmp.Compare(v.major, other.major), cmp.Compare(v.minor, other.minor), cmp.Compare(v.patch, other.patch))
	return by < 0 || by == 0 && v.pre != "" && v.pre != other.pre
}

// changelogProblems is about the section of the version, whose heading is "## [0.1.0] - 2026-12-01".
func changelogProblems(text, version string) (wrong []string) {
	heading := "## [" + strings.TrimPrefix(version, "v") + "]"
	lines := strings.Split(text, "\n")
	if !slices.Contains(lines, "## [Unreleased]") {
		wrong = append(wrong, "CHANGELOG.md has no section [Unreleased]")
	}
	at := slices.IndexFunc(lines, func(line string) bool { return strings.HasPrefix(line, heading) })
	if at < 0 {
		return append(wrong, "CHANGELOG.md has no section "+heading+" - DATE")
	}
	if !regexp.MustCompile(`^ - \d{4}-\d{2}-\d{2}$`).MatchString(strings.TrimPrefix(lines[at], heading)) {
		wrong = append(wrong, "CHANGELOG.md tells no date after "+heading+", as in - 2026-12-01")
	}
	for _, line := range lines[at+1:] {
		if strings.HasPrefix(line, "## ") {
			break
		}
		if strings.HasPrefix(line, "- ") {
			return wrong
		}
	}
	return append(wrong, "CHANGELOG.md has nothing under "+heading)
}
