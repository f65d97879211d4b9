package oauth

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
)

const deviceCode = `{"device_code":"dc","user_code":"ABCD-EFGH","verification_uri":"https://auth.example.org/link",` +
	`"verification_uri_complete":"https://auth.example.org/link?code=ABCD-EFGH","expires_in":600,"interval":2}`

func no(code string) reply { return reply{status: 400, body: `{"error":"` + code + `"}`} }

func TestDeviceCode(t *testing.T) {
	for _, c := range []struct {
		name    string
		device  string // what the device authorization endpoint answers, if it is not as above
		answers []reply
		err     error
		after   []time.Duration // when the token endpoint is asked, after the code was shown
	}{
		{name: "approved", answers: []reply{no("authorization_pending"), no("authorization_pending"), {status: 200, body: goodTokens}},
			after: []time.Duration{2 * time.Second, 4 * time.Second, 6 * time.Second}},
		{name: "slow_down", answers: []reply{no("slow_down"), no("authorization_pending"), {status: 200, body: goodTokens}},
			after: []time.Duration{2 * time.Second, 9 * time.Second, 16 * time.Second}},
		{name: "denied", answers: []reply{no("authorization_pending"), no("access_denied")}, err: ErrDenied,
			after: []time.Duration{2 * time.Second, 4 * time.Second}},
		{name: "expired, says the server", answers: []reply{no("expired_token")}, err: ErrExpired, after: []time.Duration{2 * time.Second}},
		{name: "expired, says nobody", device: `{"device_code":"dc","user_code":"A","verification_uri":"https://auth.example.org/","expires_in":12}`,
			answers: []reply{no("authorization_pending")}, err: ErrExpired, after: []time.Duration{5 * time.Second, 10 * time.Second}},
		{name: "a server in trouble", answers: []reply{{status: 502}, {err: errors.New("connection refused")}, no("authorization_pending"), {status: 200, body: goodTokens}},
			after: []time.Duration{2 * time.Second, 6 * time.Second, 14 * time.Second, 16 * time.Second}},
		{name: "refused", answers: []reply{no("invalid_grant")}, err: ErrRefused, after: []time.Duration{2 * time.Second}},
		{name: "an unsafe page", device: `{"device_code":"dc","user_code":"A","verification_uri":"http://auth.example.org/"}`, err: ErrInsecure},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s, server := newStub(t)
				if c.device == "" {
					c.device = deviceCode
				}
				s.answers["/device"] = []reply{{status: 200, body: c.device}}
				s.answers["/token"] = c.answers
				start := time.Now()
				tokens, err := server.ByDeviceCode(t.Context(), bot, func(_ context.Context, code UserCode) error {
					if c.device == deviceCode {
						assert.Equal(t, UserCode{URL: "https://auth.example.org/link", FullURL: "https://auth.example.org/link?code=ABCD-EFGH", Code: "ABCD-EFGH",
							Expires: start.Add(10 * time.Minute)}, code)
					}
					return nil
				})
				if c.err != nil {
					require.ErrorIs(t, err, c.err)
				} else {
					require.NoError(t, err)
					assert.Equal(t, "acc", tokens.Access)
				}
				var after []time.Duration
				for _, asked := range s.of("/token") {
					after = append(after, asked.at.Sub(start))
					assert.Equal(t, "dc", asked.form.Get("device_code"))
					assert.Equal(t, "client", asked.form.Get("client_id"))
				}
				assert.Equal(t, c.after, after)
			})
		})
	}
}

func TestDeviceCodeEndsWithContext(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, server := newStub(t)
		s.answers["/device"] = []reply{{status: 200, body: deviceCode}}
		s.answers["/token"] = []reply{no("authorization_pending")}
		ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
		defer cancel()
		_, err := server.ByDeviceCode(ctx, bot, func(context.Context, UserCode) error { return nil })
		assert.ErrorIs(t, err, context.DeadlineExceeded)
	})
}

func TestNoDeviceCode(t *testing.T) {
	_, server := newStub(t)
	server.metadata.DeviceAuthorization = ""
	_, err := server.ByDeviceCode(t.Context(), bot, func(context.Context, UserCode) error { return nil })
	assert.ErrorIs(t, err, ErrUnsupported)
}
