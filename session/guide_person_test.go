package session

import (
	"context"
	"testing"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/verificationhelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/internal/fakehs/fakehstest"
)

// comparing is a person who verifies a bot in another client, and says that the emojis match. All but said is the sync's.
type comparing struct {
	machine *crypto.OlmMachine
	helper  *verificationhelper.VerificationHelper
	ready   id.VerificationTransactionID // shows emojis that are to be confirmed
	emojis  int
	said    chan string // how it has ended
}

// verify verifies the bot with the machine of a client that does not sync yet.
func verify(t *testing.T, machine *crypto.OlmMachine, bot id.UserID) {
	t.Helper()
	_, _, err := machine.GenerateAndUploadCrossSigningKeys(t.Context(), nil, "")
	require.NoError(t, err)
	p := &comparing{machine: machine, said: make(chan string, 1)}
	// mautrix's helper works on a copy of what it knows, so a person does one thing after the other, in their sync.
	machine.Client.Syncer.(*mautrix.DefaultSyncer).OnSync(func(ctx context.Context, _ *mautrix.RespSync, _ string) bool {
		if p.ready != "" {
			assert.NoError(t, p.helper.ConfirmSAS(ctx, p.ready))
			p.ready = ""
		}
		return true
	})
	p.helper = verificationhelper.NewVerificationHelper(machine.Client, machine, nil, p, false, false, true)
	require.NoError(t, p.helper.Init(t.Context()))
	stop := fakehstest.Sync(t, machine.Client)
	_, err = p.helper.StartVerification(t.Context(), bot)
	require.NoError(t, err)
	select {
	case said := <-p.said:
		assert.Equal(t, "done", said)
	case <-time.After(time.Minute):
		t.Fatal("the verification does not end")
	}
	stop()
	assert.Equal(t, 7, p.emojis)
	_, err = machine.FetchKeys(t.Context(), []id.UserID{bot, machine.Client.UserID}, true)
	require.NoError(t, err)
	trusted, err := machine.IsUserTrusted(t.Context(), bot)
	require.NoError(t, err)
	assert.True(t, trusted)
}

func (p *comparing) VerificationRequested(context.Context, id.VerificationTransactionID, id.UserID, id.DeviceID) {
}

func (p *comparing) VerificationReady(ctx context.Context, txn id.VerificationTransactionID, _ id.DeviceID, _, _ bool, _ *verificationhelper.QRCode) {
	ctx = context.WithoutCancel(ctx)
	go func() { _ = p.helper.StartSAS(ctx, txn) }()
}

func (p *comparing) ShowSAS(_ context.Context, txn id.VerificationTransactionID, emojis []rune, _ []string, _ []int) {
	p.emojis, p.ready = len(emojis), txn
}

func (p *comparing) VerificationCancelled(_ context.Context, _ id.VerificationTransactionID, code event.VerificationCancelCode, _ string) {
	p.said <- string(code)
}

func (p *comparing) VerificationDone(context.Context, id.VerificationTransactionID, event.VerificationMethod) {
	p.said <- "done"
}
