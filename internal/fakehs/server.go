package fakehs

import (
	"math/rand/v2"
	"net/http"
	"sync"
	"time"

	"maunium.net/go/mautrix/id"
)

// Mode is whose behaviour the server has.
type Mode int

const (
	// Linear is Dendrite 0.15.2. A user's writes to a room come one after the other. Those of several users at once fork.
	Linear Mode = iota
	// Forking is Synapse 1.160. Writes at once fork, whoever sends them.
	Forking
)

// String is the mode in words, for names of tests.
func (m Mode) String() string {
	if m == Forking {
		return "forking"
	}
	return "linear"
}

// Modes are all of them.
var Modes = []Mode{Linear, Forking}

// Options say what a server is like. The zero value is a [Linear] one.
type Options struct {
	Mode Mode
	Name string // the server's name, "fakehs" where it is empty
	Seed uint64 // of all IDs

	// Lag is how long an event that is acknowledged is in no list, as on Dendrite. 0 is 3 ms in Linear mode and none in Forking mode,
	// and less than 0 is none.
	Lag time.Duration

	// Spread is how long the server takes between the look at the room that an event is built on and the moment when it stores the event.
	// Other requests go on meanwhile. 0 is 1 ms, and less than 0 is no time. With 1 ms and more an event is later than those that it is built
	// on, as on real servers. Of two events of one millisecond, state resolution can take the one that the other has replaced.
	Spread time.Duration

	UploadSize int64 // how large an upload may be, in bytes, 0 is 50 MiB
}

const (
	defaultName   = "fakehs"
	defaultLag    = 3 * time.Millisecond
	defaultSpread = time.Millisecond
	defaultUpload = 50 << 20
	defaultLife   = 5 * time.Minute // Synapse's refreshable_access_token_lifetime
)

// Server is a homeserver in memory. It is an [http.RoundTripper] and an [http.Handler]. Its methods are safe for concurrent use, but for
// what is said of each.
type Server struct {
	mode   Mode
	name   string
	lag    time.Duration
	spread time.Duration

	mu       sync.Mutex // guards all that follows; nobody waits for anything while they hold it
	rng      *rand.Rand
	offset   time.Duration // what the server's clock is ahead
	pos      int64         // the place of what was stored last
	changed  chan struct{} // closed when there is something new for a sync
	parked   chan struct{} // closed when a sync begins to wait
	unlisted []*pdu        // that are too new for lists
	settled  int64         // the place up to which events are listed whatever their lag

	users    map[id.UserID]*user
	tokens   map[string]*access
	renewals map[string]*renewal  // by refresh token
	life     time.Duration        // of an access token that has a refresh token
	services map[string]id.UserID // senders of application services, by token
	rooms    map[id.RoomID]*room
	named    map[id.UserID]map[*room]bool // the rooms with a member event of a user
	aliases  map[id.RoomAlias]id.RoomID
	media    map[string]upload
	upload   int64
	backups  int // how many key backups were made

	delegation *delegation // nil where the server signs users in itself

	intercept  []*interceptor
	beforeSend func(Write)
	together   *together
	limit      *RateLimit
	complaints []string
}

// New makes a server.
func New(options Options) *Server {
	s := &Server{
		mode:     options.Mode,
		name:     options.Name,
		lag:      options.Lag,
		spread:   options.Spread,
		rng:      rand.New(rand.NewPCG(options.Seed, 0x66616b656873)),
		changed:  make(chan struct{}),
		parked:   make(chan struct{}),
		users:    map[id.UserID]*user{},
		tokens:   map[string]*access{},
		renewals: map[string]*renewal{},
		life:     defaultLife,
		rooms:    map[id.RoomID]*room{},
		named:    map[id.UserID]map[*room]bool{},
		aliases:  map[id.RoomAlias]id.RoomID{},
		media:    map[string]upload{},
		upload:   options.UploadSize,
	}
	if s.name == "" {
		s.name = defaultName
	}
	if s.lag == 0 && s.mode == Linear {
		s.lag = defaultLag
	}
	if s.spread == 0 {
		s.spread = defaultSpread
	}
	if s.upload == 0 {
		s.upload = defaultUpload
	}
	return s
}

// Mode is the server's.
func (s *Server) Mode() Mode { return s.mode }

// Name is the server's, the part of an ID after the colon.
func (s *Server) Name() string { return s.name }

// SetClock makes the server's clock, which is what origin_server_ts comes from, be ahead by so much from now on.
func (s *Server) SetClock(ahead time.Duration) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.offset = ahead
}

// Settle makes all lists have all that is acknowledged.
func (s *Server) Settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.settled = s.pos
	s.tell()
}

// Complaints are the requests that the server did not know, as "METHOD /path".
func (s *Server) Complaints() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]string(nil), s.complaints...)
}

// date is what the server's clock says, as the header Date has it.
func (s *Server) date() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return time.UnixMilli(s.now()).UTC().Format(http.TimeFormat)
}

// now is what the server's clock says, in Unix milliseconds.
func (s *Server) now() int64 { return time.Now().Add(s.offset).UnixMilli() }

// next is the place of what is stored now.
func (s *Server) next() int64 {
	s.pos++
	return s.pos
}

// tell makes syncs look again.
func (s *Server) tell() {
	close(s.changed)
	s.changed = make(chan struct{})
}

// text is a random string of so many letters and digits.
func (s *Server) text(length int, letters string) string {
	text := make([]byte, length)
	for i := range text {
		text[i] = letters[s.rng.IntN(len(letters))]
	}
	return string(text)
}

const (
	upperCase = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"
	letters   = upperCase + "abcdefghijklmnopqrstuvwxyz"
	base64URL = letters + "0123456789-_"
)

var _ http.RoundTripper = (*Server)(nil)
