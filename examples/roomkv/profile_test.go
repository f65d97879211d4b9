package main

import (
	"errors"
	"testing"

	"github.com/stretchr/testify/assert"
)

// A profile is a folder of its own: a logout removes it.
func TestProfileNames(t *testing.T) {
	t.Setenv(envConfigDir, t.TempDir())
	t.Setenv(envProfile, "")
	for name, good := range map[string]bool{"": true, "other": true, ".other": true, ".": false, "..": false, "a/b": false, "/a": false, "a/": false} {
		_, err := loadProfile(name)
		assert.Equal(t, good, err == nil, "%q: %v", name, err)
		assert.Equal(t, !good, errors.As(err, new(usageError)), name)
	}
}
