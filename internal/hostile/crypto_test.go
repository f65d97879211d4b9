package hostile_test

import (
	"bytes"
	"context"
	"fmt"
	"testing"

	"github.com/rs/zerolog"
	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/crypto"
	"maunium.net/go/mautrix/crypto/cryptohelper"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
)

// Whoever has forgotten to call Init is told.
func TestCryptoThatIsNotReady(t *testing.T) {
	for _, kind := range []string{"encrypted single", "encrypted perkey"} {
		memory := memories[kind]()
		h := memory.homeserver.copy()
		client, err := h.newClient()
		require.NoError(t, err)
		helper, err := cryptohelper.NewCryptoHelper(client, []byte("of a test"), crypto.NewMemoryStore(nil))
		require.NoError(t, err)
		for _, helper := range []*cryptohelper.CryptoHelper{helper, nil} {
			client.Crypto = helper
			store := open(t, client, memory.options...)
			err = store.Put(t.Context(), "key", "secret")
			require.ErrorIs(t, err, roomkv.ErrNoCrypto)
			assert.ErrorContains(t, err, "Init")
			err = store.Get(t.Context(), "there", new(int))
			require.ErrorIs(t, err, roomkv.ErrUndecryptable)
			assert.ErrorContains(t, err, "Init")
		}
	}
}

// panicky is a Crypto with a fault.
type panicky struct {
	mautrix.CryptoHelper
	with any
}

func (p panicky) fail() {
	if p.with == nil {
		var none *int
		*none = 7
	}
	panic(p.with)
}

func (p panicky) Encrypt(context.Context, id.RoomID, event.Type, any) (*event.EncryptedEventContent, error) {
	p.fail()
	return nil, nil
}

func (p panicky) Decrypt(context.Context, *event.Event) (*event.Event, error) {
	p.fail()
	return nil, nil
}

// Another panic is what it is, without a word of what it was about.
func TestCryptoThatPanics(t *testing.T) {
	for want, with := range map[string]any{"the client's Crypto panicked": "secret", "the client's Crypto panicked: runtime error: invalid memory address": nil} {
		for _, kind := range []string{"encrypted single", "encrypted perkey"} {
			memory := memories[kind]()
			h := memory.homeserver.copy()
			client, err := memory.client(t.Context(), h)
			require.NoError(t, err)
			var log bytes.Buffer
			client.Log = zerolog.New(&log)
			client.Crypto = panicky{client.Crypto, with}
			store := open(t, client, memory.options...)
			put := store.Put(t.Context(), "key", "secret")
			require.Error(t, put)
			require.NotErrorIs(t, put, roomkv.ErrNoCrypto)
			get := store.Get(t.Context(), "there", new(int))
			require.ErrorIs(t, get, roomkv.ErrUndecryptable)
			for _, err := range []error{put, get} {
				assert.ErrorContains(t, err, want)
				assert.NotContains(t, err.Error(), "Init")
				assert.NotContains(t, err.Error(), "secret")
			}
			assert.Contains(t, log.String(), "panicked")
			assert.NotContains(t, log.String(), "secret")
		}
	}
}

// losing is a Crypto whose session a sync takes away between its sharing and its use, so many times.
type losing struct {
	mautrix.CryptoHelper
	times int
}

func (l *losing) Encrypt(ctx context.Context, room id.RoomID, eventType event.Type, content any) (*event.EncryptedEventContent, error) {
	if l.times--; l.times >= 0 {
		return nil, fmt.Errorf("failed to encrypt event after re-sharing group session: %w", crypto.ErrNoGroupSession)
	}
	return l.CryptoHelper.Encrypt(ctx, room, eventType, content)
}

func TestSessionThatIsTakenAway(t *testing.T) {
	for times, want := range map[int]error{1: nil, 1000: crypto.ErrNoGroupSession} {
		memory := memories["encrypted perkey"]()
		client, err := memory.client(t.Context(), memory.homeserver.copy())
		require.NoError(t, err)
		client.Crypto = &losing{client.Crypto, times}
		require.ErrorIs(t, open(t, client, memory.options...).Put(t.Context(), "key", 1), want)
	}
}
