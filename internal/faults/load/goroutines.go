package load

import (
	"bytes"
	"regexp"
	"runtime/pprof"
	"strings"
	"time"
)

// labelName labels the goroutines of a run, which those that they start inherit.
const labelName = "run"

// ours is a stack's line of the packages that are tested. What the load itself has started begins in none of them, and can be in the middle of
// one: a sync whose response a store follows.
var ours = regexp.MustCompile(`\tgithub\.com/roomkv/roomkv(/internal/(commit|merge|replica|wire|dump))?\.`)

// Goroutines gives the stack of each goroutine that roomkv has started, once for those that are alike, and with a label only those of that run.
// A timer's goroutine has no label.
func Goroutines(label string) (stacks []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return nil
	}
	for _, stack := range strings.Split(profile.String(), "\n\n") {
		lines := strings.Split(strings.TrimSpace(stack), "\n")
		if ours.MatchString(lines[len(lines)-1]) && strings.Contains(stack, label) {
			stacks = append(stacks, stack)
		}
	}
	return stacks
}

// checkGoroutines waits until none of the run is left, as long as the last call's goroutines may go on.
func (r *Run) checkGoroutines(label string, last time.Time) {
	for {
		left := Goroutines(label)
		if len(left) == 0 {
			return
		}
		if time.Since(last) > r.Config.Settle {
			r.violated(Leak, "", "%d left %s after the last call:\n%s", len(left), r.Config.Settle, strings.Join(left, "\n\n"))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
