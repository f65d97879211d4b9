//go:build !linux

package homeserver

import "os"

func dataFolder(pattern string) (string, error) { return os.MkdirTemp("", pattern) }
