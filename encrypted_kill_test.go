package roomkv_test

import (
	"encoding/json"
	"fmt"
	"math/rand/v2"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// encryptedBy counts the encrypted events in a room, by the device that sent them.
func encryptedBy(t testing.TB, client *mautrix.Client, room id.RoomID) map[id.DeviceID]int {
	t.Helper()
	sent := map[id.DeviceID]int{}
	for from := ""; ; {
		page, err := client.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, &mautrix.FilterPart{Types: []event.Type{event.EventEncrypted}}, 100)
		require.NoError(t, err)
		for _, evt := range page.Chunk {
			var content struct {
				Device id.DeviceID `json:"device_id"`
			}
			require.NoError(t, json.Unmarshal(evt.Content.VeryRaw, &content))
			if evt.Type.Type == event.EventEncrypted.Type {
				sent[content.Device]++
			}
		}
		if page.End == "" || page.End == from || len(page.Chunk) == 0 {
			return sent
		}
		from = page.End
	}
}

// A writer that dies leaves the old value or the new one, whichever request was its last.
func TestKilledBetweenValueAndState(t *testing.T) {
	hstest.Parallel(t)
	for name, layout := range layouts {
		t.Run("layout="+name, func(t *testing.T) {
			client, j := sharedEncrypted(t)
			store := open(t, client, j.Room, layout)
			require.NoError(t, store.PutAll(t.Context(), map[string]any{"0": "old", "other": "kept"}))
			for _, test := range []struct {
				at     string
				events int
				want   string
			}{
				{"/sendToDevice/", 0, `"old"`},
				{"/send/m.room.encrypted/", 1, `"old"`},
				{"/state/" + roomkv.DefaultEventType + "/", 1, `0`},
			} {
				before := memoryState(t, client, j.Room)
				j.Do, j.Times, j.Layout, j.DieAt = "overwrite", 1, name, test.at
				victim := workers(t, client, j, 1)[0]
				p := start(t, victim)
				p.begin()
				for line := range p.lines {
					assert.Fail(t, "it lived on", "%s: %s", test.at, line)
				}
				if test.want == `"old"` {
					assert.Equal(t, before, memoryState(t, client, j.Room), test.at)
				}
				eventually(t, func() bool { return encryptedBy(t, client, j.Room)[victim.Device] == test.events }, test.at) // homeservers list it later
				want := map[string]string{"0": test.want, "other": `"kept"`}
				assert.Equal(t, want, memoryOf(t, store), test.at)
				require.NoError(t, store.Put(t.Context(), "next", 1))
				want["next"] = `1`
				assert.Equal(t, want, memoryOf(t, open(t, client, j.Room, layout)), test.at)
				require.NoError(t, store.Delete(t.Context(), "next"))
			}
			assert.Empty(t, clearNames(t, client, j.Room))
		})
	}
}

// Each victim overwrites a value of its own, while others write, until it dies: what was acknowledged stands, and so does
// what was there before.
func TestKilledWriterLosesNothingEncrypted(t *testing.T) {
	hstest.Parallel(t)
	client, j := sharedEncrypted(t)
	store := open(t, client, j.Room)
	j.Do, j.Times = "put", 1_000_000
	var steady []*process
	for _, j := range workers(t, client, j, 2) {
		steady = append(steady, start(t, j))
	}
	for _, p := range steady {
		p.begin()
	}
	j.Do, j.Times = "overwrite", 1_000_000
	acknowledged := map[string]int{} // the puts of each victim
	devices := map[string]id.DeviceID{}
	kills := often(*rounds, 3)
	for i := range kills {
		victim := workers(t, client, j, 1)[0]
		victim.Name = fmt.Sprint("victim ", i)
		devices[victim.Name] = victim.Device
		require.NoError(t, store.Put(t.Context(), victim.Name, -1))
		p := start(t, victim)
		p.begin()
		var said []string
		for range rand.IntN(3) {
			said = append(said, <-p.lines)
		}
		time.Sleep(time.Duration(rand.IntN(400)) * time.Millisecond)
		require.NoError(t, p.cmd.Process.Kill())
		for line := range p.lines {
			said = append(said, line)
		}
		acknowledged[victim.Name] = len(said)
		require.NoError(t, store.Get(t.Context(), victim.Name, new(int)))
	}
	var kept []string
	for _, p := range steady {
		require.NoError(t, p.cmd.Process.Kill())
		for line := range p.lines {
			kept = append(kept, line)
		}
	}
	require.NoError(t, store.Put(t.Context(), "the end", true))

	memory := memoryOf(t, open(t, client, j.Room))
	for _, key := range kept {
		assert.Contains(t, memory, key)
	}
	sent := encryptedBy(t, client, j.Room)
	puts, between := 0, 0
	for name, n := range acknowledged {
		puts += n
		value, err := strconv.Atoi(memory[name])
		require.NoError(t, err, name)
		assert.Contains(t, []int{n - 1, n}, value, "%s: %d puts were acknowledged", name, n)
		if sent[devices[name]] > value+1 {
			between++
		}
	}
	t.Logf("%d kills, %d of them between a value's event and the state; %d and %d puts were acknowledged", kills, between, puts, len(kept))
	assert.Empty(t, clearNames(t, client, j.Room))
}
