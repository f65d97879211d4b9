package secure

import (
	"context"
	"sync"
	"time"

	"github.com/rs/zerolog"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"
)

// Policy says who may verify the bot's device, and who compares what both sides show.
type Policy struct {
	Allow   func(user id.UserID) bool
	Compare func(ctx context.Context, shown SAS) (same bool, err error) // nil takes all for the same
	Done    func(user id.UserID, device id.DeviceID, verified bool)     // is told when a verification has ended; nil is told of none
}

// SAS is what both sides of a verification show (Client-Server API, short authentication string).
type SAS struct {
	User     id.UserID
	Device   id.DeviceID
	Emojis   []rune
	Names    []string // of the emojis, in English
	Decimals []int    // for who shows no emojis
}

// How old a request may be, and how far ahead of this clock (Client-Server API, m.key.verification.request). maxPeers bounds how many verifications
// go on at once, and maxReplies how many refusals are on their way.
const (
	maxAge     = 10 * time.Minute
	maxAhead   = 5 * time.Minute
	maxPeers   = 100
	maxReplies = 10
)

// Verifier answers those who want to verify the bot's device. mautrix's helper does the protocol. The verifier decides what reaches it: it keeps out
// who may not, and events of somebody else or of another room; it gives events of rooms the name under which the helper looks them up, which
// the helper takes for their own ID (v0.32.0); and it lets one thing happen after the other, for the helper works on a copy of what it knows.
type Verifier struct {
	client *mautrix.Client
	helper *verificationhelper.VerificationHelper
	policy Policy
	log    zerolog.Logger

	ctx     context.Context // ends with Close
	end     context.CancelFunc
	running sync.WaitGroup
	replies chan struct{} // has an entry for each refusal that is on its way

	turn     sync.Mutex // is held while the helper works
	handlers map[event.Type]mautrix.EventHandler

	mu    sync.Mutex
	peers map[id.VerificationTransactionID]peer
}

// peer is who wants to verify.
type peer struct {
	user   id.UserID
	device id.DeviceID
	room   id.RoomID // "" where messages go from device to device
	until  time.Time

	confirmed bool         // whether the bot has sent its MAC
	mac       *event.Event // of the other side, which waits for that
}

// NewVerifier answers from now on. The client's sync must not have begun.
func NewVerifier(ctx context.Context, c *Crypto, policy Policy) (*Verifier, error) {
	return newVerifier(ctx, c, policy, verificationhelper.NewInMemoryVerificationStore())
}

func newVerifier(ctx context.Context, c *Crypto, policy Policy, store verificationhelper.VerificationStore) (*Verifier, error) {
	v := &Verifier{
		client: c.client, policy: policy, log: c.client.Log.With().Str("component", "verification").Logger(),
		replies: make(chan struct{}, maxReplies), handlers: map[event.Type]mautrix.EventHandler{}, peers: map[id.VerificationTransactionID]peer{},
	}
	v.ctx, v.end = context.WithCancel(context.WithoutCancel(ctx))
	v.helper = verificationhelper.NewVerificationHelper(c.client, c.Machine(), store, callbacks{v}, false, false, true)
	syncer := c.client.Syncer
	c.client.Syncer = handlers{syncer, v.handlers} // the helper's handlers are called by the verifier alone
	err := v.helper.Init(ctx)
	c.client.Syncer = syncer
	if err != nil {
		return nil, err
	}
	for typ := range v.handlers {
		syncer.(mautrix.ExtensibleSyncer).OnEventType(typ, v.handle)
	}
	return v, nil
}

// Close ends what is going on.
func (v *Verifier) Close() {
	v.end()
	v.running.Wait()
}

// handlers is a syncer that keeps handlers by the type of events.
type handlers struct {
	mautrix.Syncer
	by map[event.Type]mautrix.EventHandler
}

func (handlers) OnSync(mautrix.SyncHandler)   {}
func (handlers) OnEvent(mautrix.EventHandler) {}

func (h handlers) OnEventType(typ event.Type, handler mautrix.EventHandler) { h.by[typ] = handler }

func (v *Verifier) handle(ctx context.Context, evt *event.Event) {
	switch evt.Type {
	case event.EventMessage:
		if content := evt.Content.AsMessage(); content.MsgType != event.MsgVerificationRequest || content.To != v.client.UserID || evt.Sender == v.client.UserID {
			return
		}
		v.request(ctx, evt, event.VerificationRequestEventContentFromMessage(evt))
	case event.ToDeviceVerificationRequest:
		v.request(ctx, evt, evt.Content.AsVerificationRequest())
	default:
		v.step(ctx, evt)
	}
}

// request begins a verification.
func (v *Verifier) request(ctx context.Context, evt *event.Event, asked *event.VerificationRequestEventContent) {
	now, sent := time.Now(), asked.Timestamp.Time
	if asked.TransactionID == "" || sent.Before(now.Add(-maxAge)) || sent.After(now.Add(maxAhead)) {
		return
	}
	from := peer{user: evt.Sender, device: asked.FromDevice, room: evt.RoomID, until: sent.Add(maxAge)}
	if !v.policy.Allow(from.user) {
		v.log.Info().Stringer("user", from.user).Stringer("device", from.device).Msg("Refused a verification")
		v.refuse(from, asked.TransactionID)
		return
	}
	if v.enter(asked.TransactionID, from, now) {
		v.pass(ctx, asked.TransactionID, evt)
	}
}

// enter notes who wants to verify.
func (v *Verifier) enter(txn id.VerificationTransactionID, from peer, now time.Time) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	for other, known := range v.peers {
		if known.until.Before(now) {
			delete(v.peers, other)
		}
	}
	if _, known := v.peers[txn]; known || len(v.peers) >= maxPeers {
		return false
	}
	v.peers[txn] = from
	return true
}

func (v *Verifier) peer(txn id.VerificationTransactionID) (peer, bool) {
	v.mu.Lock()
	defer v.mu.Unlock()
	found, ok := v.peers[txn]
	return found, ok
}

// leave forgets a verification that has ended, and tells the policy.
func (v *Verifier) leave(txn id.VerificationTransactionID, verified bool) {
	v.mu.Lock()
	from, known := v.peers[txn]
	delete(v.peers, txn)
	v.mu.Unlock()
	if known && v.policy.Done != nil {
		go v.policy.Done(from.user, from.device, verified) // Close does not wait for it, for it may call that
	}
}

// step goes on with a verification.
func (v *Verifier) step(ctx context.Context, evt *event.Event) {
	var txn id.VerificationTransactionID
	if evt.RoomID == "" {
		if content, ok := evt.Content.Parsed.(event.VerificationTransactionable); ok {
			txn = content.GetTransactionID()
		}
	} else if content, ok := evt.Content.Parsed.(event.Relatable); ok {
		txn = id.VerificationTransactionID(content.OptionalGetRelatesTo().GetReferenceID())
	}
	if from, ok := v.peer(txn); !ok || from.user != evt.Sender || from.room != evt.RoomID {
		return
	}
	if evt.RoomID != "" {
		named := *evt
		named.ID = id.EventID(txn)
		evt = &named
	}
	v.pass(ctx, txn, evt)
}

// pass gives an event to the helper.
func (v *Verifier) pass(ctx context.Context, txn id.VerificationTransactionID, evt *event.Event) {
	v.turn.Lock()
	defer v.turn.Unlock()
	if (evt.Type == event.ToDeviceVerificationMAC || evt.Type == event.InRoomVerificationMAC) && v.hold(txn, evt) {
		return
	}
	v.handlers[evt.Type](ctx, evt)
}

// hold keeps the other side's MAC until the bot has sent its own. The helper's ConfirmSAS otherwise compares the bot's master key with the other side's
// (v0.32.0), so that a verification failed whenever the other side was the first to confirm.
func (v *Verifier) hold(txn id.VerificationTransactionID, mac *event.Event) bool {
	v.mu.Lock()
	defer v.mu.Unlock()
	from, known := v.peers[txn]
	if !known || from.confirmed {
		return false
	}
	from.mac = mac
	v.peers[txn] = from
	return true
}

// confirm sends the bot's MAC, and then gives the helper the other side's where that has come already. The caller has the turn.
func (v *Verifier) confirm(txn id.VerificationTransactionID) error {
	if err := v.helper.ConfirmSAS(v.ctx, txn); err != nil {
		return err
	}
	v.mu.Lock()
	from, known := v.peers[txn]
	mac := from.mac
	if from.confirmed, from.mac = true, nil; known {
		v.peers[txn] = from
	}
	v.mu.Unlock()
	if mac != nil {
		v.handlers[mac.Type](v.ctx, mac)
	}
	return nil
}

// refuse tells that the user may not, unless that many are told already.
func (v *Verifier) refuse(from peer, txn id.VerificationTransactionID) {
	select {
	case v.replies <- struct{}{}:
	default:
		return
	}
	v.running.Go(func() {
		defer func() { <-v.replies }()
		content := &event.VerificationCancelEventContent{Code: event.VerificationCancelCodeUser, Reason: "The bot lets nobody verify it but those whom its configuration names."}
		var err error
		if from.room != "" {
			content.SetRelatesTo(&event.RelatesTo{Type: event.RelReference, EventID: id.EventID(txn)})
			_, err = v.client.SendMessageEvent(v.ctx, from.room, event.InRoomVerificationCancel, content)
		} else {
			content.SetTransactionID(txn)
			_, err = v.client.SendToDevice(v.ctx, event.ToDeviceVerificationCancel, &mautrix.ReqSendToDevice{
				Messages: map[id.UserID]map[id.DeviceID]*event.Content{from.user: {from.device: {Parsed: content}}},
			})
		}
		v.note(err, "Could not refuse a verification")
	})
}

func (v *Verifier) note(err error, what string) {
	if err != nil && v.ctx.Err() == nil {
		v.log.Warn().Err(err).Msg(what)
	}
}

// callbacks are what the helper calls. It does so in its turn, so whatever calls the helper again has to wait.
type callbacks struct{ v *Verifier }

func (c callbacks) VerificationRequested(_ context.Context, txn id.VerificationTransactionID, _ id.UserID, _ id.DeviceID) {
	c.v.running.Go(func() {
		c.v.turn.Lock()
		defer c.v.turn.Unlock()
		c.v.note(c.v.helper.AcceptVerification(c.v.ctx, txn), "Could not accept a verification")
	})
}

func (c callbacks) VerificationReady(context.Context, id.VerificationTransactionID, id.DeviceID, bool, bool, *verificationhelper.QRCode) {
}

func (c callbacks) ShowSAS(_ context.Context, txn id.VerificationTransactionID, emojis []rune, names []string, decimals []int) {
	from, ok := c.v.peer(txn)
	if ok {
		c.v.running.Go(func() { c.v.compare(txn, SAS{from.user, from.device, emojis, names, decimals}) })
	}
}

func (c callbacks) VerificationCancelled(_ context.Context, txn id.VerificationTransactionID, code event.VerificationCancelCode, _ string) {
	if from, ok := c.v.peer(txn); ok {
		c.v.log.Info().Stringer("user", from.user).Stringer("device", from.device).Str("code", string(code)).Msg("A verification was cancelled")
	}
	c.v.leave(txn, false)
}

func (c callbacks) VerificationDone(_ context.Context, txn id.VerificationTransactionID, _ event.VerificationMethod) {
	if from, ok := c.v.peer(txn); ok {
		c.v.log.Info().Stringer("user", from.user).Stringer("device", from.device).Msg("Verified")
	}
	c.v.leave(txn, true)
}

// compare has the policy compare, and tells the other side.
func (v *Verifier) compare(txn id.VerificationTransactionID, shown SAS) {
	same, err := true, error(nil)
	if v.policy.Compare != nil {
		same, err = v.policy.Compare(v.ctx, shown)
	}
	v.turn.Lock()
	defer v.turn.Unlock()
	switch {
	case err != nil:
		v.note(err, "What a verification shows could not be compared")
		err = v.helper.CancelVerification(v.ctx, txn, event.VerificationCancelCodeUser, "The bot could not compare.")
		v.leave(txn, false)
	case !same:
		err = v.helper.CancelVerification(v.ctx, txn, event.VerificationCancelCodeSASMismatch, "What the bot shows is something else.")
		v.leave(txn, false)
	default:
		if err = v.confirm(txn); err != nil {
			v.leave(txn, false)
		}
	}
	v.note(err, "A verification failed")
}
