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

var (
	ours   = regexp.MustCompile(`(?m)^#\t0x[0-9a-f]+\tgithub\.com/roomkv/roomkv(/internal/(commit|merge|replica|wire|dump))?\.`)
	theirs = regexp.MustCompile(`/internal/faults|_test\.|/internal/homeserver`)
)

// Goroutines gives the stack of each goroutine that runs roomkv's code, once for those that are alike, and with a label only those of that run.
// The load's own are left out.
func Goroutines(label string) (stacks []string) {
	var profile bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&profile, 1); err != nil {
		return nil
	}
	for _, stack := range strings.Split(profile.String(), "\n\n") {
		if ours.MatchString(stack) && !theirs.MatchString(stack) && (label == "" || strings.Contains(stack, label)) {
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
			r.violated("goroutine", "", "%d left %s after the last call:\n%s", len(left), r.Config.Settle, strings.Join(left, "\n\n"))
			return
		}
		time.Sleep(50 * time.Millisecond)
	}
}
