// Package result is what compare writes and draw reads.
package result

import (
	"fmt"
	"time"
)

// All is one run.
type All struct {
	Time time.Time
	CPUs int
	Go   string
	Rows []Row
}

// Size is how large the memories are and who writes.
type Size struct {
	Keys, Rooms, Processes int
}

// String is the size in words.
func (s Size) String() string {
	return count(s.Keys, "key") + ", " + count(s.Rooms, "room") + ", " + count(s.Processes, "process")
}

func count(n int, what string) string {
	text := fmt.Sprint(n)
	if n >= 1000 {
		text = fmt.Sprintf("%d,%03d", n/1000, n%1000)
	}
	switch {
	case n == 1:
	case what == "process":
		what += "es"
	default:
		what += "s"
	}
	return text + " " + what
}

// Operations.
const (
	Put = "put"
	Get = "get"
)

// Row is what one operation takes on the average, in one kind of memory.
type Row struct {
	Size
	Memory string
	Op     string
	Times  int // how often it was done, by all processes together

	Requests float64 // without those of the sync
	Up, Down float64 // bytes of bodies, with those of the sync
	Bytes    float64 // that are allocated
	Allocs   float64
	Micros   float64 // microseconds
	Raw      float64 // that time over the raw call's
	Kept     float64 // the part of the keys that have what was last acknowledged
}
