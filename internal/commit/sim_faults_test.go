package commit_test

import (
	"flag"
	"slices"
	"strings"
)

// switches are ingredients that are left out of random runs, with why.
type switches map[string]string

// mended are names of known faults that are taken for mended, for whoever is at it.
var mended = flag.String("mended", "", "names of known faults that TestSimulation runs into all the same, separated by commas, or all")

func (s switches) off(name string) bool {
	return s[name] != "" && *mended != "all" && !slices.Contains(strings.Split(*mended, ","), name)
}

// knownFaults are ingredients that random runs leave out, because they hit faults that are not mended yet. Whoever mends one takes it
// out of here.
var knownFaults = switches{
	"unmarked forks": "two accounts Put one key at the same time, per key, on a homeserver as Dendrite: who follows takes the last one that was stored for the " +
		"current one, until somebody writes it again",
}
