package roomkv_test

import (
	"fmt"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// sharedEncrypted is shared with an encrypted room. The client is a device that syncs, so that it gets the workers' keys,
// and each worker is another device.
func sharedEncrypted(t testing.TB) (*mautrix.Client, job) {
	client, j := shared(t)
	hstest.Crypto(t, client)
	j.Device, j.Room = client.DeviceID, hstest.EncryptedRoom(t, client)
	syncing(t, client)
	return client, j
}

// What holds for processes in an unencrypted room holds in an encrypted one, for one more request a put, and about twenty
// for each process to share its first key, while the others write: with few puts each, on a busy machine, that is the most of it.
func TestProcessesPutEncrypted(t *testing.T) {
	long(t)
	puts := few(25)
	for processes, most := range map[int]float64{4: 6, 8: 8} {
		t.Run(fmt.Sprint(processes), func(t *testing.T) {
			client, j := sharedEncrypted(t)
			processesPut(t, client, j, processes, puts, most+20/float64(puts))
			assert.Empty(t, clearNames(t, client, j.Room))
		})
	}
}

// few is how often each process does something: not more than in an unencrypted room, and by default less, for time.
func few(most int) int { return min(most, max(1, *rounds/2)) }

// An Update reads what the others have written, so that they must get each other's keys.
func TestProcessesUpdateEncrypted(t *testing.T) {
	hstest.Parallel(t)
	for name, test := range map[string]func(*job){
		"syncing":         func(j *job) { j.Sync = true },
		"following":       func(j *job) { j.Follow = true },
		"syncing, perkey": func(j *job) { j.Sync, j.Layout = true, "perkey" },
	} {
		t.Run(name, func(t *testing.T) {
			client, j := sharedEncrypted(t)
			test(&j)
			processesUpdate(t, client, j, often(few(25), 1))
			assert.Empty(t, clearNames(t, client, j.Room))
		})
	}
}

func TestProcessesCreateEncrypted(t *testing.T) {
	hstest.Parallel(t)
	for _, name := range []string{"single", "perkey"} {
		t.Run("layout="+name, func(t *testing.T) {
			client, j := sharedEncrypted(t)
			j.Layout = name
			processesCreate(t, client, j, often(few(50), 2))
			assert.Empty(t, clearNames(t, client, j.Room))
		})
	}
}

// A dict of references has room for some 850 keys, so that not every goroutine has a key of its own.
func TestThousandGoroutinesEncrypted(t *testing.T) { // alone: a busy machine makes a store ask more often
	const goroutines, keys = 1000, 800
	store, client, room := newEncrypted(t)
	other := again(t, client)
	hstest.Crypto(t, other)
	syncing(t, other)
	recorder := hstest.Record(client)
	failed := make(chan error, goroutines)
	began := time.Now()
	for i := range goroutines {
		go func() { failed <- store.Put(t.Context(), fmt.Sprint("key ", i%keys), i%keys) }()
	}
	for range goroutines {
		require.NoError(t, <-failed)
	}
	t.Logf("%d requests, %s", recorder.Count(), time.Since(began))
	assert.LessOrEqual(t, recorder.Count(), 25)
	memory := memoryOf(t, open(t, other, room))
	assert.Len(t, memory, keys)
	for i := range keys {
		assert.Equal(t, fmt.Sprint(i), memory[fmt.Sprint("key ", i)])
	}
	assert.Empty(t, clearNames(t, client, room))
}
