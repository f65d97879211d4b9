package roomkv_test

import (
	"cmp"
	"context"
	"crypto/rand"
	"go/ast"
	"go/parser"
	"go/token"
	"net/http"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/internal/wire"
	"github.com/roomkv/roomkv/roomkvtest"
)

// The table of conformance says what roomkv does, and what a homeserver does that roomkv relies on. It runs on any homeserver: on a
// Dendrite, or on the server that ROOMKV_HOMESERVER names. Each row has users and a room of its own, uses the public API and a client
// or two, and expects exactly one result. Where homeservers differ the row says how.
var conformance = slices.Concat(
	serverRows, serverListRows, serverRoomRows, serverSessionRows, readRows, writeRows, conditionalRows, transactRows, subRows, listRows, requestRows, encryptedRows,
	errorRows, watchRows, historyRows, transferRows, expiryRows, shardRows,
)

// accounts is all that the table needs of a homeserver.
type accounts interface {
	Register(ctx context.Context, prefix string) (*mautrix.Client, error)
	NewDevice(ctx context.Context, user id.UserID) (*mautrix.Client, error)
	Password(user id.UserID) (string, error)
}

// testServer is a server for bots' authors. The table runs on it so that what package roomkvtest has is what is held against real homeservers.
type testServer struct{ *roomkvtest.Server }

func (s testServer) Register(_ context.Context, prefix string) (*mautrix.Client, error) {
	return s.Client(prefix + "-" + strings.ToLower(rand.Text())), nil
}

func (s testServer) NewDevice(_ context.Context, user id.UserID) (*mautrix.Client, error) {
	return s.Client(user.Localpart()), nil
}

// Password implements accounts. See [roomkvtest.Server.ServeHTTP].
func (s testServer) Password(user id.UserID) (string, error) { return user.Localpart(), nil }

// subject is a homeserver that the table runs on.
type subject struct {
	accounts
	servers []accounts // of the same kind: the rows are shared among these
	name    string
	like    model
	half    int // which half of its settings a row runs in, the first or the second; 0 for any
	most    int // in how many of its settings a row runs; 0 for all
}

// of is the subject for one run of a row.
func (s *subject) of(run int) *subject {
	one := *s
	one.accounts = s.servers[run%len(s.servers)]
	return &one
}

// model is the homeserver that a subject behaves as.
type model int

const (
	dendrite model = iota // stores the events of a room one after the other
	synapse               // takes several at the same time, which are then forks
)

// on is what is expected of a subject that behaves as the one or the other.
func on[T any](e *env, dendrites, synapses T) T {
	if e.subject.like == synapse {
		return synapses
	}
	return dendrites
}

// row is one behaviour.
type row struct {
	name string
	in   string // the settings in which it holds, with blanks between
	run  func(t *testing.T, e *env)

	// alone rows measure what a busy machine changes: a write of a store that follows looks back where the sync takes longer than 0.3 s. Or they wait
	// for what a busy Dendrite puts off for minutes: it counts unread events once it has little else to do.
	alone bool
}

// Settings: a layout, whether the room is encrypted, and whether the store follows the client's sync.
const (
	once     = "single"
	dicts    = "single shards"
	each     = "single shards perkey"
	layouts4 = "single custom shards perkey"
	secretly = "single/encrypted shards/encrypted perkey/encrypted"
	inRooms  = each + " " + secretly
	followed = "single/following shards/following perkey/following"
	inAll    = inRooms + " " + followed + " single/encrypted/following shards/encrypted/following perkey/encrypted/following"
)

// env is what a row works with.
type env struct {
	subject   *subject
	layout    string
	encrypted bool
	sealed    bool // with sealed keys
	following bool

	began     time.Time
	client    *mautrix.Client // a fresh user's
	crypto    *cryptohelper.CryptoHelper
	room      id.RoomID     // that the user has made
	store     *roomkv.Store // of the room, in the setting
	requests  *hstest.Recorder
	transport http.RoundTripper // of the client's subject
	brought   *sync.Map         // of event IDs: what the sync has brought of settled, where the store follows the sync
}

func newEnv(t *testing.T, s *subject, setting string) *env {
	t.Helper()
	layout, how, _ := strings.Cut(setting, "/")
	e := &env{
		subject: s, began: time.Now(), layout: layout, sealed: strings.Contains(how, "sealed"), following: strings.Contains(how, "following"),
		brought: new(sync.Map),
	}
	e.encrypted = e.sealed || strings.Contains(how, "encrypted")
	e.client = e.user(t)
	e.transport = cmp.Or(e.client.Client.Transport, http.DefaultTransport)
	e.requests = hstest.Record(e.client)
	if e.encrypted {
		e.crypto = hstest.Crypto(t, e.client)
	}
	e.room = e.newRoom(t, e.client)
	e.store = open(t, e.client, e.room, e.opts()...)
	if e.following {
		e.follow(t)
	}
	return e
}

// follow has the store follow the client's sync.
func (e *env) follow(t *testing.T) {
	t.Helper()
	e.settle(t)
	require.NoError(t, e.store.Follow())
	e.client.Syncer.(mautrix.ExtensibleSyncer).OnEventType(settled, func(_ context.Context, evt *event.Event) {
		e.brought.Store(evt.ID, true)
	})
	syncing(t, e.client)
}

// user registers another user.
func (e *env) user(t *testing.T) *mautrix.Client {
	t.Helper()
	client, err := e.subject.Register(t.Context(), "bot")
	require.NoError(t, err)
	return client
}

// newRoom makes a room that is encrypted where the setting says so.
func (e *env) newRoom(t *testing.T, client *mautrix.Client, invite ...id.UserID) id.RoomID {
	t.Helper()
	if e.encrypted {
		return hstest.EncryptedRoom(t, client, invite...)
	}
	return hstest.Room(t, client, &mautrix.ReqCreateRoom{Preset: "private_chat", Invite: invite})
}

// member is another user, who has joined the room with a power level. In an encrypted room the user has a Crypto and syncs.
func (e *env) member(t *testing.T, level int) *mautrix.Client {
	t.Helper()
	client := e.user(t)
	if e.encrypted {
		hstest.Crypto(t, client)
	}
	_, err := e.client.InviteUser(t.Context(), e.room, &mautrix.ReqInviteUser{UserID: client.UserID})
	require.NoError(t, err)
	_, err = client.JoinRoomByID(t.Context(), e.room)
	require.NoError(t, err)
	if level != 0 {
		e.setLevel(t, client.UserID, level)
	}
	if e.encrypted {
		syncing(t, client)
	}
	return client
}

func (e *env) setLevel(t *testing.T, user id.UserID, level int) {
	t.Helper()
	var levels event.PowerLevelsEventContent
	require.NoError(t, e.client.StateEvent(t.Context(), e.room, event.StatePowerLevels, "", &levels))
	levels.SetUserLevel(user, level)
	_, err := e.client.SendStateEvent(t.Context(), e.room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)
}

// twin is the client's device in another process, as far as the homeserver can tell.
func (e *env) twin(t *testing.T) *mautrix.Client {
	t.Helper()
	same := twin(t, e.client)
	same.Client = &http.Client{Transport: e.transport}
	return same
}

// firstSync is how many events of the room the first response of the sync has after a restart.
const firstSync = 12

// restarted is the same in another process, which has the crypto store and nothing else.
func (e *env) restarted(t *testing.T) *env {
	t.Helper()
	other := *e
	other.client, other.brought = e.twin(t), new(sync.Map)
	other.requests = hstest.Record(other.client)
	other.store = open(t, other.client, e.room, e.opts()...)
	if e.following { // with another filter, or Synapse would give what it has answered the same device before
		filter := &mautrix.Filter{Room: &mautrix.RoomFilter{Timeline: &mautrix.FilterPart{Limit: firstSync}}}
		other.client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = filter
		other.follow(t)
	}
	return &other
}

// opts are those of the setting, and more.
func (e *env) opts(more ...roomkv.Option) []roomkv.Option {
	opts := []roomkv.Option{layouts[e.layout]}
	if e.sealed {
		opts = append(opts, roomkv.WithSealedKeys([]byte("a secret of the table")))
	}
	return append(opts, more...)
}

// another is a store of the memory in another process that knows nothing of it yet, and does not follow.
func (e *env) another(t *testing.T, more ...roomkv.Option) *roomkv.Store {
	t.Helper()
	return open(t, e.twin(t), e.room, e.opts(more...)...)
}

// stateKey is where the state has the key.
func (e *env) stateKey(key string) string {
	switch e.layout {
	case "single":
		return ""
	case "custom":
		return customStateKey
	case "shards":
		return wire.ShardKey(wire.Shard(key, shards), shards)
	}
	return key
}

// stateKeys are those where the state has the keys, each once.
func (e *env) stateKeys(keys ...string) map[string]bool {
	all := map[string]bool{}
	for _, key := range keys {
		all[e.stateKey(key)] = true
	}
	return all
}

// single tells whether one state event has the whole memory, and alone whether each key has one.
func (e *env) single() bool { return e.layout == "single" || e.layout == "custom" }
func (e *env) alone() bool  { return e.layout == "perkey" }

// raw is what the homeserver has under the key, without what roomkv adds for itself.
func (e *env) raw(t *testing.T, key string) map[string]any {
	t.Helper()
	return e.at(t, e.stateKey(key))
}

// at is what the homeserver has under the state key, without what roomkv adds for itself.
func (e *env) at(t *testing.T, stateKey string) map[string]any {
	t.Helper()
	var content map[string]any
	require.NoError(t, e.client.StateEvent(t.Context(), e.room, database, stateKey, &content))
	delete(content, "roomkv.parents")
	return content
}

// sendRaw stores content where the state has the key, as another program would.
func (e *env) sendRaw(t *testing.T, key string, content any) id.EventID {
	t.Helper()
	sent, err := e.client.SendStateEvent(t.Context(), e.room, database, e.stateKey(key), content)
	require.NoError(t, err)
	return sent.EventID
}

// sendAllRaw stores what is under several keys, as another program would.
func (e *env) sendAllRaw(t *testing.T, stored map[string]any) {
	t.Helper()
	contents := map[string]map[string]any{} // by state key
	for key, value := range stored {
		stateKey := e.stateKey(key)
		if contents[stateKey] == nil {
			contents[stateKey] = map[string]any{}
		}
		contents[stateKey][key] = value
	}
	for stateKey, content := range contents {
		_, err := e.client.SendStateEvent(t.Context(), e.room, database, stateKey, content)
		require.NoError(t, err)
	}
}

// reads waits until the store reads the value: what another wrote can take a moment where the store follows.
func (e *env) reads(t *testing.T, key, want string) {
	t.Helper()
	got := ""
	read := func() bool {
		entry, err := e.store.Entry(t.Context(), key)
		got = string(entry.Value)
		return err == nil && got == want
	}
	if e.following {
		eventually(t, read, key)
		return
	}
	require.True(t, read(), "%s is %s", key, got)
}

// settled is a type of state that the table sends to wait until it is listed.
var settled = event.Type{Type: "com.example.settled", Class: event.StateEventType}

// settle waits until the homeserver lists all that it has acknowledged in the room, for which Dendrite takes some milliseconds.
func (e *env) settle(t *testing.T) {
	t.Helper()
	sent, err := e.client.SendStateEvent(t.Context(), e.room, settled, "", map[string]any{"now": rand.Text()})
	require.NoError(t, err)
	eventually(t, func() bool {
		page, err := e.client.Messages(t.Context(), e.room, "", "", mautrix.DirectionBackward, nil, 10)
		return err == nil && slices.ContainsFunc(page.Chunk, func(evt *event.Event) bool { return evt.ID == sent.EventID })
	}, "the list")
}

// synced waits until the sync that the store follows has brought all that was written. Until then the store cannot tell what the sync brings
// from what it has read itself, and reads again.
func (e *env) synced(t *testing.T) {
	t.Helper()
	sent, err := e.client.SendStateEvent(t.Context(), e.room, settled, "", map[string]any{"now": rand.Text()})
	require.NoError(t, err)
	eventually(t, func() bool {
		_, brought := e.brought.Load(sent.EventID)
		return brought
	}, "the sync")
}

// counts tells how many requests something takes, but for those of the sync.
func (e *env) counts(t *testing.T, want int, what string, do func() error) {
	t.Helper()
	e.requests.Reset()
	require.NoError(t, do(), what)
	took := e.took()
	if slow := time.Since(e.began) > 8*time.Second; slow && took > want {
		took = max(want, took-e.again())
	}
	assert.Equal(t, want, took, "%s: %s", what, e.sent())
}

// sent are the requests since the last reset, for the text of a failure.
func (e *env) sent() string { return sent(e.requests) }

func sent(recorder *hstest.Recorder) string {
	var lines []string
	for _, request := range recorder.Requests() {
		lines = append(lines, request.Method+" "+request.Path+"?"+request.Query)
	}
	return strings.Join(lines, "\n")
}

// took is the number of requests since the last reset, but for those of the sync. One that is repeated at once counts as one: Dendrite can
// list an event some milliseconds after it has acknowledged it, and the look back is then made again.
func (e *env) took() (n int) {
	var before hstest.Request
	for _, request := range e.requests.Requests() {
		if strings.HasSuffix(request.Path, "/sync") && e.following {
			continue
		}
		if request.Method != before.Method || request.Path != before.Path || request.Query != before.Query {
			n++
		}
		before = request
	}
	return n
}

// again is how many requests since the last reset ask for what a store asks for at first, and once more after 10 seconds, which pass on a
// machine that is slow.
func (e *env) again() (n int) {
	for _, request := range e.requests.Requests() {
		if strings.Contains(request.Path, "/state/m.room.tombstone/") || strings.Contains(request.Path, "/state/m.room.encryption/") {
			n++
		}
	}
	return n
}

// subjects are the homeservers that the table runs on.
func subjects(t *testing.T) []*subject {
	t.Helper()
	hstest.Real(t)
	server := hstest.Server(t)
	if os.Getenv(homeserver.EnvURL) == "" {
		inMemory := func(mode roomkvtest.Mode) accounts { return testServer{roomkvtest.New(t, mode)} }
		second, err := homeserver.Start(t.Context())
		require.NoError(t, err)
		t.Cleanup(func() { assert.NoError(t, second.Close()) })
		linear, forking := 1, 2
		if underRace { // so that the two runs of CI have all of them
			linear, forking = forking, linear
		}
		return []*subject{
			{servers: []accounts{inMemory(roomkvtest.Linear)}, name: "memory, as Dendrite", like: dendrite, half: linear},
			{servers: []accounts{inMemory(roomkvtest.Forking)}, name: "memory, as Synapse", like: synapse, half: forking},
			{servers: []accounts{server, second}, name: "dendrite", like: dendrite, most: 1},
		}
	}
	resp, err := http.Get(server.URL + "/_matrix/client/versions")
	require.NoError(t, err)
	_ = resp.Body.Close()
	if strings.HasPrefix(resp.Header.Get("Server"), "Synapse/") {
		return []*subject{{servers: []accounts{server}, name: "synapse", like: synapse, most: 2}}
	}
	return []*subject{{servers: []accounts{server}, name: "homeserver", like: dendrite, most: 2}}
}

// settings are those in which the row of that number runs. Where not all do, each row begins with another one, so that every setting has its share of
// the rows.
func (r row) settings(s *subject, number int) []string {
	all := strings.Fields(r.in)
	if thorough() {
		return all
	}
	first, n := number%len(all), len(all)
	all = slices.Concat(all[first:], all[:first])
	switch {
	case s.half == 1:
		return all[:(n+1)/2]
	case s.half == 2:
		return all[n/2:]
	case s.most > 0:
		return all[:min(s.most, n)]
	}
	return all
}

// Rows that must be alone come first, one at a time on each homeserver. The others run beside each other and beside other tests.
func TestConformance(t *testing.T) {
	all := subjects(t)
	var subjects sync.WaitGroup
	for _, s := range all {
		subjects.Go(func() { s.run(t, true) })
	}
	subjects.Wait()
	t.Parallel()
	for _, s := range all {
		s.run(t, false)
	}
}

// run runs the rows that must be alone, or the others.
func (s *subject) run(t *testing.T, alone bool) {
	runs := 0
	for number, row := range conformance {
		for _, setting := range row.settings(s, number) {
			runs++
			if at := s.of(runs); row.alone == alone {
				t.Run(s.name+"/"+row.name+"/"+setting, func(t *testing.T) {
					if !alone {
						t.Parallel()
					}
					row.run(t, newEnv(t, at, setting))
				})
			}
		}
	}
}

// Every public function, method and option, and every error by its name, has a row.
func TestConformanceIsComplete(t *testing.T) {
	used := map[string]bool{}
	files, err := filepath.Glob("conformance_*_test.go")
	require.NoError(t, err)
	for _, file := range files {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		ast.Inspect(parsed, func(node ast.Node) bool {
			if selector, ok := node.(*ast.SelectorExpr); ok {
				used[selector.Sel.Name] = true
			}
			return true
		})
	}
	for _, of := range []reflect.Type{reflect.TypeFor[*roomkv.Store](), reflect.TypeFor[*roomkv.Snapshot](), reflect.TypeFor[*roomkv.Tx](), reflect.TypeFor[roomkv.Entry]()} {
		for method := range of.Methods() {
			assert.True(t, used[method.Name], "%s.%s has no row", of, method.Name)
		}
	}
	public, err := filepath.Glob("*.go")
	require.NoError(t, err)
	for _, file := range public {
		if strings.HasSuffix(file, "_test.go") {
			continue
		}
		parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		require.NoError(t, err)
		for _, declared := range parsed.Decls {
			var names []*ast.Ident
			switch declared := declared.(type) {
			case *ast.FuncDecl:
				if declared.Recv == nil {
					names = append(names, declared.Name)
				}
			case *ast.GenDecl:
				for _, spec := range declared.Specs {
					if value, ok := spec.(*ast.ValueSpec); ok && declared.Tok == token.VAR {
						names = append(names, value.Names...)
					}
				}
			}
			for _, name := range names {
				if name.IsExported() {
					assert.True(t, used[name.Name], "%s has no row", name)
				}
			}
		}
	}
	names := map[string]bool{}
	for _, row := range conformance {
		assert.False(t, names[row.name], "two rows are called %s", row.name)
		names[row.name] = true
	}
}
