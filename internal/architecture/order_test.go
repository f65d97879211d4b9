// Package architecture checks which package may import which.
package architecture

import (
	"os/exec"
	"slices"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const module = "github.com/roomkv/roomkv"

// order is the one line in which the product's packages can be read: each imports only what stands before it. See docs/architecture.md.
var order = []string{
	"internal/fault",      // kinds of errors
	"internal/background", // goroutines that nobody waits for
	"internal/lru",        // a cache
	"internal/policy",     // durations
	"internal/meter",      // what operations take
	"internal/asked",      // for how long an answer counts
	"internal/retry",      // when a request is made again
	"internal/wire",       // what stands in events
	"internal/encode",     // Go values as what is stored
	"internal/dump",       // exported files
	"internal/merge",      // what events of several writers come to
	"internal/replica",    // what this process knows of a dict
	"internal/commit",     // how a dict is written
	"internal/matrix",     // requests to a homeserver
	"internal/media",      // values outside of events
	"internal/seal",       // values in Megolm events
	"internal/follow",     // what a client's sync brings
	"internal/memory",     // what a room remembers in its state
	"internal/fallback",   // memory in account data
	"internal/past",       // what it remembered
	"internal/flush",      // edits that are kept back and sent together
	"internal/watch",      // what changes
	"internal/upgrade",    // where a memory is after a room upgrade
	"internal/transfer",   // copies, exports, imports
	"internal/purge",      // keys taken out of the past
	"",                    // package roomkv
	"keybackup",           // Megolm sessions in the key backup
	"internal/fakehs",     // a homeserver in memory
	"roomkvtest",          // that one for the tests of bots
}

// forTests are packages that only tests and programs of the repository import.
var forTests = []string{
	"docs", "internal/architecture", "internal/bench", "internal/fakehs/fakehstest", "internal/faults", "internal/homeserver", "internal/hostile", "internal/mutants", "internal/release", "examples",
}

func isForTests(pkg string) bool {
	return slices.ContainsFunc(forTests, func(dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") })
}

// imports are the packages of this module that each of its packages imports, without those of tests.
func imports(t *testing.T) map[string][]string {
	t.Helper()
	list := exec.CommandContext(t.Context(), "go", "list", "-tags", "goolm", "-f", `{{.ImportPath}}{{range .Imports}} {{.}}{{end}}`, module+"/...")
	list.Stderr = t.Output()
	text, err := list.Output()
	require.NoError(t, err)
	all := map[string][]string{}
	for line := range strings.Lines(string(text)) {
		names := strings.Fields(line)
		pkg := strings.TrimPrefix(strings.TrimPrefix(names[0], module), "/")
		all[pkg] = []string{}
		for _, name := range names[1:] {
			if rest, ours := strings.CutPrefix(name, module); ours {
				all[pkg] = append(all[pkg], strings.TrimPrefix(rest, "/"))
			}
		}
	}
	return all
}

// wrong are the imports that the order does not allow.
func wrong(all map[string][]string) (found []string) {
	for pkg, imported := range all {
		at := slices.Index(order, pkg)
		if at < 0 {
			if !isForTests(pkg) {
				found = append(found, pkg+" has no place in the order")
			}
			continue
		}
		for _, other := range imported {
			if !slices.Contains(order[:at], other) {
				found = append(found, pkg+" imports "+other)
			}
		}
	}
	slices.Sort(found)
	return found
}

func TestOrder(t *testing.T) {
	all := imports(t)
	assert.Empty(t, wrong(all))
	for _, pkg := range order {
		assert.Contains(t, all, pkg, "it is in the order")
	}
	all["internal/wire"] = []string{"internal/matrix"}
	all["internal/merge"] = []string{"internal/fakehs"}
	all["internal/new"] = nil
	assert.Equal(t, []string{"internal/merge imports internal/fakehs", "internal/new has no place in the order", "internal/wire imports internal/matrix"}, wrong(all))
}

// The root and roomkvtest are imported by bots that bring no Olm.
func TestRootBringsNoCrypto(t *testing.T) {
	for _, pkg := range []string{module, module + "/roomkvtest"} {
		list := exec.CommandContext(t.Context(), "go", "list", "-deps", pkg)
		list.Stderr = t.Output()
		text, err := list.Output()
		require.NoError(t, err)
		for _, crypto := range []string{"maunium.net/go/mautrix/crypto", "maunium.net/go/mautrix/crypto/goolm", "maunium.net/go/mautrix/crypto/libolm"} {
			assert.NotContains(t, strings.Fields(string(text)), crypto, pkg)
		}
	}
}
