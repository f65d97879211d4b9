package main

import (
	"context"
	"errors"
	"strings"
	"sync"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/homeserver/hstest"
)

// person is somebody with another client, who verifies the command's login.
type person struct {
	*mautrix.Client
	machine *crypto.OlmMachine
	helper  *verificationhelper.VerificationHelper
	agrees  bool
	turn    sync.Mutex                   // is held while the helper works, which works on a copy of what it knows
	ready   id.VerificationTransactionID // shows emojis, and has no answer yet; the sync alone uses it
	shown   chan []rune
	ended   chan event.VerificationCancelCode // "" where all went well
}

func newPerson(t *testing.T, agrees bool) *person {
	p := &person{Client: hstest.Client(t), agrees: agrees, shown: make(chan []rune, 9), ended: make(chan event.VerificationCancelCode, 9)}
	p.machine = hstest.Crypto(t, p.Client).Machine()
	_, _, err := p.machine.GenerateAndUploadCrossSigningKeys(t.Context(), nil, "")
	require.NoError(t, err)
	p.helper = verificationhelper.NewVerificationHelper(p.Client, p.machine, nil, p, false, false, true)
	require.NoError(t, p.helper.Init(t.Context()))
	p.Syncer = &answering{DefaultSyncer: p.Syncer.(*mautrix.DefaultSyncer), p: p, t: t}
	ctx, stop := context.WithCancel(context.WithoutCancel(t.Context()))
	over := make(chan struct{})
	go func() {
		defer close(over)
		_ = p.SyncWithContext(ctx)
	}()
	t.Cleanup(func() {
		stop()
		<-over
	})
	return p
}

// answering confirms what the person is shown once a response of the sync was processed. The other side's MAC waits for that: mautrix's helper compares the
// wrong keys otherwise (v0.32.0).
type answering struct {
	*mautrix.DefaultSyncer
	p         *person
	t         *testing.T
	confirmed bool
	macs      []*event.Event
}

// ProcessResponse implements [mautrix.Syncer].
func (a *answering) ProcessResponse(ctx context.Context, resp *mautrix.RespSync, since string) error {
	a.p.turn.Lock()
	defer a.p.turn.Unlock()
	rest := *resp
	rest.ToDevice.Events = nil
	for _, evt := range resp.ToDevice.Events {
		if evt.Type.Type == event.ToDeviceVerificationMAC.Type && !a.confirmed {
			a.macs = append(a.macs, evt)
		} else {
			rest.ToDevice.Events = append(rest.ToDevice.Events, evt)
		}
	}
	err := a.DefaultSyncer.ProcessResponse(ctx, &rest, since)
	txn := a.p.ready
	switch a.p.ready = ""; {
	case txn == "":
	case a.p.agrees:
		assert.NoError(a.t, a.p.helper.ConfirmSAS(ctx, txn))
		a.confirmed = true
	default:
		assert.NoError(a.t, a.p.helper.CancelVerification(ctx, txn, event.VerificationCancelCodeSASMismatch, ""))
	}
	if a.confirmed && len(a.macs) > 0 {
		late := mautrix.RespSync{NextBatch: resp.NextBatch, DeviceOTKCount: resp.DeviceOTKCount}
		late.ToDevice.Events, a.macs = a.macs, nil
		err = errors.Join(err, a.DefaultSyncer.ProcessResponse(ctx, &late, since))
	}
	return err
}

func (p *person) VerificationRequested(context.Context, id.VerificationTransactionID, id.UserID, id.DeviceID) {
}

func (p *person) VerificationReady(ctx context.Context, txn id.VerificationTransactionID, _ id.DeviceID, _, _ bool, _ *verificationhelper.QRCode) {
	ctx = context.WithoutCancel(ctx)
	go func() {
		p.turn.Lock() // once this callback has returned
		defer p.turn.Unlock()
		_ = p.helper.StartSAS(ctx, txn)
	}()
}

// asks begins to verify a user.
func (p *person) asks(t *testing.T, user id.UserID) {
	p.turn.Lock()
	defer p.turn.Unlock()
	_, err := p.helper.StartVerification(t.Context(), user)
	assert.NoError(t, err)
}

func (p *person) ShowSAS(_ context.Context, txn id.VerificationTransactionID, emojis []rune, _ []string, _ []int) {
	p.shown <- emojis
	p.ready = txn
}

func (p *person) VerificationCancelled(_ context.Context, _ id.VerificationTransactionID, code event.VerificationCancelCode, _ string) {
	p.ended <- code
}

func (p *person) VerificationDone(context.Context, id.VerificationTransactionID, event.VerificationMethod) {
	p.ended <- ""
}

func TestVerify(t *testing.T) {
	t.Parallel()
	sh := newShell(t)
	assert.Equal(t, exitUsage, sh.run("verify").code, "nobody can be asked")
	assert.Equal(t, exitUsage, sh.run("verify", "alice", "--yes").code)
	for _, agrees := range []bool{true, false} {
		alice := newPerson(t, agrees)
		verify := sh.start("verify", alice.UserID.String(), "--yes")
		verify.waitFor(t, `^Waiting for `)
		alice.asks(t, sh.bot.UserID)
		code := verify.end()
		emojis := <-alice.shown
		for _, emoji := range emojis {
			assert.Contains(t, verify.said.String(), "  "+string(emoji)+"  ")
		}
		trusted := func() bool {
			_, err := alice.machine.FetchKeys(t.Context(), []id.UserID{sh.bot.UserID, alice.UserID}, true)
			require.NoError(t, err)
			trusted, err := alice.machine.IsUserTrusted(t.Context(), sh.bot.UserID)
			require.NoError(t, err)
			return trusted
		}
		if !agrees {
			assert.Equal(t, exitError, code, verify.said.String())
			assert.Contains(t, verify.said.String(), "is not verified")
			assert.False(t, trusted())
			continue
		}
		assert.Zero(t, code, verify.said.String())
		assert.Contains(t, verify.said.String(), "Verified: "+alice.UserID.String())
		assert.Equal(t, event.VerificationCancelCode(""), <-alice.ended)
		assert.True(t, trusted())
		assert.Equal(t, 1, strings.Count(verify.said.String(), "Waiting"))
	}
}
