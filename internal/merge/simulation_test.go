package merge_test

import (
	"flag"
	"fmt"
	"iter"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/merge"
)

var (
	histories = flag.Int("histories", 5000, "how many random histories TestSimulation runs")
	firstSeed = flag.Uint64("seed", 0, "the number of the first history")
)

// TestSimulation lets writers write one dict at once, as a server that orders and one that forks would let them, some
// of them dying and some of them knowing nothing of parents, and compares what is left with what they were told.
func TestSimulation(t *testing.T) {
	for i := range *histories {
		seed := *firstSeed + uint64(i)
		if err := simulate(seed); err != nil {
			require.NoError(t, err, "history %d; run it alone with -seed=%d -histories=1", seed, seed)
		}
	}
}

// simulate runs one history, and tells what is wrong with its end.
func simulate(seed uint64) error {
	rng := rand.New(rand.NewPCG(seed, 0))
	s := newServer(rng)
	sim := &simulation{server: s, rng: rng, markless: rng.IntN(4) == 0}
	sim.writer("genesis").jobs = []job{{kind: put, name: "genesis", value: "0"}}
	finish(sim.writers[0].run)
	sim.populate()
	if err := sim.play(); err != nil {
		return err
	}
	finish(sim.writer("last").mergeRest)
	return sim.check()
}

// server is a homeserver, as far as the events of one dict tell.
type server struct {
	rng     *rand.Rand
	forks   bool // as Synapse: writes at once replace the same event
	silent  bool // as Dendrite for most state keys: it does not tell what an event replaced
	clock   int64
	log     []merge.Event          // in the order in which they were stored
	depths  []int                  // of those in log; listings are in their order
	depth   int                    // of the room's deepest event
	late    bool                   // it forks and lists by depth what it stores late
	tips    []int                  // events that no other has seen, by their place in log
	current int                    // the one of tips that state resolution chose
	marked  map[string]merge.Event // by mark, the event whose writer made it
}

func newServer(rng *rand.Rand) *server {
	forks := rng.IntN(2) == 0
	return &server{rng: rng, forks: forks, silent: !forks && rng.IntN(2) == 0, marked: map[string]merge.Event{}}
}

// view is what the server builds an event on.
type view struct {
	tips    []int
	current int
}

func (s *server) view() view { return view{slices.Clone(s.tips), s.current} }

// send is a PUT. Others go on between the moment when the event gets its time and the one when it is stored, so that
// times are out of the order of listings. A forking server has looked at its state before, and given the event its
// depth, so that it is listed before deeper ones that were stored meanwhile.
func (s *server) send(e merge.Event, pause func() bool) (id.EventID, bool) {
	at, depth := s.view(), s.depth+1
	s.clock += s.rng.Int64N(2)
	e.Time = s.clock
	if !pause() {
		return "", false
	}
	if !s.forks {
		at = s.view()
	}
	if !s.late {
		depth = s.depth + 1
	}
	if len(at.tips) > 0 {
		now := s.log[at.current]
		if now.Mark == e.Mark && maps.Equal(now.Dict, e.Dict) {
			return now.ID, true // the content is the current one
		}
		if !s.silent {
			e.Replaces = now.ID
		}
	}
	e.ID = id.EventID(fmt.Sprintf("$%04x%d", s.rng.IntN(1<<16), len(s.log)))
	if original, ok := s.marked[e.Mark]; ok && maps.Equal(original.Dict, e.Dict) { // the digest fits, whoever wrote it
		e.Marked, e.Parents, e.Yields, e.Conditional = true, original.Parents, original.Yields, original.Conditional
		e.Atomic, e.Reads, e.ReadsAll = original.Atomic, original.Reads, original.ReadsAll
	} else if e.Marked {
		s.marked[e.Mark] = e
	}
	s.log, s.depths, s.depth = append(s.log, e), append(s.depths, depth), max(s.depth, depth)
	s.tips = append(slices.DeleteFunc(s.tips, func(tip int) bool { return slices.Contains(at.tips, tip) }), len(s.log)-1)
	s.current = s.tips[s.rng.IntN(len(s.tips))]
	if s.rng.IntN(8) == 0 {
		s.tips = []int{s.current} // somebody said something in the room
		s.depth++
	}
	return e.ID, true
}

// read is a listing, or the current event, of which a client makes something later.
func (s *server) read() int {
	s.clock++
	return len(s.log)
}

// list gives the first so many events, as a listing does.
func (s *server) list(n int) []merge.Event {
	places := make([]int, n)
	for i := range places {
		places[i] = i
	}
	slices.SortStableFunc(places, func(a, b int) int { return s.depths[a] - s.depths[b] })
	events := make([]merge.Event, n)
	for i, place := range places {
		events[i] = s.log[place]
	}
	return events
}

// place tells how many events come before.
func place(log []merge.Event, event merge.Event) int {
	return slices.IndexFunc(log, func(e merge.Event) bool { return e.ID == event.ID })
}

type kind int

const (
	put kind = iota
	remove
	increment
	create
	transfer
	claim
	kinds
)

// job is one change that a writer is asked for.
type job struct {
	kind        kind
	name, value string
	to          string       // of a transfer
	amount      int          // of a transfer, which no other has
	in          []id.EventID // the events that made the change
	done        bool         // the writer was told so
	conflict    bool         // the last attempt found that another had created the name
	refused     bool         // the writer was told that
	begun       bool
	idle        bool // the last attempt found nothing to change
}

// writer is a client. One that is plain writes as opsdroid does, and copies marks if copies is set.
type writer struct {
	name          string
	server        *server
	rng           *rand.Rand
	plain, copies bool
	dies, dead    bool
	follows       bool // a sync brings it events, in the order in which they were stored
	jobs          []job
	history       merge.History
	marks         int
	markless      bool  // see [simulation]
	torn          error // what the writer has read that never was
}

// run does the jobs. It stops where pause says that the writer died.
func (w *writer) run(pause func() bool) {
	for next := 0; next < len(w.jobs); {
		if w.plain {
			if !w.overwrite(&w.jobs[next], pause) {
				return
			}
			next++
			continue
		}
		c := commit{writer: w, next: next}
		c.take()
		if !c.run(pause) {
			return
		}
		next = c.next
	}
}

// overwrite reads the current event and sends it with one key changed.
func (w *writer) overwrite(j *job, pause func() bool) bool {
	w.server.read()
	now := w.server.log[w.server.current]
	if !pause() {
		return false
	}
	e := merge.Event{Sender: id.UserID(w.name), Dict: j.apply(now.Dict)}
	if w.copies {
		e.Mark = now.Mark
	}
	_, ok := w.server.send(e, pause)
	return ok
}

// look adds what the server lists, some time after it listed it.
func (w *writer) look(pause func() bool) bool {
	n := w.server.read()
	if !pause() {
		return false
	}
	if w.follows && w.rng.IntN(4) > 0 { // else the sync is too slow
		for _, e := range w.server.log[:n] {
			w.history.Add(e)
		}
		return true
	}
	page := w.server.list(n)
	slices.Reverse(page)
	w.history.AddPage(page, w.history.Now())
	return true
}

// place asks for the places of events that exclude one another.
func (w *writer) place(own id.EventID) {
	for unplaced := w.history.Unplaced(own); len(unplaced) > 0; unplaced = w.history.Unplaced(own) {
		for _, event := range unplaced {
			w.history.Place(event, int64(place(w.server.log, merge.Event{ID: event})), true)
		}
	}
}

// send sends the event, now and then twice, as a client does whose first request timed out: the ID of that is never
// known.
func (w *writer) send(e merge.Event, pause func() bool) (id.EventID, bool) {
	sent, ok := w.server.send(e, pause)
	if ok && w.rng.IntN(10) == 0 {
		w.server.clock++
		if ok = pause(); ok {
			sent, ok = w.server.send(e, pause)
		}
	}
	return sent, ok && pause()
}

// mergeRest merges what dead writers left.
func (w *writer) mergeRest(pause func() bool) {
	if !w.look(pause) {
		return
	}
	w.place(w.server.log[w.server.current].ID)
	if len(w.history.Heads()) > 1 {
		w.server.send(w.event(w.history.Merge(), nil), pause)
		w.look(pause)
	}
}

// commit is some jobs of a writer on their way. It does what package commit does, without the requests.
type commit struct {
	*writer
	next int    // where the jobs go on that nobody has begun
	all  []*job // all conditional, or all not
	todo []*job // those that the next event is to hold
	own  id.EventID
}

// take takes on more jobs that can share an event.
func (c *commit) take() {
	for c.next < len(c.jobs) {
		j := &c.jobs[c.next]
		if len(c.all) > 0 && (j.conditional() != c.all[0].conditional() || j.atomic() != c.all[0].atomic() || c.rng.IntN(3) > 0) {
			return
		}
		c.all, c.todo = append(c.all, j), append(c.todo, j)
		c.next++
	}
}

// run sends events until the jobs are in all heads.
func (c *commit) run(pause func() bool) bool {
	if (c.history.Len() == 0 || c.rng.IntN(3) > 0) && !c.look(pause) {
		return false
	}
	for {
		c.place(c.own)
		merged := c.history.Merge()
		e, applied := c.change(merged)
		if len(applied) > 0 || len(merged.Parents) > 1 {
			sent, ok := c.send(e, pause)
			if !ok {
				return false
			}
			c.own = sent
			for _, j := range applied {
				j.in = append(j.in, sent)
			}
		} else if c.own == "" {
			break
		}
		settled, alive := c.settle(pause)
		if !alive {
			return false
		}
		if settled {
			break
		}
	}
	for _, j := range c.all {
		if j.conflict && c.stands(j) {
			j.conflict = false // what it did first counts after all
		}
		j.done, j.refused = !j.conflict, j.conflict
	}
	return true
}

// stands tells whether one of the events that made the job's change counts in the end.
func (c *commit) stands(j *job) bool {
	return !slices.ContainsFunc(j.names(), func(name string) bool {
		return !slices.ContainsFunc(j.in, func(event id.EventID) bool { return c.history.WillCount(event, name) })
	})
}

// settle waits until all heads have merged what was sent, or until it is this writer's turn to merge.
func (c *commit) settle(pause func() bool) (settled, alive bool) {
	for patience := c.rng.IntN(4); ; patience-- {
		if !c.look(pause) {
			return false, false
		}
		c.place(c.own)
		lost, after, settled := c.fate()
		if settled && len(lost) == 0 {
			return true, true
		}
		if settled || after == 0 || patience <= 0 {
			c.todo = lost
			c.take()
			return false, true
		}
	}
}

// fate tells which jobs do not count, or will not once the heads are merged, how many heads came after the one that
// descends from what was sent, and whether all do.
func (c *commit) fate() (lost []*job, after int, settled bool) {
	settled = true
	for _, head := range c.history.Heads() {
		if c.history.Descends(head.ID, c.own) {
			after = 0
		} else {
			settled = false
			after++
		}
	}
	for _, j := range c.all {
		if !c.counts(j) {
			lost = append(lost, j)
		}
	}
	return lost, after, settled
}

// counts tells whether one of a job's attempts will count once the heads are merged. A job that found nothing to change
// has nothing that could count.
func (c *commit) counts(j *job) bool {
	if !j.conditional() || j.conflict || j.idle {
		return true
	}
	return c.stands(j)
}

// change is an event that does what is to do to a merged dict, with the jobs that change anything.
func (c *commit) change(merged merge.Merged) (e merge.Event, applied []*job) {
	dict := merged.Dict
	if n := total(dict); n != 0 && c.torn == nil && !c.markless {
		c.torn = fmt.Errorf("%s has read half a transfer: %q", c.name, dict)
	}
	for _, j := range c.todo {
		_, found := dict[j.name]
		j.conflict = j.kind == create && found
		changed := j.apply(dict)
		if j.idle = j.conflict || maps.Equal(changed, dict); !j.idle {
			j.begun = true
			dict = changed
			applied = append(applied, j)
		}
	}
	merged.Dict = dict
	return c.event(merged, applied), applied
}

// event is one with the jobs. All who merge the same to the same without any give it the same mark.
func (w *writer) event(merged merge.Merged, jobs []*job) merge.Event {
	e := merge.Event{
		Sender: id.UserID(w.name), Dict: merged.Dict, Parents: merged.Parents, Yields: merged.Yields, Marked: true,
	}
	if len(jobs) > 0 {
		w.marks++
		e.Conditional, e.Atomic = jobs[0].conditional(), jobs[0].atomic()
		if e.Atomic {
			for _, j := range jobs {
				e.Reads = append(e.Reads, j.reads()...)
			}
			if e.ReadsAll = w.rng.IntN(3) == 0; e.ReadsAll {
				e.Reads = nil
			}
		}
		e.Mark = fmt.Sprint(w.name, " ", w.marks)
		return e
	}
	var mark strings.Builder
	fmt.Fprint(&mark, "merge ", merged.Parents, merged.Yields)
	for _, key := range slices.Sorted(maps.Keys(merged.Dict)) {
		fmt.Fprint(&mark, " ", key, "=", merged.Dict[key])
	}
	e.Mark = mark.String()
	return e
}

func (j *job) conditional() bool { return j.kind == increment || j.kind == create || j.atomic() }

func (j *job) atomic() bool { return j.kind == transfer || j.kind == claim }

// names are those that the job changes.
func (j *job) names() []string {
	if j.kind == transfer {
		return []string{j.name, j.to}
	}
	return []string{j.name}
}

// reads are those that the job reads beside them.
func (j *job) reads() []string {
	if j.kind == claim {
		return claims
	}
	return nil
}

// accounts are the names between which amounts are transferred, each of which begins at 0. Of the claims one may be made.
var (
	accounts = []string{"account 0", "account 1", "account 2"}
	claims   = []string{"claim 0", "claim 1"}
)

// total is what all accounts hold.
func total(dict map[string]string) (sum int) {
	for _, name := range accounts {
		sum += number(dict[name])
	}
	return sum
}

func number(value string) int {
	n, _ := strconv.Atoi(value)
	return n
}

// apply is the dict with the job done.
func (j *job) apply(dict map[string]string) map[string]string {
	dict = maps.Clone(dict)
	if dict == nil {
		dict = map[string]string{}
	}
	switch j.kind {
	case put, create:
		dict[j.name] = j.value
	case remove:
		delete(dict, j.name)
	case increment:
		dict[j.name] = strconv.Itoa(number(dict[j.name]) + 1)
	case transfer:
		dict[j.name], dict[j.to] = strconv.Itoa(number(dict[j.name])-j.amount), strconv.Itoa(number(dict[j.to])+j.amount)
	case claim:
		if dict[claims[0]] == "" && dict[claims[1]] == "" {
			dict[j.name] = j.value
		}
	}
	return dict
}

// simulation is a server and its writers.
type simulation struct {
	server   *server
	rng      *rand.Rand
	writers  []*writer
	markless bool // a plain writer can erase anything, because nothing tells what it had read

	transfers int
}

func (sim *simulation) writer(name string) *writer {
	w := &writer{name: name, server: sim.server, rng: sim.rng, markless: sim.markless}
	sim.writers = append(sim.writers, w)
	return w
}

// populate invents writers and their jobs.
func (sim *simulation) populate() {
	dying, plain := sim.rng.IntN(3) == 0, false
	for i := range 2 + sim.rng.IntN(3) {
		w := sim.writer(fmt.Sprint("w", i))
		w.plain = i > 0 && sim.rng.IntN(3) == 0
		w.copies = w.plain && !(sim.markless && sim.rng.IntN(2) == 0)
		w.follows = sim.rng.IntN(3) == 0
		w.dies = dying && sim.rng.IntN(2) == 0
		plain = plain || w.plain
		for n := range 1 + sim.rng.IntN(5) {
			w.jobs = append(w.jobs, sim.job(w, n))
		}
	}
	sim.server.late = sim.server.forks && !plain
}

func (sim *simulation) job(w *writer, n int) job {
	own := fmt.Sprint(w.name, " own ", sim.rng.IntN(2))
	value := fmt.Sprint(w.name, " ", n)
	if w.plain { // its own key; a value that it had before makes the content that it had before
		return job{kind: put, name: own, value: fmt.Sprint(sim.rng.IntN(2))}
	}
	switch kind(sim.rng.IntN(int(kinds))) {
	case remove:
		return job{kind: remove, name: own}
	case increment:
		return job{kind: increment, name: "counter"}
	case create:
		return job{kind: create, name: "created", value: value}
	case transfer:
		j := job{kind: transfer, amount: 1 << sim.transfers}
		sim.transfers++
		from := sim.rng.IntN(len(accounts))
		j.name, j.to = accounts[from], accounts[(from+1+sim.rng.IntN(len(accounts)-1))%len(accounts)]
		return j
	case claim:
		return job{kind: claim, name: claims[sim.rng.IntN(2)], value: value}
	default:
		if sim.rng.IntN(2) == 0 {
			own = "shared"
		}
		return job{kind: put, name: own, value: value}
	}
}

// finish lets a writer work alone.
func finish(run func(func() bool)) { run(func() bool { return true }) }

// play lets the writers work in turns.
func (sim *simulation) play() error {
	var next []func() (struct{}, bool)
	var alive []*writer
	for _, w := range sim.writers[1:] {
		step, stop := iter.Pull(func(yield func(struct{}) bool) { w.run(func() bool { return yield(struct{}{}) }) })
		defer stop()
		next, alive = append(next, step), append(alive, w)
	}
	for steps := 0; len(next) > 0; steps++ {
		if steps > 20_000 {
			return fmt.Errorf("the writers never finish")
		}
		i := sim.rng.IntN(len(next))
		_, busy := next[i]()
		alive[i].dead = busy && alive[i].dies && sim.rng.IntN(20) == 0
		if !busy || alive[i].dead {
			next, alive = slices.Delete(next, i, i+1), slices.Delete(alive, i, i+1)
		}
	}
	return nil
}

// check compares the end with what the writers were told.
func (sim *simulation) check() error {
	final, err := sim.replicas()
	if err != nil || sim.markless {
		return err
	}
	if err := sim.checkAtomic(final); err != nil {
		return err
	}
	attempted, counted, created, died := 0, 0, 0, false
	begun, orphans := 0, map[string]bool{} // attempts to create the name, and what the dead ones would have made it
	sharedDone, shared := false, map[string]bool{}
	for _, w := range sim.writers {
		died = died || w.dead
		if w.plain {
			continue
		}
		own := map[string][]string{} // what each name can be
		for _, j := range w.jobs {
			switch {
			case j.atomic():
			case j.kind == increment:
				attempted, counted = attempted+count(j.begun), counted+count(j.done)
			case j.kind == create:
				created, begun = created+count(j.done), begun+count(j.begun)
				orphans[j.value] = w.dead && j.begun && !j.done && !j.refused
				if j.done && final[j.name] != j.value {
					return fmt.Errorf("%s was told that it created %q as %q, but it is %q", w.name, j.name, j.value, final[j.name])
				}
			case j.name == "shared":
				shared[j.value], sharedDone = j.begun, sharedDone || j.done
			case !j.begun:
			case j.done:
				own[j.name] = []string{j.value}
			default:
				own[j.name] = append(orAbsent(own[j.name]), j.value)
			}
		}
		for name, values := range own {
			if !slices.Contains(values, final[name]) {
				return fmt.Errorf("%q is %q, not one of %q", name, final[name], values)
			}
		}
	}
	if value, found := final["shared"]; sharedDone && !found || found && !shared[value] {
		return fmt.Errorf("shared is %q, %v", value, found)
	}
	if n, _ := strconv.Atoi(final["counter"]); n < counted || n > attempted || !died && n != counted {
		return fmt.Errorf("the counter is %d, after %d of %d increments", n, counted, attempted)
	}
	if created > 1 {
		return fmt.Errorf("%d writers were told that they created the name", created)
	}
	if value, found := final["created"]; created == 0 && found && !orphans[value] {
		return fmt.Errorf("the name was created as %q, but nobody was told", value)
	} else if !found && begun > 0 && !died {
		return fmt.Errorf("the name was not created, by %d writers", begun)
	}
	return nil
}

// checkAtomic compares the accounts and the claims with what the writers were told.
func (sim *simulation) checkAtomic(final map[string]string) error {
	least, most, claimed := 0, 0, 0 // the transfers that were made, and those that can have been, a bit each
	for _, w := range sim.writers {
		if w.torn != nil {
			return w.torn
		}
		for _, j := range w.jobs {
			switch {
			case j.kind == claim && j.done && !j.idle:
				claimed++
				if final[j.name] != j.value {
					return fmt.Errorf("%s was told that it claimed %q as %q, but it is %q", w.name, j.name, j.value, final[j.name])
				}
			case j.kind == transfer && j.done:
				least |= j.amount
				most |= j.amount
			case j.kind == transfer && j.begun:
				most |= j.amount
			}
		}
	}
	if n := total(final); n != 0 {
		return fmt.Errorf("the accounts hold %d together: %q", n, final)
	}
	if claimed > 1 || final[claims[0]] != "" && final[claims[1]] != "" {
		return fmt.Errorf("%d writers were told that they claimed a name: %q and %q", claimed, final[claims[0]], final[claims[1]])
	}
	for made := least; ; made = (made + 1) | least { // which of those whose writers were not told have happened
		if made&^most == 0 && sim.explains(made, final) {
			return nil
		}
		if made >= most {
			return fmt.Errorf("no transfers of %b to %b explain %q", least, most, final)
		}
	}
}

// explains tells whether these transfers, a bit each, have led to the accounts.
func (sim *simulation) explains(made int, final map[string]string) bool {
	sums := map[string]int{}
	for _, w := range sim.writers {
		for _, j := range w.jobs {
			if j.kind == transfer && made&j.amount != 0 {
				sums[j.name] -= j.amount
				sums[j.to] += j.amount
			}
		}
	}
	return !slices.ContainsFunc(accounts, func(name string) bool { return number(final[name]) != sums[name] })
}

func orAbsent(values []string) []string {
	if values == nil {
		return []string{""}
	}
	return values
}

func count(yes bool) int {
	if yes {
		return 1
	}
	return 0
}

// replicas has the events added in other orders, some of them piecemeal, and tells what they make of the dict.
func (sim *simulation) replicas() (map[string]string, error) {
	log := sim.server.list(len(sim.server.log))
	current := sim.server.log[sim.server.current]
	shuffled := slices.Clone(log)
	rest := shuffled[1:] // that the first one replaced nothing is told by its place alone
	sim.rng.Shuffle(len(rest), func(i, j int) { rest[i], rest[j] = rest[j], rest[i] })
	for i, e := range rest { // nor does anything else tell which of two that are one request, or one merge, was first
		for k, earlier := range rest[:i] {
			if e.Mark == earlier.Mark && place(log, e) < place(log, earlier) {
				rest[i], rest[k] = earlier, e
				e = earlier
			}
		}
	}
	middle := sim.rng.IntN(len(log))
	type order struct {
		newer, older []merge.Event
		stored       bool
	}
	orders := []order{{newer: log}, {newer: log[middle:], older: log[:middle]}}
	if !slices.ContainsFunc(sim.writers, func(w *writer) bool { return w.plain }) {
		orders = append(orders, order{newer: sim.server.log, stored: true})
	}
	if !sim.server.silent { // else the order tells what replaced what
		orders = append(orders, order{newer: shuffled})
	}
	for _, order := range orders {
		var h merge.History
		for _, e := range order.newer {
			sim.add(e, func(e merge.Event) { h.Add(e) })
		}
		for _, e := range slices.Backward(order.older) {
			sim.add(e, func(e merge.Event) { h.AddOlder(e) })
		}
		// Which of two that are one request was stored first is not asked where the same comes of it.
		if heads := h.Heads(); len(heads) != 1 && !order.stored {
			return nil, fmt.Errorf("a replica has %d heads", len(heads))
		}
		if merged := h.Merge(); !maps.Equal(merged.Dict, current.Dict) {
			return nil, fmt.Errorf("a replica has %q, the room %q", merged.Dict, current.Dict)
		}
		if missing := h.Missing(); len(missing) > 0 || h.Open() {
			return nil, fmt.Errorf("nothing is missing, but %q", missing)
		}
	}
	return current.Dict, nil
}

// add adds an event, now and then in two steps, as where the homeserver leaves out at first what it replaced.
func (sim *simulation) add(e merge.Event, add func(merge.Event)) {
	if sim.rng.IntN(4) == 0 {
		part := e
		part.Replaces, part.Partial = "", true
		add(part)
	}
	add(e)
}
