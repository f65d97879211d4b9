// Command mutants breaks the library on purpose, one guarantee or mended fault at a time, and tells whether the default tests notice.
//
//	go run ./internal/mutants                 try all of them
//	go run ./internal/mutants -run 'A6|group' those whose names match
//	go run ./internal/mutants -list           only list them
//
// It changes no file: the go command is given the broken one in place of the real one. A mutant is one such change. The command ends with an
// error if no test fails for a mutant, or if the text that a mutant replaces is no longer in the source.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"
)

// mutant is one way to break the library.
type mutant struct {
	name string // the line of the guarantees or the fault that it is about, and what is broken
	file string
	old  string // what the file has once
	new  string
	// tests are the packages whose default tests are to notice, with -run and a pattern in between where not all are needed.
	tests []string
}

func main() {
	pattern := flag.String("run", "", "try only mutants whose names match")
	list := flag.Bool("list", false, "list the mutants, and try none")
	verbose := flag.Bool("v", false, "print what the tests that notice print")
	flag.Parse()
	wanted, err := regexp.Compile(*pattern)
	if err != nil {
		fail(err)
	}
	lived := 0
	for _, m := range mutants {
		if !wanted.MatchString(m.name) {
			continue
		}
		if *list {
			fmt.Println(m.name)
			continue
		}
		began := time.Now()
		output, killed, err := m.try()
		if err != nil {
			fail(fmt.Errorf("%s: %w", m.name, err))
		}
		verdict := "killed"
		if !killed {
			verdict = "LIVES "
			lived++
		}
		fmt.Printf("%s  %5.1f s  %s  %s\n", verdict, time.Since(began).Seconds(), m.name, strings.Join(failed(output), " "))
		if *verbose && killed {
			fmt.Printf("%s\n", output)
		}
	}
	if lived > 0 {
		fail(fmt.Errorf("%d mutants live", lived))
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "mutants:", err)
	os.Exit(1)
}

// try runs the tests with the broken file. A mutant that does not compile is an error, for it proves nothing.
func (m mutant) try() (output []byte, killed bool, err error) {
	source, err := os.ReadFile(m.file)
	if err != nil {
		return nil, false, err
	}
	if n := bytes.Count(source, []byte(m.old)); n != 1 {
		return nil, false, fmt.Errorf("%s has the text %d times", m.file, n)
	}
	folder, err := os.MkdirTemp("", "mutant")
	if err != nil {
		return nil, false, err
	}
	defer func() { _ = os.RemoveAll(folder) }()
	broken, overlay := filepath.Join(folder, "broken.go"), filepath.Join(folder, "overlay.json")
	file, err := filepath.Abs(m.file)
	if err != nil {
		return nil, false, err
	}
	replace, err := json.Marshal(map[string]map[string]string{"Replace": {file: broken}})
	if err != nil {
		return nil, false, err
	}
	if err := os.WriteFile(broken, bytes.Replace(source, []byte(m.old), []byte(m.new), 1), 0o600); err != nil {
		return nil, false, err
	}
	if err := os.WriteFile(overlay, replace, 0o600); err != nil {
		return nil, false, err
	}
	arguments := slices.Concat([]string{"test", "-tags", "goolm", "-overlay", overlay, "-count=1", "-failfast", "-timeout", "5m"}, m.tests)
	output, err = exec.Command("go", arguments...).CombinedOutput()
	if bytes.Contains(output, []byte("[build failed]")) {
		return nil, false, fmt.Errorf("it does not compile:\n%s", output)
	}
	return output, err != nil, nil
}

var failure = regexp.MustCompile(`(?m)^\s*--- FAIL: (\S+)|^(panic: .*)`)

// failed are the tests that failed, the outermost first, and not all of them.
func failed(output []byte) (names []string) {
	for _, match := range failure.FindAllSubmatch(output, 3) {
		names = append(names, string(match[1])+string(match[2]))
	}
	return names
}
