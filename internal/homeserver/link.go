package homeserver

import (
	"crypto/tls"
	"net"
	"sync"
)

// link is the way into one server of a Pair: it takes connections on the address that is the server's name,
// ends TLS, which federation demands, and forwards to the server's ordinary port.
//
// A cut link is one that loses every packet: connections stay, new ones wait, and neither a byte nor the end
// of a connection gets through. What TCP would send again comes through when the link is back. A link that
// refused connections would be slower to recover than the tests can wait: after each failure Dendrite waits
// twice as long, and at the other server's return it retries at most once a minute. Here a request that meets
// the cut goes on when it ends, and nothing has failed. That holds for cuts below Dendrite's timeout of 5
// minutes.
type link struct {
	listener net.Listener
	up       *sync.RWMutex // read-locked by whoever passes something on, locked while the link is cut
	running  sync.WaitGroup
	stop     func() error
}

// newLink listens at once, so that the server's name is settled before the server starts.
func newLink(up *sync.RWMutex) (*link, error) {
	certificate, err := selfSigned()
	if err != nil {
		return nil, err
	}
	listener, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{certificate}})
	if err != nil {
		return nil, err
	}
	return &link{listener: listener, up: up, stop: sync.OnceValue(listener.Close)}, nil
}

func (l *link) name() string { return l.listener.Addr().String() }

// forwardTo serves the link, to the server at address, until close.
func (l *link) forwardTo(address string) {
	l.running.Go(func() {
		for {
			peer, err := l.listener.Accept()
			if err != nil {
				return
			}
			l.running.Go(func() { l.connect(peer, address) })
		}
	})
}

func (l *link) connect(peer net.Conn, address string) {
	l.up.RLock()
	server, err := net.Dial("tcp", address)
	if err != nil {
		_ = peer.Close() // the server is dead
	}
	l.up.RUnlock()
	if err != nil {
		return
	}
	l.running.Go(func() { l.forward(peer, server) })
	l.forward(server, peer)
}

// forward copies until either end is gone, and then closes both.
func (l *link) forward(to, from net.Conn) {
	buffer := make([]byte, 32<<10)
	for open := true; open; {
		n, err := from.Read(buffer)
		l.up.RLock()
		if n > 0 {
			_, writeErr := to.Write(buffer[:n])
			open = writeErr == nil
		}
		if open = open && err == nil; !open {
			_ = to.Close()
			_ = from.Close()
		}
		l.up.RUnlock()
	}
}

// close ends the link of a server that has ended. The servers at both ends must be gone, for their
// connections are not ended here; and the link must be up.
func (l *link) close() error {
	err := l.stop()
	l.running.Wait()
	return err
}
