package homeserver

import (
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"syscall"
)

const (
	keeperEnv        = "ROOMKV_KEEPER_DIR" // set in a keeper only: the server's folder
	keeperBinaryEnv  = "ROOMKV_KEEPER_BINARY"
	keeperAddressEnv = "ROOMKV_KEEPER_ADDRESS"

	logFile = "dendrite.log"
)

// keeper is a child process that runs the server and outlives its parent by a moment: it reads a pipe that
// only the parent holds open, and when that ends, by Close, a panic, a test timeout or a SIGKILL, it kills
// the server and removes the data. A signal handler would miss most of these.
type keeper struct {
	process *exec.Cmd
	input   io.Closer
	exited  chan struct{} // closed when the server has ended; its folder stays until stop
}

func startKeeper(dir, binary, address string) (*keeper, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	cmd := exec.Command(self)
	detach(cmd)
	cmd.Env = append(os.Environ(), keeperEnv+"="+dir, keeperBinaryEnv+"="+binary, keeperAddressEnv+"="+address)
	input, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	output, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	k := &keeper{process: cmd, input: input, exited: make(chan struct{})}
	go func() {
		_, _ = io.Copy(io.Discard, output)
		close(k.exited)
	}()
	return k, nil
}

func (k *keeper) stop() error {
	_ = k.input.Close()
	<-k.exited
	return k.process.Wait()
}

// A keeper is this same executable started again, so that neither a second binary nor a shell is needed.
func init() {
	if dir := os.Getenv(keeperEnv); dir != "" {
		keep(dir, os.Getenv(keeperBinaryEnv), os.Getenv(keeperAddressEnv))
		os.Exit(0)
	}
}

// keep is the keeper's side: it runs the server, closes standard output when that has ended, and removes the
// folder when standard input has.
func keep(dir, binary, address string) {
	// The parent decides what an interrupt means, and its end is ours.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	parentGone := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(parentGone)
	}()

	run(dir, binary, address, parentGone)
	_ = os.Stdout.Close()
	<-parentGone
	_ = os.RemoveAll(dir)
}

func run(dir, binary, address string, stop <-chan struct{}) {
	log, err := os.Create(filepath.Join(dir, logFile))
	if err != nil {
		return
	}
	defer log.Close()
	listener, err := net.Listen("tcp", address)
	if err != nil {
		_, _ = io.WriteString(log, err.Error())
		return
	}
	defer listener.Close()
	inner, err := freeAddress()
	if err != nil {
		_, _ = io.WriteString(log, err.Error())
		return
	}
	go func() { _ = shield(listener, inner) }()
	cmd := exec.Command(binary, "-config", configFile, "-http-bind-address", inner,
		"-really-enable-open-registration")
	cmd.Dir = dir
	cmd.Stdout, cmd.Stderr = log, log
	if err := cmd.Start(); err != nil {
		_, _ = io.WriteString(log, err.Error())
		return
	}
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	select {
	case <-stop:
		_ = cmd.Process.Kill() // there is nothing to save
		<-ended
	case <-ended:
	}
}
