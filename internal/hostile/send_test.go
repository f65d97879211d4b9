package hostile_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix/crypto"

	"github.com/roomkv/roomkv"
)

// A homeserver can store an encrypted event and not say so, and store another when the event is sent again. Megolm reads each
// ciphertext in one event alone: whoever has read the first would take the second, which the state names, for a replay.
func TestValueIsReadableWhoseAnswerWasLost(t *testing.T) {
	lose := map[string]func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error){
		"no answer": func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error) {
			if _, err := homeserver(req); err != nil {
				return nil, err
			}
			return nil, errors.New("connection reset by the test")
		},
		"502": func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error) {
			if _, err := homeserver(req); err != nil {
				return nil, err
			}
			return &http.Response{StatusCode: http.StatusBadGateway, Request: req, Body: http.NoBody}, nil
		},
	}
	for name, lose := range lose {
		t.Run(name, func(t *testing.T) {
			eachLayout(t, func(t *testing.T, layout roomkv.Option) {
				h := newHomeserver(true)
				keys := crypto.NewMemoryStore(nil)
				client := h.encrypting(t, keys)
				client.DefaultHTTPBackoff = 1
				lost := 0
				h.between = func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error) {
					if strings.Contains(req.URL.Path, "/send/m.room.encrypted/") && lost < 2 {
						lost++
						resp, err := lose(req, homeserver)
						h.forgetTransactions() // as one that was started anew
						return resp, err
					}
					return homeserver(req)
				}
				require.NoError(t, open(t, client, layout).Put(t.Context(), "key", "value"))
				assert.Equal(t, 2, lost)
				assert.Len(t, h.encryptedEvents(), 3)

				h.between = nil
				next := h.encrypting(t, keys)
				for _, evt := range h.encryptedEvents() { // as its sync brings them
					_, err := next.Crypto.Decrypt(t.Context(), evt)
					assert.NoError(t, err, evt.ID)
				}
				var value string
				require.NoError(t, open(t, next, layout).Get(t.Context(), "key", &value))
				assert.Equal(t, "value", value)
			})
		})
	}
}

// Dendrite stores an event twice that it gets twice at the same time, as from a proxy that has lost its patience.
func TestValueIsReadableThatWasStoredTwice(t *testing.T) {
	for named, read := range []int{1, 0} { // which of the two the state names, and which a sync has brought before
		t.Run(fmt.Sprint(named), func(t *testing.T) {
			eachLayout(t, func(t *testing.T, layout roomkv.Option) {
				h := newHomeserver(true)
				keys := crypto.NewMemoryStore(nil)
				client := h.encrypting(t, keys)
				h.between = func(req *http.Request, homeserver func(*http.Request) (*http.Response, error)) (*http.Response, error) {
					if !strings.Contains(req.URL.Path, "/send/m.room.encrypted/") {
						return homeserver(req)
					}
					body, err := io.ReadAll(req.Body)
					require.NoError(t, err)
					var answers [2]*http.Response
					for i := range answers {
						req.Body = io.NopCloser(bytes.NewReader(body))
						answers[i], err = homeserver(req)
						require.NoError(t, err)
						h.forgetTransactions()
					}
					return answers[named], nil
				}
				require.NoError(t, open(t, client, layout).Put(t.Context(), "key", "value"))
				h.between = nil

				next := h.encrypting(t, keys)
				events := h.encryptedEvents()
				require.Len(t, events, 2)
				_, err := next.Crypto.Decrypt(t.Context(), events[read])
				require.NoError(t, err)
				var value string
				require.NoError(t, open(t, next, layout).Get(t.Context(), "key", &value))
				assert.Equal(t, "value", value)
			})
		})
	}
}

// What nobody sent twice is not read in place of what the key does not decrypt.
func TestOthersAreNotTakenForTheSame(t *testing.T) {
	h := newHomeserver(true)
	keys := crypto.NewMemoryStore(nil)
	client := h.encrypting(t, keys)
	store := open(t, client)
	require.NoError(t, store.Put(t.Context(), "one", 1))
	require.NoError(t, store.Put(t.Context(), "two", 2))
	h.change(h.encryptedEvents()[1].ID, func(content string) string {
		return strings.Replace(content, `"ciphertext":"AwgB`, `"ciphertext":"AwgC`, 1)
	})
	next := open(t, h.encrypting(t, keys))
	require.ErrorIs(t, next.Get(t.Context(), "two", new(int)), roomkv.ErrUndecryptable)
	require.NoError(t, next.Get(t.Context(), "one", new(int)))
}
