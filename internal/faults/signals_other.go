//go:build !unix

package faults

import (
	"errors"
	"os"
)

// Stop would suspend a process until Resume.
func Stop(*os.Process) error { return errors.ErrUnsupported }

// Resume would let a process go on that Stop has suspended.
func Resume(*os.Process) error { return errors.ErrUnsupported }
