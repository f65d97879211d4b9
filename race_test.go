//go:build race

package roomkv_test

// underRace: the race detector makes more garbage.
const underRace = true
