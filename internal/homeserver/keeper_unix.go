//go:build unix

package homeserver

import (
	"os/exec"
	"syscall"
)

// detach takes the keeper, and with it the server, out of the reach of what ends its parent's process group: Ctrl-C,
// a closed terminal, a supervisor. The end of its input tells it soon enough.
func detach(keeper *exec.Cmd) { keeper.SysProcAttr = &syscall.SysProcAttr{Setsid: true} }
