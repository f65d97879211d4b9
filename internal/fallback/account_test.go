package fallback

import (
	"fmt"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/policy"
	"github.com/roomkv/roomkv/internal/wire"
)

func TestDestination(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		a := new(account)
		check := func(want destination, isKnown bool, about string) {
			t.Helper()
			to, known := a.destination(policy.Default().AnswerFor)
			assert.Equal(t, want, to, about)
			assert.Equal(t, isKnown, known, about)
		}
		check(unknown, false, "nobody has asked")
		assert.False(t, a.powerChanged(), "nobody waits for power")
		check(unknown, false, "nobody has asked still")

		a.write(toAccount)
		time.Sleep(policy.Default().AnswerFor - time.Nanosecond)
		check(toAccount, true, "the homeserver has just said so")
		time.Sleep(time.Nanosecond)
		check(toAccount, false, "power may have come")
		a.write(toAccount)
		assert.True(t, a.powerChanged())
		check(toAccount, false, "power has changed")

		asks := a.question()
		assert.True(t, a.powerChanged(), "while the homeserver is asked")
		assert.False(t, a.answer(toAccount, asks), "which has not heard of it yet")
		check(toAccount, false, "nobody knows")
		assert.True(t, a.answer(toAccount, a.question()))
		check(toAccount, true, "the homeserver has said so since")
		assert.True(t, a.powerChanged())

		a.write(toState)
		time.Sleep(1000 * time.Hour)
		check(toState, true, "a write that is refused tells")
		assert.False(t, a.powerChanged())
		check(toState, true, "a write that is refused tells still")
	})
}

func TestStamp(t *testing.T) {
	type over = map[string]wire.Over
	type names = map[string]string
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UnixMilli()
		before := wire.AccountOf(names{"same": `1`, "value": `1`, "base": `1`, "deleted": `1`}, over{
			"same": {Time: 5, Base: "b"}, "value": {Time: 6, Base: "b"}, "base": {Time: 7, Base: "b"}, "deleted": {Time: 8}, "gone": {Time: 9, Base: "b"}, "back": {Time: 10}})
		a := new(account)
		a.set(before)
		stamped := a.stamp(wire.AccountOf(names{"same": `1`, "value": `2`, "base": `1`, "back": `1`, "new": `1`}, over{
			"same": {Time: 99, Base: "b"}, "value": {Time: 6, Base: "b"}, "base": {Time: 7, Base: "c"}, "deleted": {Time: 8}, "gone": {Base: "b"}, "back": {Time: 10}, "new": {}, "new and gone": {}}))
		assert.Equal(t, over{
			"same": {Time: 5, Base: "b"}, "value": {Time: now, Base: "b"}, "base": {Time: now, Base: "c"}, "deleted": {Time: now}, "gone": {Time: 9, Base: "b"},
			"back": {Time: now}, "new": {Time: now}, "new and gone": {Time: now}}, stamped.Over)
		assert.Equal(t, wire.AccountOf(stamped.Names, stamped.Over), stamped, "the ID is that of what is stamped")
	})
}

func TestStampsRise(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		now := time.Now().UnixMilli()
		ahead := now + 1000 // by another clock
		for _, last := range []int64{0, now - 1, now, ahead} {
			a := new(account)
			a.set(wire.AccountOf(nil, map[string]wire.Over{"old": {Time: last}, "older": {Time: 3}}))
			a.set(wire.AccountOf(nil, map[string]wire.Over{"older": {Time: 3}}))
			for i := range int64(3) { // in the same millisecond
				stamped := a.stamp(wire.AccountOf(map[string]string{"a": fmt.Sprint(i)}, map[string]wire.Over{"a": {}}))
				assert.Equal(t, max(now, last+1)+i, stamped.Over["a"].Time, "after %d", last)
				a.set(stamped)
			}
		}
	})
}

func contentOf(i int) wire.Account {
	return wire.AccountOf(map[string]string{"a": fmt.Sprint(i)}, map[string]wire.Over{"a": {Time: int64(i)}})
}

func TestHeard(t *testing.T) {
	a := new(account)
	known := func() bool { _, known := a.current(); return known }
	assert.False(t, known())
	a.heard(contentOf(1))
	assert.False(t, known(), "the sync can be behind")
	a.set(contentOf(1))
	a.set(contentOf(2))
	assert.True(t, known())
	a.heard(contentOf(1))
	a.heard(contentOf(2))
	content, _ := a.current()
	assert.True(t, known(), "they are this process's own")
	assert.Equal(t, contentOf(2), content)
	a.heard(contentOf(3))
	assert.False(t, known(), "another process has written")
	a.heard(contentOf(2))
	assert.False(t, known(), "and what comes late does not tell what")
	a.set(contentOf(3))
	a.forget()
	assert.False(t, known())

	for i := range 3 * maxOwn {
		a.set(contentOf(i))
	}
	a.heard(contentOf(2 * maxOwn))
	assert.True(t, known())
	a.heard(contentOf(maxOwn))
	assert.False(t, known(), "not everything is remembered")
}

func TestVersions(t *testing.T) {
	a := new(account)
	none := a.version()
	a.set(contentOf(1))
	first := a.version()
	a.setMoved()
	moved := a.version()
	a.forget()
	same := a.version()
	a.set(contentOf(1))
	again := a.version()
	assert.Equal(t, contentOf(1), first.Account)
	assert.Empty(t, moved.ID)
	assert.Equal(t, []bool{false, true, true, false}, []bool{first.Moved, moved.Moved, same.Moved, again.Moved})
	all := []Version{none, first, moved, again}
	for i, v := range all {
		for j, than := range all {
			assert.Equal(t, i > j, v.Later(than), "%d and %d", i, j)
		}
	}
	assert.False(t, same.Later(moved))
	assert.False(t, moved.Later(same))
}

func TestWatchers(t *testing.T) {
	a := new(account)
	a.set(contentOf(1))
	var heard [2][]string
	watch := func(i int) (Version, func()) {
		return a.watch(func(v Version) { heard[i] = append(heard[i], v.Names["a"]) })
	}
	now, stop := watch(0)
	assert.Equal(t, contentOf(1), now.Account)
	a.set(contentOf(2))
	a.tell()
	now, stopOther := watch(1)
	assert.Equal(t, contentOf(2), now.Account)
	a.set(contentOf(3))
	a.tell()
	stop()
	a.set(contentOf(4))
	a.tell()
	stopOther()
	a.tell()
	assert.Equal(t, [2][]string{{"2", "3"}, {"3", "4"}}, heard)
}

func TestEventsOfAccountData(t *testing.T) {
	content := contentOf(1)
	assert.True(t, isAccount(eventOf(content)))
	assert.True(t, isAccount(revisionOf(content.Over["a"])))
	assert.False(t, isAccount("$account_data:1"))
	assert.NotEqual(t, eventOf(content), eventOf(contentOf(2)))
	assert.NotEqual(t, revisionOf(wire.Over{Time: 1}), revisionOf(wire.Over{Time: 2}))
	assert.Equal(t, revisionOf(wire.Over{Time: 1}), revisionOf(wire.Over{Time: 1, Base: "b"}))
}

func TestRegistry(t *testing.T) {
	before := commit.ThisProcess
	t.Cleanup(func() { commit.ThisProcess = before })
	commit.ThisProcess = new(commit.Process)
	Forget("!a")
	AskAgain("!a")
	at := func(room id.RoomID, stateKey string) commit.Address {
		return commit.Address{Room: room, StateKey: stateKey}
	}
	a, b, other := accountOf(at("!a", "1")), accountOf(at("!a", "2")), accountOf(at("!b", "1"))
	require.NotSame(t, a, b)
	require.NotSame(t, a, other)
	assert.Same(t, a, accountOf(at("!a", "1")))
	assert.Equal(t, at("!a", "1"), a.dict)
	for _, of := range []*account{a, b, other} {
		of.write(toAccount)
	}
	AskAgain("!a")
	var known [3]bool
	for i, of := range []*account{a, b, other} {
		_, known[i] = of.destination(policy.Default().AnswerFor)
	}
	assert.Equal(t, [3]bool{false, false, true}, known)

	Forget("!a")
	assert.NotSame(t, a, accountOf(at("!a", "1")))
	assert.NotSame(t, b, accountOf(at("!a", "2")))
	assert.Same(t, other, accountOf(at("!b", "1")))
}
