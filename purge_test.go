package roomkv_test

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// everything is what the homeserver gives of a room: its state, all its events as it lists them, and each by itself.
func everything(t testing.TB, client *mautrix.Client, room id.RoomID) []byte {
	t.Helper()
	get := func(path mautrix.ClientURLPath, query map[string]string) []byte {
		body, err := client.MakeFullRequest(t.Context(), mautrix.FullRequest{Method: http.MethodGet, URL: client.BuildURLWithQuery(path, query)})
		require.NoError(t, err)
		return body
	}
	all := [][]byte{get(mautrix.ClientURLPath{"v3", "rooms", room, "state"}, nil)}
	for from := ""; ; {
		query := map[string]string{"dir": "b", "limit": "100"}
		if from != "" {
			query["from"] = from
		}
		all = append(all, get(mautrix.ClientURLPath{"v3", "rooms", room, "messages"}, query))
		page, err := client.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, nil, 100)
		require.NoError(t, err)
		for _, evt := range page.Chunk {
			all = append(all, get(mautrix.ClientURLPath{"v3", "rooms", room, "event", evt.ID}, nil))
		}
		if from = page.End; from == "" || len(page.Chunk) == 0 {
			return bytes.Join(all, nil)
		}
	}
}

// traceless tells that the text is nowhere in the room any more. Homeservers show a redaction some milliseconds late.
func traceless(t testing.TB, client *mautrix.Client, room id.RoomID, text string) {
	t.Helper()
	eventually(t, func() bool { return !bytes.Contains(everything(t, client, room), []byte(text)) }, text+" is still there")
}

// unreadable tells that nothing that the store can read in any event, redacted or not, holds the text.
func unreadable(t testing.TB, client *mautrix.Client, room id.RoomID, text string) {
	t.Helper()
	if client.Crypto == nil {
		return
	}
	for from := ""; ; {
		page, err := client.Messages(t.Context(), room, from, "", mautrix.DirectionBackward, nil, 100)
		require.NoError(t, err)
		for _, evt := range page.Chunk {
			if evt.Type.Type != event.EventEncrypted.Type || len(evt.Content.Raw) == 0 {
				continue
			}
			evt.RoomID = room
			require.NoError(t, evt.Content.ParseRaw(event.EventEncrypted))
			decrypted, err := client.Crypto.Decrypt(t.Context(), evt)
			require.NoError(t, err)
			assert.NotContains(t, string(decrypted.Content.VeryRaw), text)
		}
		if from = page.End; from == "" || len(page.Chunk) == 0 {
			return
		}
	}
}

func TestPurge(t *testing.T) {
	hstest.Parallel(t)
	eachKind(t, func(t *testing.T, store *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		require.NoError(t, store.PutAll(ctx, map[string]any{"patient": "Ann Onymous", "other": 1, "third": "two"}))
		require.NoError(t, store.Put(ctx, "patient", "Ann Onymous II"))
		require.NoError(t, store.Put(ctx, "other", 10))
		require.NoError(t, store.Put(ctx, "patient", []string{"Ann Onymous III"}))
		before := encryptedEvents(t, client, room)

		purging := open(t, client, room, opts...)
		done, err := purging.Purge(ctx, "patient", "never there")
		require.NoError(t, err)
		assert.Empty(t, done.Left)
		assert.Empty(t, done.Media)
		assert.False(t, done.Unseen)
		left := map[string]string{"other": "10", "third": `"two"`}
		for _, reading := range []*roomkv.Store{store, purging, open(t, client, room, opts...)} {
			assert.Equal(t, left, memoryOf(t, reading))
		}
		traceless(t, client, room, "Onymous")
		if len(before) > 0 {
			assert.Equal(t, 3, done.Encrypted)
			assert.Zero(t, done.State, "the state has references alone")
			eventually(t, func() bool {
				redacted := 0
				for _, is := range encryptedEvents(t, client, room) {
					if is {
						redacted++
					}
				}
				return redacted == 3
			}, "an encrypted event was not redacted")
			unreadable(t, client, room, "Onymous")
		} else {
			assert.GreaterOrEqual(t, done.State, 3)
		}
		for evt := range used(t, client, room) {
			assert.False(t, encryptedEvents(t, client, room)[evt], "%s is referred to", evt)
		}
		for entry, err := range purging.History(ctx, "patient") {
			assert.Empty(t, entry.Value)
			if err != nil {
				assert.ErrorIs(t, err, roomkv.ErrRedacted)
			}
		}
		values, _ := historyOf(t, purging, "other")
		assert.Equal(t, "10", values[0])

		again, err := purging.Purge(ctx, "patient")
		require.NoError(t, err)
		assert.Equal(t, roomkv.Purged{}, again)
		require.NoError(t, store.Put(ctx, "patient", "new"))
		require.NoError(t, store.Put(ctx, "other", 11))
		assert.Equal(t, map[string]string{"other": "11", "third": `"two"`, "patient": `"new"`}, memoryOf(t, open(t, client, room, opts...)))
	})
}

// A value that was stored before keys were sealed is purged too, and only then is the key's name in a request.
func TestPurgeOfWhatWasStoredBeforeKeysWereSealed(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		before, client, room := newEncrypted(t, layout, roomkv.WithEncryption(false))
		require.NoError(t, before.Put(ctx, "patient", "Ann Onymous"))
		require.NoError(t, before.Put(ctx, "patient", "Ann Onymous II"))
		require.NoError(t, before.Put(ctx, "other", 1))
		sealed := open(t, client, room, layout, roomkv.WithSealedKeys(secret))
		done, err := sealed.Purge(ctx, "patient")
		require.NoError(t, err)
		assert.GreaterOrEqual(t, done.State, 2)
		traceless(t, client, room, "Onymous")
		assert.Equal(t, map[string]string{"other": "1"}, memoryOf(t, open(t, client, room, layout, roomkv.WithEncryption(false))))
	})
}

// What others write while a purge goes on is kept, what they delete stays deleted, and a purge that was interrupted is finished
// by the next.
func TestPurgeBesideWriters(t *testing.T) {
	hstest.Parallel(t)
	eachKind(t, func(t *testing.T, first *roomkv.Store, client *mautrix.Client, room id.RoomID, opts []roomkv.Option) {
		ctx := t.Context()
		stores := []*roomkv.Store{first, open(t, twin(t, client), room, opts...)}
		require.NoError(t, first.PutAll(ctx, map[string]any{"victim": "nobody knows the trouble", "beside": "it"}))
		require.NoError(t, first.Put(ctx, "victim", "nobody knows"))
		var group sync.WaitGroup
		ready := make(chan bool, 2)
		times := 2
		if thorough() {
			times = *rounds
		}
		for w, store := range stores {
			group.Go(func() {
				for n := range times {
					assert.NoError(t, store.Put(ctx, fmt.Sprint("kept ", w), n))
					assert.NoError(t, store.Put(ctx, fmt.Sprint("gone ", w), n))
					assert.NoError(t, store.Delete(ctx, fmt.Sprint("gone ", w)))
					assert.NoError(t, roomkv.Update(ctx, store, "count", increment))
					if n == 0 {
						ready <- true
					}
				}
			})
		}
		<-ready
		halfway, interrupt := context.WithCancel(ctx)
		purger := twin(t, client)
		redactions := 0
		purger.Client = &http.Client{Transport: roundTripper(func(req *http.Request) (*http.Response, error) {
			if strings.Contains(req.URL.Path, "/redact/") {
				if redactions++; redactions == 2 {
					interrupt()
				}
			}
			return http.DefaultTransport.RoundTrip(req)
		})}
		_, err := open(t, purger, room, opts...).Purge(halfway, "victim")
		require.ErrorIs(t, err, context.Canceled)
		interrupt()
		done, err := open(t, purger, room, opts...).Purge(ctx, "victim")
		assert.NoError(t, err)
		assert.Empty(t, done.Left)
		group.Wait()
		want := map[string]string{"beside": `"it"`, "count": fmt.Sprint(2 * times), "kept 0": fmt.Sprint(times - 1), "kept 1": fmt.Sprint(times - 1)}
		assert.Equal(t, want, memoryOf(t, open(t, client, room, opts...)))

		done, err = open(t, purger, room, opts...).Purge(ctx, "victim")
		require.NoError(t, err)
		t.Logf("left for another purge after the writers had ended: %d", done.State+done.Encrypted)
		traceless(t, client, room, "nobody knows")
		unreadable(t, client, room, "nobody knows")
		counted := roomkv.Revision(revision(t, first, "count"))
		require.NoError(t, open(t, client, room, opts...).CompareAndPut(ctx, "count", -1, counted))
		want["count"] = "-1"
		for _, store := range append(stores, open(t, client, room, opts...)) {
			assert.Equal(t, want, memoryOf(t, store))
		}
	})
}

// Whoever lacks the power to redact what others have sent is told what is left.
func TestPurgeOfOthersEvents(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	owner, client, room := newStore(t)
	guest := hstest.Client(t)
	_, err := client.InviteUser(ctx, room, &mautrix.ReqInviteUser{UserID: guest.UserID})
	require.NoError(t, err)
	_, err = guest.JoinRoomByID(ctx, room)
	require.NoError(t, err)
	var levels event.PowerLevelsEventContent
	require.NoError(t, client.StateEvent(ctx, room, event.StatePowerLevels, "", &levels))
	levels.EnsureUserLevel(guest.UserID, 50)
	levels.RedactPtr = new(int)
	*levels.RedactPtr = 75
	_, err = client.SendStateEvent(ctx, room, event.StatePowerLevels, "", &levels)
	require.NoError(t, err)

	require.NoError(t, owner.Put(ctx, "key", "owner's secret"))
	first := revision(t, owner, "key")
	theirs := open(t, guest, room)
	require.NoError(t, theirs.Put(ctx, "key", "guest's secret"))
	done, err := theirs.Purge(ctx, "key")
	require.ErrorIs(t, err, roomkv.ErrForbidden)
	assert.ErrorContains(t, err, "75")
	require.Len(t, done.Left, 1)
	assert.Equal(t, first, done.Left[0].Event)
	assert.Positive(t, done.State)
	traceless(t, client, room, "guest's secret")

	done, err = owner.Purge(ctx, "key")
	require.NoError(t, err)
	assert.Positive(t, done.State)
	traceless(t, client, room, "owner's secret")
}

// The state can name any event, and what people have said is not the memory's to take away.
func TestPurgeOfWhatIsNotTheStores(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newEncrypted(t, layout, roomkv.WithKeyWait(0))
		chat, err := client.SendMessageEvent(ctx, room, event.EventMessage, event.MessageEventContent{MsgType: event.MsgText, Body: "keep me"})
		require.NoError(t, err)
		clear, err := client.SendMessageEvent(ctx, room, event.EventMessage, event.MessageEventContent{MsgType: event.MsgText, Body: "me too"}, mautrix.ReqSendEvent{DontEncrypt: true})
		require.NoError(t, err)
		require.NoError(t, store.PutAll(ctx, map[string]any{"key": 1, "other": 2}))
		stateKey, single := dictStateKey(t, client, room)
		if !single {
			stateKey = "key"
		}
		for _, stored := range []any{
			map[string]any{"encrypted_val": chat.EventID}, map[string]any{"encrypted_val": clear.EventID}, map[string]any{"encrypted_val": 7},
			map[string]any{"media_val": map[string]any{}}, map[string]any{"json_val": "{"}, nil, map[string]any{"encrypted_val": "$nowhere"},
		} {
			_, err := client.SendStateEvent(ctx, room, database, stateKey, map[string]any{"key": stored})
			require.NoError(t, err)
		}
		done, err := open(t, client, room, layout, roomkv.WithKeyWait(0)).Purge(ctx, "key")
		require.ErrorIs(t, err, roomkv.ErrUndecryptable, "of one event nobody knows what it is")
		require.Len(t, done.Left, 1)
		assert.Equal(t, id.EventID("$nowhere"), done.Left[0].Event)
		assert.Equal(t, 1, done.Encrypted)
		for _, evt := range []id.EventID{chat.EventID, clear.EventID} {
			got, err := client.GetEvent(ctx, room, evt)
			require.NoError(t, err)
			assert.NotEmpty(t, got.Content.Raw)
		}
		if !single {
			assert.Equal(t, map[string]string{"other": "2"}, memoryOf(t, open(t, client, room, layout)))
		}
	})
}

// Nobody but the homeserver's administrator can delete an attachment: its address is given, and the keys to it are gone.
// Whoever may write state can say that a value's field is in any event. What is another key's is not redacted.
func TestPurgeOfWhatIsCalledAField(t *testing.T) {
	hstest.Parallel(t)
	for _, opts := range [][]roomkv.Option{nil, {roomkv.WithSealedKeys(secret)}} {
		ctx := t.Context()
		store, client, room := newEncrypted(t, append(opts, roomkv.WithPerKeyState())...)
		require.NoError(t, store.Put(ctx, "victim", "old"))
		of := references(t, client, room)
		require.Len(t, of, 1)
		var victim struct {
			Event id.EventID `json:"encrypted_val"`
		}
		_, stored, _ := strings.Cut(of[0], ": ")
		require.NoError(t, json.Unmarshal([]byte(stored), &victim))
		require.NoError(t, store.Put(ctx, "victim", "new"))
		sent, err := client.SendStateEvent(ctx, room, database, "k", map[string]any{"field": map[string]any{"encrypted_val": victim.Event}})
		require.NoError(t, err)
		listed(t, client, room, sent.EventID)
		done, err := store.Purge(ctx, "k")
		require.ErrorIs(t, err, roomkv.ErrUndecryptable)
		require.Len(t, done.Left, 1)
		assert.Equal(t, victim.Event, done.Left[0].Event)
		values, _ := historyOf(t, store, "victim")
		assert.Equal(t, []string{`"new"`, `"old"`}, values)
	}
}

func TestPurgeOfLargeValues(t *testing.T) {
	hstest.Parallel(t)
	ctx := t.Context()
	for name, make := range map[string]func(testing.TB, ...roomkv.Option) (*roomkv.Store, *mautrix.Client, id.RoomID){"plain": newStore, "encrypted": newEncrypted} {
		t.Run(name, func(t *testing.T) {
			store, client, room := make(t)
			large := strings.Repeat("large ", 20_000)
			require.NoError(t, store.PutAll(ctx, map[string]any{"key": large, "other": large + "!"}))
			require.NoError(t, store.Put(ctx, "key", large+"?"))
			done, err := store.Purge(ctx, "key")
			require.NoError(t, err)
			require.Len(t, done.Media, 2)
			for _, uri := range done.Media {
				assert.True(t, strings.HasPrefix(string(uri), "mxc://"))
				traceless(t, client, room, string(uri))
				unreadable(t, client, room, string(uri))
			}
			got, err := roomkv.Get[string](ctx, open(t, client, room), "other")
			require.NoError(t, err)
			assert.Equal(t, large+"!", got)
		})
	}
}

// What a purge has redacted is not seen as a change, nor as gone, by a store that follows.
func TestPurgeBesideAFollower(t *testing.T) {
	hstest.Parallel(t)
	bothLayouts(t, func(t *testing.T, layout roomkv.Option) {
		ctx := t.Context()
		store, client, room := newStore(t, layout)
		require.NoError(t, store.PutAll(ctx, map[string]any{"key": "secret", "other": 1}))
		follower := twin(t, client)
		following := open(t, follower, room, layout)
		require.NoError(t, following.Follow())
		defer syncing(t, follower)()
		require.NoError(t, following.Put(ctx, "other", 2))
		_, err := store.Purge(ctx, "key")
		require.NoError(t, err)
		traceless(t, client, room, "secret")
		for n := range 3 {
			require.NoError(t, following.Put(ctx, fmt.Sprint("more ", n), n))
		}
		want := map[string]string{"other": "2", "more 0": "0", "more 1": "1", "more 2": "2"}
		assert.Equal(t, want, memoryOf(t, following))
		assert.Equal(t, want, memoryOf(t, open(t, client, room, layout)))
	})
}
