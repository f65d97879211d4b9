package hostile_test

import (
	"errors"
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
