package main

import (
	"fmt"
	"strings"
	"time"
)

// table is a table of Markdown.
type table struct{ strings.Builder }

func (t *table) row(cells ...any) {
	texts := make([]string, len(cells))
	for i, cell := range cells {
		texts[i] = fmt.Sprint(cell)
	}
	fmt.Fprintf(t, "| %s |\n", strings.Join(texts, " | "))
}

func (t *table) head(about string, columns ...any) {
	fmt.Fprintf(t, "\n%s\n\n", about)
	t.row(columns...)
	t.WriteString(strings.Repeat("| --- ", len(columns)) + "|\n")
}

// count is a number for people: 2, 3.4, 17,280 or 1.2 million.
func count(n float64) string {
	switch {
	case n >= 999_950:
		return fmt.Sprintf("%.1f million", n/1e6)
	case n >= 999.5:
		whole := int(n + 0.5)
		return fmt.Sprintf("%d,%03d", whole/1000, whole%1000)
	case n >= 100:
		return fmt.Sprintf("%.0f", n)
	}
	return strings.TrimSuffix(fmt.Sprintf("%.1f", n), ".0")
}

// bytesOf is a number of bytes for people.
func bytesOf(n float64) string {
	unit := 0
	units := []string{"B", "KB", "MB", "GB"}
	for n >= 999.5 && unit < len(units)-1 {
		n, unit = n/1000, unit+1
	}
	if n < 9.95 && unit > 0 {
		return fmt.Sprintf("%.1f %s", n, units[unit])
	}
	return fmt.Sprintf("%.0f %s", n, units[unit])
}

func span(d time.Duration) string {
	switch {
	case d >= 10*time.Second:
		return d.Round(time.Second).String()
	case d >= time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d >= 10*time.Millisecond:
		return d.Round(time.Millisecond).String()
	case d >= time.Millisecond:
		return d.Round(100 * time.Microsecond).String()
	}
	return d.Round(time.Microsecond).String()
}

func yes(is bool) string {
	if is {
		return "yes"
	}
	return "no"
}
