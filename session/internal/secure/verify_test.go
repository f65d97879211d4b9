package secure_test

import (
	"context"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"go.mau.fi/util/jsontime"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
	"github.com/roomkv/roomkv/internal/homeserver/hstest"
	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/secure"
)

// person is somebody with another client, who verifies the bot.
type person struct {
	*mautrix.Client
	machine *crypto.OlmMachine
	helper  *verificationhelper.VerificationHelper
	ended   chan event.VerificationCancelCode // "" where all went well

	starts    sync.Mutex // held while the person asks, for mautrix's helper sends that before it keeps it
	mu        sync.Mutex
	shown     []rune
	ready     id.VerificationTransactionID // shows emojis that are to be confirmed
	confirmed id.VerificationTransactionID
	early     []*event.Event // MACs from before that
}

func newPerson(t *testing.T, server server) *person {
	p := &person{ended: make(chan event.VerificationCancelCode, 10)}
	p.Client, p.machine = stranger(t, server)
	_, _, err := p.machine.GenerateAndUploadCrossSigningKeys(t.Context(), nil, "")
	require.NoError(t, err)
	p.Syncer.(*mautrix.DefaultSyncer).OnSync(p.takesTurns)
	p.helper = verificationhelper.NewVerificationHelper(p.Client, p.machine, nil, p, false, false, true)
	require.NoError(t, p.helper.Init(t.Context()))
	return p
}

// takesTurns confirms in the person's sync, for mautrix's helper works on a copy of what it knows. The bot's MAC waits for that: mautrix 0.32 compares the
// wrong master keys where it has that first.
func (p *person) takesTurns(ctx context.Context, resp *mautrix.RespSync, _ string) bool {
	p.starts.Lock()
	defer p.starts.Unlock()
	p.mu.Lock()
	ready := p.ready
	p.ready = ""
	p.mu.Unlock()
	if ready != "" {
		_ = p.helper.ConfirmSAS(ctx, ready) // fails where the bot has cancelled
		p.confirmed = ready
	}
	events := append(p.early, resp.ToDevice.Events...)
	p.early, resp.ToDevice.Events = nil, nil
	for _, evt := range events {
		if evt.Type.Type == event.ToDeviceVerificationMAC.Type && evt.Content.Raw["transaction_id"] != p.confirmed.String() {
			p.early = append(p.early, evt)
		} else {
			resp.ToDevice.Events = append(resp.ToDevice.Events, evt)
		}
	}
	return true
}

func (p *person) VerificationRequested(context.Context, id.VerificationTransactionID, id.UserID, id.DeviceID) {
}

func (p *person) VerificationReady(ctx context.Context, txn id.VerificationTransactionID, _ id.DeviceID, _, _ bool, _ *verificationhelper.QRCode) {
	ctx = context.WithoutCancel(ctx)
	go func() { _ = p.helper.StartSAS(ctx, txn) }()
}

func (p *person) ShowSAS(ctx context.Context, txn id.VerificationTransactionID, emojis []rune, _ []string, _ []int) {
	p.mu.Lock()
	p.shown, p.ready = emojis, txn
	p.mu.Unlock()
	// So that there is another response of the sync, also where this one has all that the bot sends.
	_ = p.SetAccountData(ctx, "com.example.shown", map[string]any{"transaction": txn})
}

func (p *person) emojis() []rune {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.shown
}

func (p *person) VerificationCancelled(_ context.Context, _ id.VerificationTransactionID, code event.VerificationCancelCode, _ string) {
	p.ended <- code
}

func (p *person) VerificationDone(context.Context, id.VerificationTransactionID, event.VerificationMethod) {
	p.ended <- ""
}

// verifies asks the bot, and waits for the end.
func (p *person) verifies(t *testing.T, bot id.UserID) event.VerificationCancelCode {
	p.asks(t, bot)
	return p.waits(t)
}

func (p *person) asks(t *testing.T, bot id.UserID) id.VerificationTransactionID {
	p.starts.Lock()
	defer p.starts.Unlock()
	txn, err := p.helper.StartVerification(t.Context(), bot)
	require.NoError(t, err)
	return txn
}

func (p *person) waits(t *testing.T) event.VerificationCancelCode {
	select {
	case code := <-p.ended:
		return code
	case <-time.After(20 * time.Second):
		t.Fatal("the verification does not end")
		return ""
	}
}

// verifiable starts a bot that can be verified, and its sync.
func verifiable(t *testing.T, bot *account, policy secure.Policy) (*secure.Crypto, *secure.Verifier) {
	opened, _ := bot.open(t, "")
	verifier, err := secure.NewVerifier(t.Context(), opened, policy)
	require.NoError(t, err)
	t.Cleanup(verifier.Close)
	fakehstest.Sync(t, opened.Machine().Client)
	return opened, verifier
}

// trusts tells whether one account has signed another's key.
func trusts(t *testing.T, machine *crypto.OlmMachine, user id.UserID) bool {
	_, err := machine.FetchKeys(t.Context(), []id.UserID{user, machine.Client.UserID}, true)
	require.NoError(t, err)
	trusted, err := machine.IsUserTrusted(t.Context(), user)
	require.NoError(t, err)
	return trusted
}

func TestSomebodyVerifiesTheBot(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot, alice, mallory := newAccount(t, server), newPerson(t, server), newPerson(t, server)
		opened, verifier := verifiable(t, bot, secure.Policy{Allow: func(user id.UserID) bool { return user == alice.UserID }})
		fakehstest.Sync(t, alice.Client)
		fakehstest.Sync(t, mallory.Client)
		assert.False(t, trusts(t, alice.machine, bot.user))

		assert.Equal(t, event.VerificationCancelCodeUser, mallory.verifies(t, bot.user), "mallory may not")
		assert.False(t, trusts(t, mallory.machine, bot.user))
		assert.Empty(t, mallory.emojis())
		assert.Equal(t, event.VerificationCancelCode(""), alice.verifies(t, bot.user))
		assert.Len(t, alice.emojis(), 7)
		assert.True(t, trusts(t, alice.machine, bot.user))
		device, err := alice.machine.GetOrFetchDevice(t.Context(), bot.user, bot.device)
		require.NoError(t, err)
		assert.Equal(t, id.TrustStateVerified, device.Trust)
		assert.Eventually(t, func() bool { return verifier.Peers() == 0 }, 5*time.Second, 10*time.Millisecond)
		assert.True(t, trusts(t, opened.Machine(), alice.UserID))
		assert.False(t, trusts(t, opened.Machine(), mallory.UserID))
	})
}

func TestTheBotComparesWhatIsShown(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot, alice, mallory := newAccount(t, server), newPerson(t, server), newPerson(t, server)
		same, txn := false, id.VerificationTransactionID("")
		done := make(chan bool, 9)
		opened, _ := verifiable(t, bot, secure.Policy{
			Allow: func(id.UserID) bool { return true },
			Done: func(user id.UserID, device id.DeviceID, verified bool) {
				assert.Equal(t, alice.UserID, user)
				assert.Equal(t, alice.DeviceID, device)
				done <- verified
			},
			Compare: func(ctx context.Context, shown secure.SAS) (bool, error) {
				assert.Equal(t, alice.UserID, shown.User)
				assert.Equal(t, alice.DeviceID, shown.Device)
				assert.Len(t, shown.Names, 7)
				assert.Len(t, shown.Decimals, 3)
				assert.Eventually(t, func() bool { return string(alice.emojis()) == string(shown.Emojis) }, 5*time.Second, 5*time.Millisecond)
				// Somebody else cannot end it.
				cancel := &event.VerificationCancelEventContent{Code: event.VerificationCancelCodeUser}
				cancel.SetTransactionID(txn)
				_, err := mallory.SendToDevice(ctx, event.ToDeviceVerificationCancel, &mautrix.ReqSendToDevice{
					Messages: map[id.UserID]map[id.DeviceID]*event.Content{bot.user: {bot.device: {Parsed: cancel}}},
				})
				time.Sleep(50 * time.Millisecond)
				return same, err
			},
		})
		fakehstest.Sync(t, alice.Client)
		for _, same = range []bool{false, true} {
			txn = alice.asks(t, bot.user)
			code := alice.waits(t)
			if same {
				assert.Equal(t, event.VerificationCancelCode(""), code)
			} else {
				assert.Equal(t, event.VerificationCancelCodeSASMismatch, code)
			}
			assert.Equal(t, same, trusts(t, alice.machine, bot.user))
			assert.Equal(t, same, trusts(t, opened.Machine(), alice.UserID))
			select {
			case verified := <-done:
				assert.Equal(t, same, verified)
			case <-time.After(20 * time.Second):
				t.Error("nobody is told of the end")
			}
		}
	})
}

// A person is often faster than whoever compares for the bot.
func TestTheOtherSideConfirmsFirst(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot, alice, mallory := newAccount(t, server), newPerson(t, server), newPerson(t, server)
		var verifier *secure.Verifier
		ended := make(chan bool, 1)
		opened, made := verifiable(t, bot, secure.Policy{
			Allow: func(id.UserID) bool { return true },
			Compare: func(ctx context.Context, shown secure.SAS) (bool, error) {
				assert.Eventually(t, func() bool { return string(alice.emojis()) == string(shown.Emojis) }, 5*time.Second, 5*time.Millisecond)
				// Alice confirms in her sync, which this wakes.
				_, err := mallory.SendToDevice(ctx, event.ToDeviceDummy, &mautrix.ReqSendToDevice{
					Messages: map[id.UserID]map[id.DeviceID]*event.Content{alice.UserID: {alice.DeviceID: {Parsed: &event.DummyEventContent{}}}},
				})
				assert.Eventually(t, func() bool { return verifier.Held() == 1 }, 20*time.Second, 5*time.Millisecond, "alice has confirmed")
				return true, err
			},
			Done: func(_ id.UserID, _ id.DeviceID, verified bool) { ended <- verified },
		})
		verifier = made
		fakehstest.Sync(t, alice.Client)
		assert.Equal(t, event.VerificationCancelCode(""), alice.verifies(t, bot.user))
		assert.True(t, <-ended)
		assert.True(t, trusts(t, alice.machine, bot.user))
		assert.True(t, trusts(t, opened.Machine(), alice.UserID))
	})
}

// A bot that runs for one verification closes when that has ended.
func TestDoneMayClose(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		bot, alice := newAccount(t, server), newPerson(t, server)
		made, closed := make(chan *secure.Verifier, 1), make(chan struct{})
		_, verifier := verifiable(t, bot, secure.Policy{
			Allow:   func(id.UserID) bool { return true },
			Compare: func(context.Context, secure.SAS) (bool, error) { return false, nil },
			Done: func(id.UserID, id.DeviceID, bool) {
				(<-made).Close()
				close(closed)
			},
		})
		made <- verifier
		fakehstest.Sync(t, alice.Client)
		alice.asks(t, bot.user)
		select {
		case <-closed:
		case <-time.After(20 * time.Second):
			t.Fatal("Close waits for whoever calls it")
		}
	})
}

// Element verifies another user in a room of the two.
func TestSomebodyVerifiesTheBotInARoom(t *testing.T) {
	each(t, func(t *testing.T, server server) {
		ctx := t.Context()
		bot, other := newAccount(t, server), newAccount(t, server)
		anybody := secure.Policy{Allow: func(id.UserID) bool { return true }}
		opened, verifier := verifiable(t, bot, anybody)
		client, _ := other.client(t)
		alice, err := secure.Open(ctx, secure.Config{Client: client, Folder: folder.InMemory(), RecoveryKey: secure.NewRecoveryKey(), Password: other.password})
		require.NoError(t, err)
		store := verificationhelper.NewInMemoryVerificationStore()
		theirs, err := secure.NewVerifierIn(ctx, alice, anybody, store)
		require.NoError(t, err)
		t.Cleanup(theirs.Close)

		room := hstest.EncryptedRoom(t, client, bot.user)
		_, err = opened.Machine().Client.JoinRoomByID(ctx, room)
		require.NoError(t, err)
		fakehstest.Sync(t, client)
		require.Eventually(t, func() bool { return opened.Machine().Client.StateStore.IsInRoom(ctx, room, bot.user) }, 5*time.Second, 10*time.Millisecond)
		sent, err := client.SendMessageEvent(ctx, room, event.EventMessage, &event.MessageEventContent{
			MsgType: event.MsgVerificationRequest, Body: "verify", To: bot.user, FromDevice: client.DeviceID,
			Methods: []event.VerificationMethod{event.VerificationMethodSAS},
		})
		require.NoError(t, err)
		txn := id.VerificationTransactionID(sent.EventID)
		theirs.Expect(txn, bot.user, room)
		require.NoError(t, store.SaveVerificationTransaction(ctx, verificationhelper.VerificationTransaction{
			ExpirationTime: jsontime.UM(time.Now().Add(time.Minute)), RoomID: room, TransactionID: txn, TheirUserID: bot.user,
		}))
		require.Eventually(t, func() bool { return theirs.Helper().StartSAS(ctx, txn) == nil }, 10*time.Second, 10*time.Millisecond)
		assert.Eventually(t, func() bool { return verifier.Peers() == 0 && theirs.Peers() == 0 }, 10*time.Second, 10*time.Millisecond)
		assert.True(t, trusts(t, alice.Machine(), bot.user))
		assert.True(t, trusts(t, opened.Machine(), other.user))
	})
}
