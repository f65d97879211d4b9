package commit_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/roomkv/roomkv/internal/commit"
)

// scenario is a fault that was found elsewhere, as small as it gets. Where chance decides it is several plans, and one that fails is
// enough.
type scenario struct {
	name  string
	fault string // of knownFaults, as long as it fails
	plans []plan
	rules []rule
}

// rule says what becomes of a request: that of a process, by the number among those of its kind.
type rule struct {
	process, kind string
	number        int
	then          func(q *request)
}

func (s scenario) intercept(q *request) {
	for _, r := range s.rules {
		if r.process == q.process.name && r.kind == q.kind && r.number == q.number {
			r.then(q)
		}
	}
}

func fails(q *request) { q.fate = refused }

func dies(q *request) { q.dies = true }

func held(until time.Duration) func(q *request) { return func(q *request) { q.there = until } }

// at is an operation after a while.
func at(think time.Duration, kind opKind, key string) opPlan {
	return opPlan{Think: think, Kind: kind, Key: key}
}

// planned is a process with one goroutine.
func planned(name string, ops ...opPlan) processPlan {
	one := processPlan{Name: name, Account: name, Mortal: true, Goroutines: [][]opPlan{ops}}
	for i := range ops {
		ops[i].ID = fmt.Sprintf("%s.0.%d", name, i)
	}
	return one
}

func following(one processPlan) processPlan {
	one.Follows = true
	return one
}

func retrying(one processPlan) processPlan {
	one.Retries = 3
	return one
}

// family are plans that differ by chance.
func family(n int, make func(seed uint64, rng *rand.Rand) plan) (plans []plan) {
	for seed := range uint64(n) {
		p := make(seed, rand.New(rand.NewPCG(seed, 0)))
		p.Seed = seed
		plans = append(plans, p)
	}
	return plans
}

func some(rng *rand.Rand, most time.Duration) time.Duration {
	return time.Duration(1 + rng.Int64N(int64(most)))
}

const ms = time.Millisecond

var scenarios = []scenario{
	{
		name:  "A1, A8: three first writers, and lists in another order than that of storage",
		fault: "shuffled lists",
		plans: family(60, func(seed uint64, rng *rand.Rand) plan {
			p := plan{Knobs: knobs{SameDepth: true, Shuffles: true, Lag: 5 * ms, Slow: 30 * ms, IgnoreRefusals: true, IgnoreOwn: true}}
			for i := range 3 {
				one := processPlan{Name: fmt.Sprint("p", i), Account: fmt.Sprint("p", i)}
				for g := range 2 {
					var ops []opPlan
					for n := range 2 {
						o := at(some(rng, ms), update, fmt.Sprint("k", n))
						o.ID = fmt.Sprintf("p%d.%d.%d", i, g, n)
						ops = append(ops, o)
					}
					one.Goroutines = append(one.Goroutines, ops)
				}
				p.Processes = append(p.Processes, one)
			}
			return p
		}),
	},
	{
		name: "Transacts that share an event with others that change nothing or refuse",
		plans: family(150, func(seed uint64, rng *rand.Rand) plan {
			p := plan{Knobs: knobs{Forking: rng.IntN(2) == 0, Slow: 20 * ms}}
			for i := range 2 {
				one := processPlan{Name: fmt.Sprint("p", i), Account: fmt.Sprint("p", i)}
				for g := range 4 {
					var ops []opPlan
					for n := range 3 {
						keys := rng.Perm(3)
						o := at(some(rng, ms), transact, fmt.Sprint("k", keys[0]))
						o.ID, o.Looks, o.Picky = fmt.Sprintf("p%d.%d.%d", i, g, n), rng.IntN(3) == 0, rng.IntN(3) == 0
						if rng.IntN(4) == 0 { // which shares no event with a Transact
							o.Kind, o.Looks, o.Picky = update, false, false
							ops = append(ops, o)
							continue
						}
						if rng.IntN(2) == 0 {
							o.Keys = []string{fmt.Sprint("k", keys[1])}
							ops = append(ops, o)
							continue
						}
						for _, other := range keys[1 : 1+rng.IntN(3)] {
							o.Reads = append(o.Reads, fmt.Sprint("k", other))
						}
						ops = append(ops, o)
					}
					one.Goroutines = append(one.Goroutines, ops)
				}
				p.Processes = append(p.Processes, one)
			}
			return p
		}),
	},
	{
		name:  "A3: the look back fails after a Create was stored, per key",
		fault: "failures",
		plans: []plan{{Alone: true, Knobs: knobs{OneName: true}, Processes: []processPlan{
			planned("a", at(30*ms, create, "k")), planned("b", at(10*ms, create, "k")),
		}}},
		rules: []rule{{"b", "PUT", 0, held(200 * ms)}, {"b", "LIST", 0, fails}},
	},
	{
		name:  "A3: the look back fails after a Put was stored, in one dict",
		fault: "failures",
		plans: []plan{{Alone: true, Processes: []processPlan{
			planned("a", at(30*ms, put, "k")), planned("b", at(10*ms, put, "other")),
		}}},
		rules: []rule{{"b", "PUT", 0, held(200 * ms)}, {"b", "LIST", 0, fails}},
	},
	{
		name:  "A4: a process that does not follow reads its own write again and again, beside a rival that died",
		fault: "own writes",
		plans: []plan{{Knobs: knobs{OneName: true}, Processes: []processPlan{
			planned("a", at(30*ms, create, "k"), at(time.Second, get, "k"), at(time.Second, get, "k"), at(90*time.Second, get, "k")),
			planned("b", at(10*ms, create, "k")),
		}}},
		rules: []rule{{"b", "PUT", 0, held(200 * ms)}, {"b", "LIST", 0, dies}},
	},
	{
		name:  "a process that follows reads its own write, beside a rival",
		fault: "own writes",
		plans: family(100, func(seed uint64, rng *rand.Rand) plan {
			return plan{Knobs: knobs{Forking: seed%2 == 0, OneName: seed%4 < 2}, Processes: []processPlan{
				planned("a", at(some(rng, 10*ms), update, "k")),
				following(planned("b", at(some(rng, 20*ms), update, "k"), at(some(rng, 10*ms), get, "k"))),
			}}
		}),
	},
	{
		name:  "A5: a late duplicate of a Put arrives after another Put, per key",
		fault: "late duplicates",
		plans: []plan{{Alone: true, Knobs: knobs{OneName: true}, Processes: []processPlan{
			retrying(planned("a", at(ms, put, "k"), at(time.Second, put, "k"), at(30*time.Second, get, "k"))),
		}}},
		rules: []rule{{"a", "PUT", 0, func(q *request) { q.fate, q.overdue = late, 20*time.Second }}},
	},
	{
		name:  "A5: a late duplicate of a Put arrives after a Delete, per key, with somebody who follows",
		fault: "late duplicates",
		plans: []plan{{Alone: true, Knobs: knobs{OneName: true}, Processes: []processPlan{
			retrying(planned("a", at(ms, put, "k"), at(time.Second, remove, "k"))),
			following(planned("b", at(10*ms, get, "k"), at(time.Minute, get, "k"))),
		}}},
		rules: []rule{{"a", "PUT", 0, func(q *request) { q.fate, q.overdue = late, 20*time.Second }}},
	},
	{
		name:  "A5: a late duplicate of a Put arrives after others, and nobody else writes",
		fault: "late duplicates",
		plans: []plan{
			{Alone: true, Knobs: knobs{Single: true}, Processes: []processPlan{
				following(retrying(planned("a", at(ms, put, "k"), at(ms, put, "j"), at(time.Second, update, "k"), at(20*time.Second, update, "k"), at(ms, get, "j")))),
			}},
			{Alone: true, Knobs: knobs{Single: true}, Processes: []processPlan{
				retrying(planned("a", at(ms, put, "k"), at(ms, put, "j"), at(time.Second, update, "k"), at(20*time.Second, update, "k"), at(ms, get, "j"))),
			}},
		},
		rules: []rule{{"a", "PUT", 1, func(q *request) { q.fate, q.overdue = late, 10*time.Second }}},
	},
	{
		name:  "A7: a Put that is stored is answered after 14 seconds, per key, with more than a page between",
		fault: "long stalls",
		plans: []plan{{Knobs: knobs{OneName: true}, Incidents: []incident{{At: 2 * time.Second, Kind: "foreign", Count: 120}}, Processes: []processPlan{
			planned("a", at(ms, update, "k"), at(time.Second, update, "k")),
			planned("b", at(time.Second, update, "k")),
			planned("c", at(13*time.Second, update, "k")),
		}}},
		rules: []rule{{"b", "PUT", 0, func(q *request) { q.there, q.back = 400*ms, 14*time.Second }}},
	},
	{
		name:  "A9: the homeserver's clock goes back by an hour, and a process follows, per key",
		fault: "clocks",
		plans: []plan{{Alone: true, Knobs: knobs{OneName: true}, Incidents: []incident{{At: 500 * ms, Kind: "clock", For: -time.Hour}}, Processes: []processPlan{
			following(planned("a", at(20*ms, get, "k"), at(5*time.Second, get, "k"))),
			planned("b", at(100*ms, put, "k"), at(time.Second, put, "k")),
		}}},
	},
	{
		name:  "A12: the one attempt to merge what two dead writers left fails",
		fault: "repairs",
		plans: []plan{{Alone: true, Processes: []processPlan{
			planned("a", at(100*ms, put, "k")), planned("b", at(100*ms, put, "other")),
			following(planned("c", at(20*ms, get, "k"))),
		}}},
		rules: []rule{{"a", "LIST", 0, dies}, {"b", "LIST", 0, dies}, {"c", "PUT", 0, fails}},
	},
	{
		name:  "A13: two Updates beside a Put, per key",
		fault: "plain beside conditional",
		plans: family(40, func(seed uint64, rng *rand.Rand) plan {
			return plan{Knobs: knobs{Forking: seed%2 == 0, OneName: true, IgnoreOwn: true, IgnoreRefusals: true}, Processes: []processPlan{
				planned("a", at(some(rng, 20*ms), update, "k")), planned("b", at(some(rng, 20*ms), update, "k")),
				planned("c", at(some(rng, 150*ms), put, "k")),
			}}
		}),
	},
	{
		name:  "A13: two Updates beside a Delete, in one dict",
		fault: "plain beside conditional",
		plans: family(40, func(seed uint64, rng *rand.Rand) plan {
			return plan{Knobs: knobs{Forking: seed%2 == 0, IgnoreOwn: true, IgnoreRefusals: true}, Processes: []processPlan{
				planned("a", at(some(rng, 20*ms), update, "k")), planned("b", at(some(rng, 20*ms), update, "k")),
				planned("c", at(some(rng, 150*ms), remove, "k")),
			}}
		}),
	},
	{
		name:  "A6: a writer's power is taken while it writes, and what others wrote goes with its event",
		fault: "power",
		plans: []plan{
			loses(knobs{Forking: true}, false), loses(knobs{Forking: true}, true),
			loses(knobs{Forking: true, OneName: true}, false), loses(knobs{Forking: true, OneName: true}, true),
		},
		rules: powerGoes,
	},
	{
		name:  "A6: what was sent after the power was taken does not count, and nobody sends it again",
		fault: "power",
		plans: family(8, func(seed uint64, rng *rand.Rand) plan {
			p := loses(knobs{Forking: true}, seed%2 == 0)
			ops := p.Processes[0].Goroutines[0]
			ops[2].Want = []string{"b.0.0"}
			return p
		}),
		rules: afterPowerGoes,
	},
	{
		name:  "A6: a process that knows nothing writes after that, before anybody has read",
		fault: "power",
		plans: []plan{{Alone: true, Knobs: knobs{Forking: true}, Incidents: []incident{{At: 600 * ms, Kind: "power", Process: "b", For: time.Minute}},
			Processes: []processPlan{
				planned("c", at(10*ms, put, "c")), planned("b", at(200*ms, put, "b"), at(350*ms, put, "b")),
				planned("d", at(3*time.Second, update, "c"), at(time.Second, get, "b")),
			}}},
		rules: powerGoes,
	},
	{
		name:  "A6: a process that knows nothing writes after that, and does not send again what was sent after the power was taken",
		fault: "power",
		plans: family(8, func(seed uint64, rng *rand.Rand) plan {
			d := planned("d", at(3*time.Second, put, "d"), at(time.Second, get, "b"))
			d.Goroutines[0][1].Want = []string{"b.0.0"}
			p := loses(knobs{Forking: true}, false)
			return plan{Alone: true, Knobs: p.Knobs, Incidents: p.Incidents, Processes: []processPlan{
				planned("c", at(10*ms, put, "c")), planned("b", at(200*ms, put, "b"), at(350*ms, put, "b")), d,
			}}
		}),
		rules: afterPowerGoes,
	},
	{
		name:  "A6: it has the power again, and goes on from what it had written, though nobody else writes",
		fault: "power",
		plans: []plan{{Knobs: knobs{Forking: true, Single: true}, Incidents: []incident{{At: 600 * ms, Kind: "power", Process: "b", For: time.Second}},
			Processes: []processPlan{
				planned("b", at(200*ms, put, "c"), at(350*ms, put, "b"), at(10*time.Second, get, "c")),
			}}},
		rules: powerGoes,
	},
	{
		name:  "a Pop finds nothing where a Create was acknowledged, beside a Create of another key",
		fault: "refusals",
		plans: family(40, func(seed uint64, rng *rand.Rand) plan {
			return plan{Knobs: knobs{Forking: seed%2 == 0, IgnoreOwn: true}, Processes: []processPlan{
				planned("a", at(some(rng, 20*ms), pop, "k"), at(some(rng, 100*ms), create, "other")),
				planned("b", at(30*ms+some(rng, 40*ms), create, "k")),
				planned("c", at(80*ms+some(rng, 100*ms), pop, "k")),
			}}
		}),
	},
	{
		name:  "two accounts Put at once, per key, and the one that is stored last is not the current one",
		fault: "unmarked forks",
		plans: family(40, func(seed uint64, rng *rand.Rand) plan {
			return plan{Alone: true, Knobs: knobs{SameDepth: true, OneName: true}, Processes: []processPlan{
				planned("a", at(20*ms+some(rng, 5*ms), put, "k")), planned("b", at(20*ms+some(rng, 5*ms), put, "k")),
				following(planned("c", at(ms, get, "k"))),
			}}
		}),
	},
	{
		name:  "a sync brings again what it has brought, per key",
		fault: "repeated syncs",
		plans: family(40, func(seed uint64, rng *rand.Rand) plan {
			return plan{Alone: true, Knobs: knobs{Forking: true, OneName: true, Repeated: 0.5}, Processes: []processPlan{
				following(planned("a", at(20*ms, put, "k"), at(500*ms+some(rng, 20*ms), get, "k"))),
				planned("b", at(525*ms, put, "k")),
			}}
		}),
	},
	{
		name:  "a process reads its own write while it asks which of two first events was stored first",
		fault: "own writes",
		plans: family(60, func(seed uint64, rng *rand.Rand) plan {
			own := planned("a", at(some(rng, 5*ms), update, "k"), at(ms, update, "k"))
			reader := []opPlan{at(60*ms+some(rng, 100*ms), get, "k"), at(some(rng, 100*ms), get, "k"), at(some(rng, 100*ms), get, "k")}
			for i := range reader {
				reader[i].ID = fmt.Sprint("a.1.", i)
			}
			own.Goroutines = append(own.Goroutines, reader)
			return plan{Knobs: knobs{SameDepth: true, Shuffles: true, OneName: seed%2 == 0}, Processes: []processPlan{own, planned("b", at(some(rng, 5*ms), update, "k"))}}
		}),
		rules: slow("a", "PLACE"),
	},
	{
		name:  "a dead writer hides a Pop, per key, behind a page of other keys' events",
		fault: "deaths",
		plans: []plan{{Knobs: knobs{OneName: true}, Incidents: []incident{{At: time.Second, Kind: "foreign", Count: 120}}, Processes: []processPlan{
			planned("a", at(ms, create, "k"), at(200*ms, pop, "k")),
			planned("b", at(100*ms, update, "k")),
		}}},
		rules: []rule{{"b", "PUT", 0, held(300 * ms)}, {"b", "LIST", 0, dies}},
	},
	{
		name:  "the first response of a sync has what a dead writer hid an acknowledged Update with, and not that",
		fault: "deaths",
		plans: slices.Concat(family(40, hides(knobs{Forking: true})), family(40, hides(knobs{Forking: true, OneName: true}))),
		rules: []rule{
			{"a", "PUT", 0, func(q *request) { q.there, q.within, q.back = 2*ms, 20*ms, ms }},
			{"b", "PUT", 0, func(q *request) { q.there, q.within, q.dies = 10*ms, 200*ms, true }},
		},
	},
	{
		name: "who has long been alone asks for little, and does not overlook what took long to be stored",
		plans: family(200, func(seed uint64, rng *rand.Rand) plan {
			p := plan{Knobs: knobs{Forking: seed%2 == 0, SameDepth: true, Shuffles: seed%4 == 1, Slow: ms}}
			var often []opPlan
			for range 10 {
				often = append(often, at(600*ms, put, "k1"))
			}
			for range 4 {
				often = append(often, at(600*ms, put, "k1"), at(600*ms, update, "k0"))
			}
			chat := 6100*ms + some(rng, 4*time.Second)
			p.Processes = append(p.Processes, planned("a", often...), planned("b", at(chat-some(rng, 150*ms), update, "k0")))
			p.Incidents = append(p.Incidents, incident{At: chat, Kind: "chat", Count: 1})
			return p
		}),
		rules: []rule{{"b", "PUT", 0, storedLate}, {"b", "PUT", 1, storedLate}},
	},
}

// hides are plans of two writers, one of which is told that it is done, and one that has seen nothing of that and dies with its last request.
// State resolution chooses its event. A third begins to follow when others have said much since.
func hides(k knobs) func(seed uint64, rng *rand.Rand) plan {
	return func(_ uint64, rng *rand.Rand) plan {
		late := following(planned("c", at(some(rng, 2*time.Second), update, "k"), at(ms, get, "k")))
		late.Begins = 6 * time.Second
		chats := []incident{{At: 3 * time.Second, Kind: "chat", Count: 60}, {At: 5 * time.Second, Kind: "chat", Count: 10}}
		return plan{Alone: true, Knobs: k, Incidents: chats, Processes: []processPlan{
			planned("z", at(10*ms, update, "k")), planned("a", at(time.Second, update, "k")), planned("b", at(time.Second, update, "k")), late,
		}}
	}
}

// loses is the plan of a writer, b, that puts the same key twice and loses its power with the second one, which had replaced c's.
func loses(k knobs, follows bool) plan {
	c := planned("c", at(10*ms, put, "c"), at(5*time.Second, get, "c"), at(ms, get, "b"))
	c.Follows = follows || k.OneName
	key := "b"
	if k.OneName {
		key = "c"
	}
	return plan{Alone: true, Knobs: k, Incidents: []incident{{At: 600 * ms, Kind: "power", Process: "b", For: time.Minute}}, Processes: []processPlan{
		c, planned("b", at(200*ms, put, key), at(350*ms, put, key)),
	}}
}

// powerGoes has b's second event stored while the levels change that take b's power.
var powerGoes = []rule{{"b", "PUT", 1, func(q *request) { q.there, q.within = 599*ms-time.Since(began(q)), 40*ms }}}

// afterPowerGoes has it stored after that, in a branch that does not know of it.
var afterPowerGoes = []rule{{"b", "PUT", 1, func(q *request) { q.there, q.within = 600*ms+ms/10-time.Since(began(q)), 40*ms }}}

// storedLate has the homeserver take as long as it may to store an event that it has given a time and a depth.
func storedLate(q *request) { q.within = commit.DefaultPolicy().Skew }

// slow has the homeserver take long over each request of a kind.
func slow(process, kind string) (rules []rule) {
	for number := range 20 {
		rules = append(rules, rule{process, kind, number, func(q *request) { q.back = 300 * ms }})
	}
	return rules
}

// began is when the run of the request began.
func began(q *request) time.Time { return q.process.world.began }

// TestScenarios plays the faults that were found elsewhere. Those of knownFaults fail, and the test does where one no longer does.
func TestScenarios(t *testing.T) {
	for _, s := range scenarios {
		t.Run(s.name, func(t *testing.T) {
			failed := 0
			var first plan
			var result outcome
			for _, p := range s.plans {
				r := runWith(t, p, true, s.intercept)
				if r.failure == nil {
					if testing.Verbose() && len(s.plans) < 5 {
						t.Log(strings.Join(r.trace, "\n"))
					}
					continue
				}
				if failed++; failed == 1 {
					first, result = p, r
				}
			}
			known := knownFaults.off(s.fault)
			if failed > 0 {
				t.Logf("%d of %d fail, the first: %v", failed, len(s.plans), result.failure)
			}
			switch {
			case failed > 0 && !known:
				t.Errorf("%v\n\n%s\n%s", result.failure, describe(first), strings.Join(result.trace, "\n"))
			case failed == 0 && known:
				t.Errorf("it is mended: take %q out of knownFaults, unless another scenario needs it", s.fault)
			}
		})
	}
}
