package roomkv_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"sync"
	"time"

	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// botAndRoom is a client that is logged in, and a room that its user is in and may send state to.
func botAndRoom() (*mautrix.Client, id.RoomID) {
	server, err := hstest.Shared()
	if err != nil {
		log.Fatal(err)
	}
	client, err := server.Register(context.Background(), "example")
	if err != nil {
		log.Fatal(err)
	}
	room, err := client.CreateRoom(context.Background(), &mautrix.ReqCreateRoom{Preset: "private_chat"})
	if err != nil {
		log.Fatal(err)
	}
	return client, room.RoomID
}

func Example() {
	ctx := context.Background()
	client, room := botAndRoom()

	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	type reminder struct {
		Text string
		Hour float64
	}
	if err := store.Put(ctx, "reminder", reminder{"water the plants", 17.5}); err != nil {
		log.Fatal(err)
	}
	got, err := roomkv.Get[reminder](ctx, store, "reminder")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s at %v\n", got.Text, got.Hour)

	if err := store.Delete(ctx, "reminder"); err != nil {
		log.Fatal(err)
	}
	_, err = roomkv.Get[reminder](ctx, store, "reminder")
	fmt.Println(errors.Is(err, roomkv.ErrNotFound))
	// Output:
	// water the plants at 17.5
	// true
}

func ExampleStore_All() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String(), roomkv.WithPerKeyState())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	for entry, err := range store.All(ctx) {
		if err != nil {
			log.Print(err) // of this entry; the next may be fine
			continue
		}
		var score int
		if err := entry.Decode(&score); err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, score, entry.Sender == client.UserID)
	}
	// Output:
	// alice 3 true
	// bob 5 true
}

func ExampleStore_WithRoom() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, "main", roomkv.WithRooms(map[string]string{"main": room.String()}))
	if err != nil {
		log.Fatal(err)
	}
	_, lobby := botAndRoom()
	if _, err := store.WithRoom(ctx, "loby"); errors.Is(err, roomkv.ErrUnknownRoom) {
		fmt.Println("there is no room of that name")
	}
	other, err := store.WithRoom(ctx, lobby)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(errors.Is(other.Put(ctx, "topic", "hello"), roomkv.ErrNotJoined))
	// Output:
	// there is no room of that name
	// true
}

func ExampleStore_InEventRoom() {
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	onMessage := store.InEventRoom(func(ctx context.Context, evt *event.Event, room *roomkv.Store) {
		seen, err := roomkv.Get[int](ctx, room, evt.Sender.String())
		if err != nil && !errors.Is(err, roomkv.ErrNotFound) {
			log.Print(err)
			return
		}
		if err := room.Put(ctx, evt.Sender.String(), seen+1); err != nil {
			log.Print(err)
		}
		fmt.Println("messages so far:", seen+1)
	})
	client.Syncer.(mautrix.ExtensibleSyncer).OnEventType(event.EventMessage, onMessage)

	// client.Sync() would now call it for each message. Here is what that does:
	for range 2 {
		onMessage(context.Background(), &event.Event{RoomID: room, Sender: "@alice:example.org"})
	}
	// Output:
	// messages so far: 1
	// messages so far: 2
}

func ExampleUpdate() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	var group sync.WaitGroup
	for range 10 { // as many handlers at once
		group.Go(func() {
			err := roomkv.Update(ctx, store, "visits", func(old int, _ bool) (int, error) { return old + 1, nil })
			if err != nil {
				log.Fatal(err)
			}
		})
	}
	group.Wait()
	visits, err := roomkv.Get[int](ctx, store, "visits")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(visits)
	// Output: 10
}

func ExampleStore_CompareAndPut() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Create(ctx, "topic", "gardens"); err != nil {
		log.Fatal(err)
	}
	read, err := store.Entry(ctx, "topic")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(store.CompareAndPut(ctx, "topic", "plants", read.Revision))
	err = store.CompareAndPut(ctx, "topic", "trees", read.Revision) // which is no longer the latest
	fmt.Println(errors.Is(err, roomkv.ErrConflict))
	// Output:
	// <nil>
	// true
}

func ExampleStore_Transact() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"coins/alice": 10, "coins/bob": 2}); err != nil {
		log.Fatal(err)
	}
	pay := func(from, to string, amount int) error {
		return store.Transact(ctx, func(tx *roomkv.Tx) error {
			var a, b int
			if err := errors.Join(tx.Get(from, &a), tx.Get(to, &b)); err != nil {
				return err
			}
			if a < amount {
				return fmt.Errorf("%s has %d", from, a)
			}
			return errors.Join(tx.Put(from, a-amount), tx.Put(to, b+amount))
		})
	}
	fmt.Println(pay("coins/alice", "coins/bob", 4))
	fmt.Println(pay("coins/alice", "coins/bob", 7))
	// Output:
	// <nil>
	// coins/alice has 6
}

func ExampleExpireAfter() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	greet := func(user string) {
		err := store.Create(ctx, "greeted/"+user, true, roomkv.ExpireAfter(time.Hour))
		switch {
		case errors.Is(err, roomkv.ErrExists): // less than an hour ago
		case err != nil:
			log.Fatal(err)
		default:
			fmt.Println("Hello,", user)
		}
	}
	greet("alice")
	greet("alice")
	greet("bob")
	// Output:
	// Hello, alice
	// Hello, bob
}

func ExampleStore_Lease() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	lease, err := store.Lease(ctx, "reminders", time.Minute)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println("holder", lease.Fence())
	err = store.Transact(ctx, func(tx *roomkv.Tx) error {
		if err := tx.Require(lease); err != nil {
			return err
		}
		return tx.Put("last reminder", "2026-11-29")
	})
	fmt.Println(err)
	fmt.Println(lease.Release(ctx))
	// Output:
	// holder 1
	// <nil>
	// <nil>
}

func ExampleStore_Once() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	for range 2 { // as two replicas that get the same event
		mine, err := store.Once(ctx, "$event", time.Hour)
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(mine)
	}
	// Output:
	// true
	// false
}

func ExampleStore_Keys() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"score/alice": 3, "score/bob": 5, "score/carol": 1, "topic": "chess"}); err != nil {
		log.Fatal(err)
	}
	page, err := store.Keys(ctx, roomkv.Prefix("score/"), roomkv.Limit(2))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page)
	page, err = store.Keys(ctx, roomkv.Prefix("score/"), roomkv.Limit(2), roomkv.StartAfter(page[len(page)-1]))
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(page)
	// Output:
	// [score/alice score/bob]
	// [score/carol]
}

func ExampleStore_GetAll() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"language": "de", "volume": 7}); err != nil {
		log.Fatal(err)
	}
	settings, err := store.GetAll(ctx, "language", "volume", "theme")
	if err != nil {
		log.Fatal(err)
	}
	_, themed := settings["theme"]
	fmt.Printf("%s %s %t\n", settings["language"].Value, settings["volume"].Value, themed)
	// Output:
	// "de" 7 false
}

func ExampleStore_CompareAndDelete() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "job", "queued"); err != nil {
		log.Fatal(err)
	}
	entry, err := store.Entry(ctx, "job")
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "job", "running"); err != nil { // somebody else, perhaps
		log.Fatal(err)
	}
	err = store.CompareAndDelete(ctx, "job", entry.Revision)
	fmt.Println(errors.Is(err, roomkv.ErrConflict))
	// Output:
	// true
}

func ExampleDeleteKey() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Put(ctx, "tries left", 2); err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := roomkv.Update(ctx, store, "tries left", func(left int, _ bool) (int, error) {
			if left == 1 {
				return 0, roomkv.DeleteKey
			}
			return left - 1, nil
		}); err != nil {
			log.Fatal(err)
		}
	}
	fmt.Println(errors.Is(store.Get(ctx, "tries left", new(int)), roomkv.ErrNotFound))
	// Output:
	// true
}

func ExampleStore_Info() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	info, err := store.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(info.Keys, info.Bytes*100/roomkv.MaxBytes, "% full")
	fmt.Println(info.Power >= info.PowerNeeded)
	// Output:
	// 2 0 % full
	// true
}

// logged is an observer that prints what operations take.
type logged struct{}

func (logged) Start(ctx context.Context, _ roomkv.Operation) context.Context { return ctx }

func (logged) End(_ context.Context, op roomkv.Operation, outcome roomkv.Outcome) {
	fmt.Printf("%s: %d requests, error %q\n", op.Kind, outcome.Requests, outcome.Error)
}

func ExampleWithObserver() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String(), roomkv.WithPerKeyState(), roomkv.WithObserver(logged{}))
	if err != nil {
		log.Fatal(err)
	}
	for range 2 {
		if err := store.Put(ctx, "greeting", "Hello!"); err != nil {
			log.Fatal(err)
		}
	}
	if err := store.Get(ctx, "missing", new(string)); !errors.Is(err, roomkv.ErrNotFound) {
		log.Fatal(err)
	}
	// Output:
	// Put: 3 requests, error ""
	// Put: 1 requests, error ""
	// Get: 1 requests, error "ErrNotFound"
}

func ExampleStore_Sub() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	// Two plugins of a bot share a room's memory and do not see each other's keys.
	quiz, polls := store.Sub("quiz/"), store.Sub("polls/")
	if err := quiz.PutAll(ctx, map[string]any{"alice": 3, "bob": 5}); err != nil {
		log.Fatal(err)
	}
	if err := polls.Put(ctx, "alice", "pizza"); err != nil {
		log.Fatal(err)
	}
	keys, err := quiz.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(keys)
	keys, err = store.Keys(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(keys)
	// Output:
	// [alice bob]
	// [polls/alice quiz/alice quiz/bob]
}

func ExampleMapOf() {
	ctx := context.Background()
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	type score struct{ Won, Lost int }
	scores := roomkv.MapOf[score](store)
	for _, player := range []string{"alice", "bob", "alice"} {
		if err := scores.Update(ctx, player, func(s score, _ bool) (score, error) {
			s.Won++
			return s, nil
		}); err != nil {
			log.Fatal(err)
		}
	}
	for entry, err := range scores.All(ctx) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Println(entry.Key, entry.Value.Won)
	}
	// Output:
	// alice 2
	// bob 1
}

func ExampleStore_Watch() {
	ctx, cancel := context.WithCancel(context.Background())
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Follow(); err != nil {
		log.Fatal(err)
	}
	synced := make(chan error, 1)
	go func() { synced <- client.SyncWithContext(ctx) }()
	if err := store.Put(ctx, "score alice", 1); err != nil {
		log.Fatal(err)
	}
	read, err := store.Entry(ctx, "score alice")
	if err != nil {
		log.Fatal(err)
	}
	for _, points := range []int{2, 3} {
		if err := store.Put(ctx, "score alice", points); err != nil {
			log.Fatal(err)
		}
	}
	for change, err := range store.Watch(ctx, roomkv.WatchPrefix("score "), roomkv.WatchFrom(read.Revision)) {
		if err != nil {
			log.Fatal(err)
		}
		fmt.Printf("%s: %s → %s\n", change.Key, change.Old, change.New)
		if string(change.New) == "3" {
			break
		}
	}
	cancel()
	<-synced
	// Output:
	// score alice: 1 → 2
	// score alice: 2 → 3
}

func ExampleWatchInitial() {
	ctx, cancel := context.WithCancel(context.Background())
	client, room := botAndRoom()
	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.Follow(); err != nil {
		log.Fatal(err)
	}
	synced := make(chan error, 1)
	go func() { synced <- client.SyncWithContext(ctx) }()
	if err := store.PutAll(ctx, map[string]any{"poll/pizza": 3, "poll/pasta": 2, "quiz/alice": 7, "mood": "fine"}); err != nil {
		log.Fatal(err)
	}
	table := map[string]string{} // a copy of what is there, kept current
	for change, err := range store.Watch(ctx, roomkv.WatchInitial(), roomkv.WatchPrefix("poll/", "quiz/")) {
		if err != nil {
			log.Fatal(err)
		}
		if change.EndOfInitial {
			fmt.Println("complete:", table)
			if err := store.Put(ctx, "quiz/alice", 8); err != nil {
				log.Fatal(err)
			}
			continue
		}
		if table[change.Key] = string(change.New); change.Old != nil {
			break
		}
	}
	fmt.Println("changed:", table)
	cancel()
	<-synced
	// Output:
	// complete: map[poll/pasta:2 poll/pizza:3 quiz/alice:7]
	// changed: map[poll/pasta:2 poll/pizza:3 quiz/alice:8]
}

// An application service has mautrix's appservice.EventProcessor, whose On stands where this example has on.
func ExampleStore_FollowEvents() {
	ctx := context.Background()
	client, room := botAndRoom()
	handlers := map[event.Type]func(context.Context, *event.Event){}
	on := func(eventType event.Type, handle func(context.Context, *event.Event)) { handlers[eventType] = handle }

	store, err := roomkv.New(client, room.String())
	if err != nil {
		log.Fatal(err)
	}
	if err := store.FollowEvents(on, time.Minute); err != nil {
		log.Fatal(err)
	}
	another, err := roomkv.New(client, room.String()) // in another process, for example
	if err != nil {
		log.Fatal(err)
	}
	for change, err := range store.Watch(ctx, roomkv.WatchInitial()) {
		if err != nil {
			log.Fatal(err)
		}
		if !change.EndOfInitial {
			fmt.Printf("%s: %s\n", change.Key, change.New)
			break
		}
		if err := another.Put(ctx, "greeting", "Hello!"); err != nil {
			log.Fatal(err)
		}
		sent, err := another.Entry(ctx, "greeting")
		if err != nil {
			log.Fatal(err)
		}
		// The homeserver pushes the event.
		database := event.Type{Type: roomkv.DefaultEventType, Class: event.StateEventType}
		handlers[database](ctx, &event.Event{ID: id.EventID(sent.Revision), Type: database, StateKey: new(string), RoomID: room})
	}
	if err := store.Close(ctx); err != nil {
		log.Print(err)
	}
	// Output: greeting: "Hello!"
}

func ExampleWithFlushEvery() {
	ctx := context.Background()
	client, room := botAndRoom()

	store, err := roomkv.New(client, room.String(), roomkv.WithFlushEvery(5*time.Second))
	if err != nil {
		log.Fatal(err)
	}
	for range 100 { // no more than one event
		count := func(seen int, _ bool) (int, error) { return seen + 1, nil }
		if err := roomkv.Update(ctx, store, "seen", count); err != nil {
			log.Fatal(err)
		}
	}
	seen, err := roomkv.Get[int](ctx, store, "seen")
	if err != nil {
		log.Fatal(err)
	}
	fmt.Println(seen)
	if err := store.Close(ctx); err != nil { // sends what is left
		log.Print(err)
	}
	// Output: 100
}
