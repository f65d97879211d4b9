package main

import (
	"fmt"
	"math"
	"strings"

	"github.com/roomkv/roomkv/internal/bench/compare/result"
)

// The chart, in pixels.
const (
	left, top, bottom = 70, 70, 60
	plot              = 330 // the height
	group, bar        = 110, 19
)

// colours are told apart by those who cannot tell red from green (Okabe and Ito's).
var colours = []string{"#000000", "#e69f00", "#cc79a7", "#0072b2", "#56b4e9", "#999999"}

// chart shows how long a write takes in each size, as multiples of the raw call's time: bars from 1 up or down, on a logarithmic axis. A bar
// that is not filled has lost writes.
func chart(rows []result.Row) string {
	low, high := -1.0, 1.0 // powers of ten
	for _, r := range rows {
		if r.Op == result.Put {
			low, high = min(low, math.Floor(math.Log10(r.Raw))), max(high, math.Ceil(math.Log10(r.Raw)))
		}
	}
	y := func(times float64) float64 { return top + plot*(high-math.Log10(times))/(high-low) }
	all := sizes(rows, result.Put)
	width := left + group*len(all) + 20
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" font-family="sans-serif" font-size="12">`+"\n", width, top+plot+bottom)
	b.WriteString(`<rect width="100%" height="100%" fill="white"/>` + "\n")
	fmt.Fprintf(&b, `<text x="%d" y="20" font-size="15">Time of a write, as multiples of the raw call (logarithmic)</text>`+"\n", left)
	for power := low; power <= high; power++ {
		at := y(math.Pow(10, power))
		fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%[3]g" stroke="#dddddd"/>`+"\n", left, width-20, at)
		fmt.Fprintf(&b, `<text x="%d" y="%.1f" text-anchor="end">%g ×</text>`+"\n", left-6, at+4, math.Pow(10, power))
	}
	x := left
	for i, r := range of(rows, result.Put, all[0]) {
		if i == 0 {
			continue
		}
		fmt.Fprintf(&b, `<rect x="%d" y="36" width="12" height="12" fill="%s"/><text x="%d" y="46">%s</text>`+"\n", x, colours[i], x+16, r.Memory)
		x += 30 + 7*len(r.Memory)
	}
	fmt.Fprintf(&b, `<rect x="%d" y="36" width="12" height="12" fill="white" stroke="black"/><text x="%d" y="46">lost writes</text>`+"\n", x, x+16)
	for g, size := range all {
		x := left + g*group + 7
		for i, r := range of(rows, result.Put, size) {
			if i == 0 {
				continue
			}
			fill := colours[i]
			if r.Kept < 1 {
				fill = "white"
			}
			from, to := min(y(1), y(r.Raw)), max(y(1), y(r.Raw))
			fmt.Fprintf(&b, `<rect x="%d" y="%.1f" width="%d" height="%.1f" fill="%s" stroke="%s"><title>%s: %s ×, %.0f %% kept</title></rect>`+"\n",
				x, from, bar-3, max(1, to-from), fill, colours[i], r.Memory, figure(r.Raw), 100*r.Kept)
			x += bar
		}
		for i, line := range strings.Split(size.String(), ", ") {
			fmt.Fprintf(&b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", left+g*group+group/2, top+plot+18+14*i, line)
		}
	}
	fmt.Fprintf(&b, `<line x1="%d" x2="%d" y1="%.1f" y2="%[3]g" stroke="black"/>`+"\n</svg>\n", left, width-20, y(1))
	return b.String()
}
