// Command draw writes what compare has measured into docs/performance.md, between two comments, and draws docs/performance.svg:
//
//	go run ./draw -in results.json ../../../docs
package main

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/roomkv/roomkv/internal/bench/compare/result"
)

const (
	begin = "<!-- written by internal/bench/compare/draw -->\n"
	end   = "<!-- end -->\n"
)

func main() {
	in := flag.String("in", "results.json", "what compare has written")
	flag.Parse()
	if err := run(*in, flag.Arg(0)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func run(in, docs string) error {
	text, err := os.ReadFile(in)
	if err != nil {
		return err
	}
	var all result.All
	if err := json.Unmarshal(text, &all); err != nil {
		return err
	}
	if len(all.Rows) == 0 {
		return errors.New("there are no results")
	}
	name := filepath.Join(docs, "performance.md")
	page, err := os.ReadFile(name)
	if err != nil {
		return err
	}
	before, rest, found := strings.Cut(string(page), begin)
	_, after, closed := strings.Cut(rest, end)
	if !found || !closed {
		return fmt.Errorf("%s has no place for the results", name)
	}
	if err := os.WriteFile(name, []byte(before+begin+tables(all)+end+after), 0o644); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(docs, "performance.svg"), []byte(chart(all.Rows)), 0o644)
}

// tables are of writes and of reads.
func tables(all result.All) string {
	var b strings.Builder
	fmt.Fprintf(&b, "\nMeasured on %s, with %s on %d cores.\n", all.Time.Format("2 January 2006"), all.Go, all.CPUs)
	for _, op := range []string{result.Put, result.Get} {
		what := map[string]string{result.Put: "a write", result.Get: "a read"}[op]
		fmt.Fprintf(&b, "\n| %s | requests | KB up | KB down | KB allocated | allocations | ms | × raw |", what)
		line := "\n| --- | --- | --- | --- | --- | --- | --- | --- |"
		if op == result.Put {
			b.WriteString(" kept |")
			line += " --- |"
		}
		b.WriteString(line + "\n")
		for _, size := range sizes(all.Rows, op) {
			fmt.Fprintf(&b, "| **%s** |\n", size)
			for _, r := range of(all.Rows, op, size) {
				fmt.Fprintf(&b, "| %s | %s | %s | %s | %s | %.0f | %s | %s |", r.Memory, figure(r.Requests), figure(r.Up/1000), figure(r.Down/1000),
					figure(r.Bytes/1000), r.Allocs, figure(r.Micros/1000), figure(r.Raw))
				if op == result.Put {
					fmt.Fprintf(&b, " %.0f %% |", 100*r.Kept)
				}
				b.WriteString("\n")
			}
		}
	}
	b.WriteString("\n")
	return b.String()
}

// figure is a number with about three digits.
func figure(n float64) string {
	switch {
	case n == 0 || n >= 100:
		return fmt.Sprintf("%.0f", n)
	case n >= 10:
		return fmt.Sprintf("%.1f", n)
	case n >= 0.1:
		return fmt.Sprintf("%.2f", n)
	}
	return fmt.Sprintf("%.2g", n)
}

// sizes are those in which the operation was measured.
func sizes(rows []result.Row, op string) (sizes []result.Size) {
	for _, r := range rows {
		if r.Op == op && !slices.Contains(sizes, r.Size) {
			sizes = append(sizes, r.Size)
		}
	}
	return sizes
}

func of(rows []result.Row, op string, size result.Size) (some []result.Row) {
	for _, r := range rows {
		if r.Op == op && r.Size == size {
			some = append(some, r)
		}
	}
	return some
}
