// Package asked tells for how long the answer of a homeserver counts.
package asked

import "time"

// Time is when a homeserver was asked something, and whether a sync told of changes then. The zero value is for what it was never asked.
type Time struct {
	At   time.Time
	Live bool // whether the sync told of changes
}

// Now is the time of a question that is asked now.
func Now(live bool) Time { return Time{time.Now(), live} }

// Shown is the time of an answer that a sync gives by what it does not show. The answer counts once late has passed: Dendrite's first sync can lack
// what the homeserver has acknowledged just before. The next one then brings it.
func Shown(late time.Duration) Time { return Time{time.Now().Add(late), true} }

// Counts tells whether the answer still holds: it is younger than that, or a sync told of changes then and does so now. Whoever learns that
// a sync has left something out must forget the answers in between.
func (t Time) Counts(live bool, younger time.Duration) bool {
	age := time.Since(t.At)
	return age >= 0 && (t.Live && live || age < younger)
}
