package roomkv_test

import (
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/commit"
	"github.com/roomkv/roomkv/internal/fakehs"
	"github.com/roomkv/roomkv/internal/wire"
)

// eachSharded tests with a room on a homeserver in memory of each kind, in virtual time.
func eachSharded(t *testing.T, test func(t *testing.T, r sharded)) {
	for _, mode := range fakehs.Modes {
		t.Run(mode.String(), func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := fakehs.New(fakehs.Options{Mode: mode, Seed: 1, Name: strings.ToLower(strings.ReplaceAll(t.Name(), "/", "-"))})
				admin, err := s.Register(t.Context(), "admin")
				require.NoError(t, err)
				defer time.Sleep(time.Hour) // until what repairs has ended
				test(t, sharded{expiring{s, admin, administeredBy(t, admin, false)}})
			})
		})
	}
}

type sharded struct{ expiring }

// client is another process.
func (r sharded) client(t *testing.T) *mautrix.Client {
	client := twin(t, r.admin)
	client.Client = &http.Client{Transport: r.admin.Client.Transport}
	return client
}

func (r sharded) store(t *testing.T, n int, opts ...roomkv.Option) *roomkv.Store {
	return open(t, r.client(t), r.room, append(opts, roomkv.WithShards(n))...)
}

// followed is a store that follows, until stop.
func (r sharded) followed(t *testing.T, n int) (store *roomkv.Store, stop func()) {
	client := r.client(t)
	store = open(t, client, r.room, roomkv.WithShards(n))
	require.NoError(t, store.Follow())
	end := startSync(client)
	return store, func() {
		end()
		assert.NoError(t, store.Close(context.Background()))
	}
}

func (r sharded) setNumber(t *testing.T, n int) {
	_, err := r.admin.SendStateEvent(context.Background(), r.room, database, wire.ShardsName, map[string]int{wire.ShardsName: n})
	assert.NoError(t, err)
}

// Another process stores its number after this one has seen that there is none.
func TestNumberOfShardsIsNotReplaced(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		client := r.client(t)
		next := client.Client.Transport
		var done atomic.Bool
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := next.RoundTrip(req)
			if strings.HasSuffix(req.URL.Path, "/sync") && done.CompareAndSwap(false, true) {
				r.setNumber(t, shards+1)
			}
			return resp, err
		})
		require.ErrorIs(t, open(t, client, r.room, roomkv.WithShards(shards)).Put(t.Context(), "k", 1), roomkv.ErrInvalidOption)
		assert.True(t, done.Load())
		assert.Contains(t, rawState(t, r.admin, r.room, database, wire.ShardsName), `"roomkv.shards":9`)
	})
}

// A store that follows learns of another number, and that there is none any more.
func TestNumberOfShardsChangesWhileFollowing(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		ctx := context.Background()
		store, stop := r.followed(t, shards)
		defer stop()
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2}))
		time.Sleep(time.Minute)
		mark, err := r.admin.FullStateEvent(ctx, r.room, database, wire.ShardsName)
		require.NoError(t, err)
		_, err = r.admin.RedactEvent(ctx, r.room, mark.ID)
		require.NoError(t, err)
		time.Sleep(time.Minute)
		require.NoError(t, store.Put(ctx, "a", 3))
		assert.Contains(t, rawState(t, r.admin, r.room, database, wire.ShardsName), `"roomkv.shards":8`)
		r.setNumber(t, shards+1)
		time.Sleep(time.Minute)
		require.ErrorIs(t, store.Put(ctx, "a", 4), roomkv.ErrInvalidOption)
		require.ErrorIs(t, store.Delete(ctx, "a"), roomkv.ErrInvalidOption)
		_, err = store.GetAll(ctx, "a", "b")
		require.ErrorIs(t, err, roomkv.ErrInvalidOption)
		r.setNumber(t, shards)
		time.Sleep(time.Minute)
		assert.Equal(t, map[string]string{"a": "3", "b": "2"}, memoryOf(t, store))
	})
}

// A watch begins before there is a memory.
func TestWatchOfAnotherNumberOfShards(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		store, stop := r.followed(t, shards)
		defer stop()
		time.AfterFunc(time.Minute, func() { r.setNumber(t, shards+1) })
		ctx, cancel := context.WithTimeout(t.Context(), time.Hour)
		defer cancel()
		var failed error
		for _, err := range store.Watch(ctx) {
			failed = err
		}
		assert.ErrorIs(t, failed, roomkv.ErrInvalidOption)
	})
}

// What can never be stored is not tried again for ever.
func TestFlushToAnotherNumberOfShards(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		ctx := t.Context()
		require.NoError(t, r.store(t, shards).Put(ctx, "k", 1))
		store := r.store(t, shards+1, roomkv.WithFlushEvery(time.Hour))
		require.NoError(t, store.Put(ctx, "k", 2))
		require.ErrorIs(t, store.Flush(ctx), roomkv.ErrInvalidOption)
		require.NoError(t, store.Flush(ctx), "it was given up")
	})
}

// A process stores its number without having seen another's, and dies before it looks: the first one counts.
func TestNumbersOfShardsAtTheSameTime(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		ctx := t.Context()
		client, first := r.client(t), r.store(t, shards)
		next := client.Client.Transport
		dead := errors.New("dead")
		var sent atomic.Bool
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			if sent.Load() {
				return nil, dead
			}
			if isPut(req, wire.ShardsName) {
				own := commit.ThisProcess
				commit.ThisProcess = new(commit.Process)
				assert.NoError(t, first.Put(ctx, "k", 1))
				commit.ThisProcess = own
				time.Sleep(time.Second)
				sent.Store(true)
			}
			return next.RoundTrip(req)
		})
		require.ErrorIs(t, open(t, client, r.room, roomkv.WithShards(shards+1)).Put(mautrix.WithMaxRetries(ctx, 0), "k", 2), dead)
		require.True(t, sent.Load())
		other := r.store(t, shards+1)
		_ = other.Get(ctx, "k", new(int)) // perhaps not found, for a read does not look
		require.ErrorIs(t, other.Put(ctx, "k", 3), roomkv.ErrInvalidOption)
		time.Sleep(time.Hour) // until somebody has merged
		same := r.store(t, shards)
		require.NoError(t, same.Put(ctx, "j", 4))
		assert.Equal(t, map[string]string{"k": "1", "j": "4"}, memoryOf(t, same))
		require.ErrorIs(t, r.store(t, shards+1).Get(ctx, "k", new(int)), roomkv.ErrInvalidOption)
	})
}

// A store with one state event cannot be made over one of those that shards have: it would lose its keys.
func TestSingleStateKeyOfShards(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		for stateKey, free := range map[string]bool{wire.ShardsName: false, wire.ShardKey(1, shards): false, "roomkv.shard.8.8": true, "shards": true} {
			_, err := roomkv.New(r.admin, r.room.String(), roomkv.WithSingleStateKey(stateKey))
			if free {
				require.NoError(t, err, stateKey)
			} else {
				require.ErrorIs(t, err, roomkv.ErrInvalidOption, stateKey)
			}
		}
	})
}

// Fields that say what counts for all keys count in their own event alone.
func TestFieldsInAShard(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		ctx := t.Context()
		require.NoError(t, r.store(t, shards).Put(ctx, "k", 1))
		stateKey := wire.ShardKey(wire.Shard("k", shards), shards)
		_, err := r.admin.SendStateEvent(ctx, r.room, database, stateKey, map[string]any{"k": 2, wire.ShardsName: shards + 1, wire.SealName: "x"})
		require.NoError(t, err)
		time.Sleep(time.Minute)
		store := r.store(t, shards)
		got, err := roomkv.Get[int](ctx, store, "k")
		require.NoError(t, err)
		assert.Equal(t, 2, got)
		snapshot, err := store.At(ctx, roomkv.AtTime(time.Now()))
		require.NoError(t, err)
		require.NoError(t, snapshot.Get(ctx, "k", new(int)))
		require.NoError(t, store.Put(ctx, "k", 3))
		content := rawState(t, r.admin, r.room, database, stateKey)
		assert.NotContains(t, content, wire.ShardsName)
		assert.NotContains(t, content, wire.SealName)
	})
}

// The homeserver has left a shard out of the state, and has listed it: who knows of it exports and copies its keys too.
func TestShardThatIsNotInTheState(t *testing.T) {
	eachSharded(t, func(t *testing.T, r sharded) {
		ctx := t.Context()
		client := r.client(t)
		store := open(t, client, r.room, roomkv.WithShards(shards))
		want := map[string]string{"a": "1", "b": "2", "c": "3"}
		require.NoError(t, store.PutAll(ctx, map[string]any{"a": 1, "b": 2, "c": 3}))
		stateKey := wire.ShardKey(wire.Shard("a", shards), shards)
		next := without(stateKey, client.Client.Transport)
		client.Client.Transport = roundTripper(func(req *http.Request) (*http.Response, error) {
			resp, err := next(req)
			if err != nil || !strings.HasSuffix(req.URL.Path, "/sync") && !strings.HasSuffix(req.URL.Path, "/state") {
				return resp, err
			}
			body, err := io.ReadAll(resp.Body)
			_ = resp.Body.Close()
			body = bytes.ReplaceAll(body, []byte(`"`+stateKey+`"`), []byte(`"another"`))
			resp.Body, resp.ContentLength = io.NopCloser(bytes.NewReader(body)), int64(len(body))
			return resp, err
		})
		assert.Equal(t, want, memoryOf(t, store))
		var file bytes.Buffer
		done, err := store.Export(ctx, &file)
		require.NoError(t, err)
		assert.Equal(t, len(want), done.Total)
		imported, err := store.Import(ctx, &file)
		require.NoError(t, err)
		assert.Equal(t, len(want), imported.Equal)
	})
}
