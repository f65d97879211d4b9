package upgrade

import (
	"encoding/json"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/matrix"
	"github.com/roomkv/roomkv/internal/memory"
	"github.com/roomkv/roomkv/internal/policy"
)

const (
	room  = id.RoomID("!room:example.org")
	other = id.RoomID("!other:example.org")
)

func TestTombstoneOf(t *testing.T) {
	assert.Nil(t, tombstoneOf(nil))
	for content, want := range map[string]id.RoomID{
		`{"body":"moved","replacement_room":"!new:example.org"}`: "!new:example.org",
		`{"replacement_room":"!new","more":{"x":[1]}}`:           "!new",
		`{}`: "", ``: "", `null`: "", `[]`: "", `"!new"`: "", `{`: "",
		`{"replacement_room":""}`: "", `{"replacement_room":"#alias:example.org"}`: "", `{"replacement_room":"new"}`: "",
		`{"replacement_room":" !new"}`: "", `{"replacement_room":7}`: "", `{"replacement_room":null}`: "", `{"replacement_room":["!new"]}`: "",
		`{"replacement_room":{"!new":1}}`: "",
	} {
		stone := tombstoneOf(&matrix.Event{ID: "$e", Sender: "@alice:example.org", Time: 7, Content: json.RawMessage(content)})
		if want == "" {
			assert.Nil(t, stone, content)
			continue
		}
		assert.Equal(t, &tombstone{"$e", "@alice:example.org", 7, want}, stone, content)
	}
}

// answered notes that the homeserver was asked, and moves the clock on.
func answered(u *Rooms, room id.RoomID, stone *tombstone) {
	time.Sleep(time.Millisecond)
	u.in(room, func(about *upgrade) { about.tombstone, about.asked = stone, time.Now() })
	time.Sleep(time.Millisecond)
}

func TestDoubt(t *testing.T) {
	stone := &tombstone{event: "$stone", replacement: "!new:example.org"}
	for _, test := range []struct {
		about string
		known *tombstone // what the homeserver has said
		doubt func(u *Rooms)
		still bool
	}{
		{"nothing", nil, func(*Rooms) {}, true},
		{"a first tombstone", nil, func(u *Rooms) { u.doubt(room, "$stone") }, false},
		{"the one that is known", stone, func(u *Rooms) { u.doubt(room, "$stone") }, true},
		{"another one", stone, func(u *Rooms) { u.doubt(room, "$later") }, false},
		{"another room's", nil, func(u *Rooms) { u.doubt(other, "$stone") }, true},
		{"missed responses", stone, func(u *Rooms) { u.Missed() }, false},
		{"a list with the one that is known", stone, func(u *Rooms) { u.Seen(room, matrix.Page{Tombstones: []id.EventID{"$stone"}}) }, true},
		{"a list with another one", stone, func(u *Rooms) { u.Seen(room, matrix.Page{Tombstones: []id.EventID{"$stone", "$later"}}) }, false},
		{"a list without", nil, func(u *Rooms) { u.Seen(room, matrix.Page{}) }, true},
	} {
		synctest.Test(t, func(t *testing.T) {
			u := new(Rooms)
			about := u.of(room)
			assert.False(t, about.isKnown(), "nobody has asked")
			answered(u, room, test.known)
			about = u.of(room)
			assert.True(t, about.isKnown())
			test.doubt(u)
			about = u.of(room)
			assert.Equal(t, test.still, about.isKnown(), test.about)
			assert.Equal(t, test.known, about.tombstone, test.about)
			answered(u, room, test.known)
			about = u.of(room)
			assert.True(t, about.isKnown(), test.about)
		})
	}
}

// An answer that came in the moment of the doubt can be from before.
func TestDoubtOfTheSameMoment(t *testing.T) {
	now := time.Now()
	assert.False(t, (&upgrade{asked: now, doubted: now}).isKnown())
	assert.True(t, (&upgrade{asked: now.Add(1), doubted: now}).isKnown())
}

func TestJoined(t *testing.T) {
	stone := func(eventType, stateKey string) *event.Event {
		return &event.Event{ID: "$stone", Type: event.Type{Type: eventType, Class: event.StateEventType}, StateKey: &stateKey}
	}
	tomb := event.StateTombstone.Type
	for _, test := range []struct {
		about string
		event *event.Event
		want  bool
	}{
		{"a tombstone", stone(tomb, ""), true},
		{"one with a state key", stone(tomb, "x"), false},
		{"a message of that type", &event.Event{ID: "$stone", Type: event.StateTombstone}, false},
		{"another event", stone("m.room.create", ""), false},
	} {
		places := map[string]func(joined *mautrix.SyncJoinedRoom){
			"timeline": func(joined *mautrix.SyncJoinedRoom) { joined.Timeline.Events = []*event.Event{test.event} },
			"state":    func(joined *mautrix.SyncJoinedRoom) { joined.State.Events = []*event.Event{test.event} },
			"state after": func(joined *mautrix.SyncJoinedRoom) {
				joined.StateAfter = &mautrix.SyncEventsList{Events: []*event.Event{test.event}}
			},
		}
		for place, put := range places {
			synctest.Test(t, func(t *testing.T) {
				u := new(Rooms)
				answered(u, room, nil)
				joined := new(mautrix.SyncJoinedRoom)
				shows := func(event.Type) bool { return false }
				assert.False(t, u.Joined(room, joined, shows))
				put(joined)
				assert.Equal(t, test.want, u.Joined(room, joined, shows), "%s, in the %s", test.about, place)
				about := u.of(room)
				assert.Equal(t, !test.want, about.isKnown(), "%s, in the %s", test.about, place)
			})
		}
	}
}

func TestFailurePauses(t *testing.T) {
	theRoom := memory.NewShared(nil, memory.Settings{}, nil).Room(room)
	synctest.Test(t, func(t *testing.T) {
		u := new(Rooms)
		stone, later := &tombstone{event: "$stone"}, &tombstone{event: "$later"}
		failed := errors.New("not invited")
		assert.NoError(t, u.of(room).failed.of(stone))
		const ms = time.Millisecond
		for _, pause := range []time.Duration{300 * ms, 600 * ms, 1200 * ms, 2400 * ms, 4800 * ms, 9600 * ms, 10 * time.Second, 10 * time.Second} {
			u.fail(theRoom, stone, failed, false)
			time.Sleep(pause - time.Nanosecond)
			require.ErrorIs(t, u.of(room).failed.of(stone), failed, "for %s it is not tried again", pause)
			assert.NoError(t, u.of(room).failed.of(later), "another tombstone is another matter")
			assert.NoError(t, u.of(other).failed.of(stone), "and so is another room")
			time.Sleep(time.Nanosecond)
			require.NoError(t, u.of(room).failed.of(stone), "after %s it is", pause)
		}

		u.fail(theRoom, stone, failed, false)
		u.TryAgain()
		assert.NoError(t, u.of(room).failed.of(stone), "somebody has asked for it")

		u.fail(theRoom, stone, failed, true)
		u.TryAgain()
		time.Sleep(1000 * time.Hour)
		assert.ErrorIs(t, u.of(room).failed.of(stone), failed, "no time makes it a replacement")
		assert.NoError(t, u.of(room).failed.of(later))
	})
}

func TestOfIsACopy(t *testing.T) {
	u := new(Rooms)
	about := u.of(room)
	about.moved = true
	assert.False(t, u.of(room).moved)
	u.in(room, func(about *upgrade) { about.moved = true })
	assert.True(t, u.of(room).moved)
	assert.False(t, u.of(other).moved)
}

// A first sync that shows no tombstone is believed only a moment later.
func TestJoinedWithoutATombstone(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		u, room := new(Rooms), id.RoomID("!room")
		assert.False(t, u.Joined(room, new(mautrix.SyncJoinedRoom), func(event.Type) bool { return true }))
		about := u.of(room)
		assert.False(t, about.isKnown())
		time.Sleep(policy.Default().StoredLate)
		assert.True(t, about.isKnown())
		u.doubt(room, "$event")
		about = u.of(room)
		assert.False(t, about.isKnown(), "the sync has brought one")
	})
}
