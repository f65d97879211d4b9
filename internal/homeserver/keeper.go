package homeserver

import (
	"errors"
	"io"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"sync"
	"syscall"
)

const (
	keeperEnv        = "ROOMKV_KEEPER_DIR" // set in a keeper only: the server's folder
	keeperBinaryEnv  = "ROOMKV_KEEPER_BINARY"
	keeperAddressEnv = "ROOMKV_KEEPER_ADDRESS"

	logFile = "dendrite.log"
)

// What a keeper is told, a byte each. It answers each with the same byte, once it is done.
const (
	orderKill  = 'k'
	orderStart = 's'
)

// keeper is a child process that runs the server and outlives its parent by a moment: it reads a pipe that
// only the parent holds open, and when that ends, by Close, a panic, a test timeout or a SIGKILL, it kills
// the server and removes the data. A signal handler would miss most of these.
type keeper struct {
	process *exec.Cmd
	exited  chan struct{} // closed when the server has ended by itself; its folder stays until stop

	mu    sync.Mutex // held from an order to its answer
	input io.WriteCloser
	done  chan byte // the answers
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
	k := &keeper{process: cmd, input: input, exited: make(chan struct{}), done: make(chan byte)}
	go func() {
		defer close(k.exited)
		for answer := make([]byte, 1); ; {
			if _, err := output.Read(answer); err != nil {
				return
			}
			k.done <- answer[0]
		}
	}()
	return k, nil
}

// order tells the keeper something, and returns when that is done.
func (k *keeper) order(what byte) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, err := k.input.Write([]byte{what}); err != nil {
		return err
	}
	select {
	case <-k.done:
		return nil
	case <-k.exited:
		return errors.New("the server has ended")
	}
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

// keep is the keeper's side: it runs the server, closes standard output when that has ended by itself, and removes the
// folder when standard input has.
func keep(dir, binary, address string) {
	// The parent decides what an interrupt means, and its end is ours.
	signal.Ignore(os.Interrupt, syscall.SIGTERM)
	orders := make(chan byte)
	go func() {
		defer close(orders)
		for order := make([]byte, 1); ; {
			if _, err := os.Stdin.Read(order); err != nil {
				return
			}
			orders <- order[0]
		}
	}()

	run(dir, binary, address, orders)
	_ = os.Stdout.Close()
	for range orders { // until the parent is gone
	}
	_ = os.RemoveAll(dir)
}

// run runs the server until it ends by itself or there are no more orders. One that ends by itself after it was killed is started again, as a
// service manager does: Dendrite can panic as it starts on what waits in its queues, for it reads these before all of it is ready (v0.15.2).
func run(dir, binary, address string, orders <-chan byte) {
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
	for restarted := false; ; restarted = true {
		cmd := exec.Command(binary, "-config", configFile, "-http-bind-address", inner, "-really-enable-open-registration")
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
		if !supervise(cmd.Process, ended, orders, restarted) {
			return
		}
	}
}

// supervise follows orders for one life of the server, and tells whether it is to have another; restarted, it has one though it ends by itself.
// A server that is killed has nothing to save.
func supervise(server *os.Process, ended <-chan struct{}, orders <-chan byte, restarted bool) (again bool) {
	killed := false
	for {
		exited := ended
		if killed {
			exited = nil
		}
		select {
		case <-exited:
			return restarted
		case order, more := <-orders:
			if order == orderKill || !more {
				_ = server.Kill()
				<-ended
				killed = true
			}
			if !more {
				return false
			}
			_, _ = os.Stdout.Write([]byte{order})
			if order == orderStart && killed {
				return true
			}
		}
	}
}
