package main

import (
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

func TestTimeAt(t *testing.T) {
	zone := time.FixedZone("", 3600)
	now := time.Date(2026, 11, 21, 14, 30, 15, 0, zone)
	for at, want := range map[string]time.Time{
		"90s":                  now.Add(-90 * time.Second),
		"-2h":                  now.Add(-2 * time.Hour),
		"1h30m":                now.Add(-90 * time.Minute),
		"3d":                   now.AddDate(0, 0, -3),
		"2026-11-20":           time.Date(2026, 11, 20, 0, 0, 0, 0, zone),
		"2026-11-20 09:05":     time.Date(2026, 11, 20, 9, 5, 0, 0, zone),
		"2026-11-20 09:05:01":  time.Date(2026, 11, 20, 9, 5, 1, 0, zone),
		"2026-11-20T09:05:01Z": time.Date(2026, 11, 20, 9, 5, 1, 0, time.UTC),
		"09:05":                time.Date(2026, 11, 21, 9, 5, 0, 0, zone),
	} {
		got, err := timeAt(at, now)
		require.NoError(t, err, at)
		assert.True(t, want.Equal(got), "%s: %s", at, got)
	}
	for _, at := range []string{"yesterday", "2", "d", "3 d", "25:00", "2026-13-01"} {
		_, err := timeAt(at, now)
		assert.ErrorAs(t, err, new(usageError), at)
	}
	_, err := momentOf("", now)
	assert.ErrorAs(t, err, new(usageError))
	_, err = momentOf("23:59", now)
	assert.ErrorAs(t, err, new(usageError), "yet to come")
}
