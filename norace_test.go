//go:build !race

package roomkv_test

const underRace = false
