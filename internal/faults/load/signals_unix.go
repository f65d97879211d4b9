//go:build unix

package load

import (
	"os"
	"syscall"
)

func stop(process *os.Process) error { return process.Signal(syscall.SIGSTOP) }

func resume(process *os.Process) error { return process.Signal(syscall.SIGCONT) }
