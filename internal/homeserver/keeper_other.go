//go:build !unix

package homeserver

import "os/exec"

// detach does nothing where there are no sessions; the keeper ignores interrupts.
func detach(*exec.Cmd) {}
