//go:build unix

package faults

import (
	"os"
	"syscall"
)

// Stop suspends a process until Resume.
func Stop(process *os.Process) error { return process.Signal(syscall.SIGSTOP) }

// Resume lets a process go on that Stop has suspended.
func Resume(process *os.Process) error { return process.Signal(syscall.SIGCONT) }
