package roomkvtest_test

import (
	"fmt"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"
	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/roomkvtest"
)

// failing is a test that notes its failures, as a test of a bot would have them.
type failing struct {
	testing.TB
	cleanups []func()
	failures []string
}

func (f *failing) Cleanup(clean func()) { f.cleanups = append(f.cleanups, clean) }
func (f *failing) Errorf(format string, args ...any) {
	f.failures = append(f.failures, fmt.Sprintf(format, args...))
}

// Fatalf implements [testing.TB]. It ends what runs, up to ends.
func (f *failing) Fatalf(format string, args ...any) {
	f.Errorf(format, args...)
	panic(f)
}

// ends runs what is to end the test.
func (f *failing) ends(run func()) {
	defer func() {
		if recover() != f {
			f.failures = append(f.failures, "it goes on")
		}
	}()
	run()
}

// end ends the test.
func (f *failing) end() {
	for len(f.cleanups) > 0 {
		last := len(f.cleanups) - 1
		clean := f.cleanups[last]
		f.cleanups = f.cleanups[:last]
		clean()
	}
}

func TestFailuresOfTheTest(t *testing.T) {
	for _, c := range []struct {
		name string
		want string // a part of the failure, "" for none
		run  func(test *failing, server *roomkvtest.Server)
	}{
		{"nothing", "", func(*failing, *roomkvtest.Server) {}},
		{"a sync that the test ends", "", func(_ *failing, server *roomkvtest.Server) { server.Sync(server.Client("bot")) }},
		{"an unknown request", "GET /_matrix/client/v3/unknown", func(test *failing, server *roomkvtest.Server) {
			bot := server.Client("bot")
			_, err := bot.MakeRequest(test.Context(), http.MethodGet, bot.BuildClientURL("v3", "unknown"), nil, nil)
			require.ErrorIs(test, err, mautrix.MUnrecognized)
		}},
		{"a client that may not sign in", "a client of bot: ", func(test *failing, server *roomkvtest.Server) {
			server.Fail(func(*http.Request) error { return mautrix.MForbidden })
			test.ends(func() { server.Client("bot") })
		}},
		{"a room that cannot be", "a room: ", func(test *failing, server *roomkvtest.Server) {
			bot := server.Client("bot")
			server.Fail(func(*http.Request) error { return mautrix.MForbidden })
			test.ends(func() { server.Room(bot) })
		}},
		{"a client that does not sync", "@bot:example.org does not sync", func(test *failing, server *roomkvtest.Server) {
			test.ends(func() { server.Settle(server.Client("bot")) })
		}},
		{"a sync that cannot begin", "the sync of @bot:example.org has ended", func(test *failing, server *roomkvtest.Server) {
			bot := server.Client("bot")
			server.Fail(func(req *http.Request) error {
				if strings.HasSuffix(req.URL.Path, "/filter") {
					return mautrix.MForbidden
				}
				return nil
			})
			test.ends(func() { server.Sync(bot) })
		}},
		{"a sync that ends by itself", "the sync of @bot:example.org has ended", func(test *failing, server *roomkvtest.Server) {
			bot := server.Client("bot")
			server.Sync(bot)
			_, err := bot.Logout(test.Context())
			require.NoError(test, err)
			synctest.Wait()
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				test := &failing{TB: t}
				c.run(test, roomkvtest.New(test, roomkvtest.Linear))
				test.end()
				if c.want == "" {
					assert.Empty(t, test.failures)
					return
				}
				require.NotEmpty(t, test.failures)
				assert.Contains(t, test.failures[0], c.want)
				assert.NotContains(t, test.failures, "it goes on")
			})
		})
	}
}

func TestFailuresWithoutATest(t *testing.T) {
	assert.PanicsWithValue(t, `roomkvtest: there is no mode "other"`, func() { roomkvtest.New(nil, "other") })
	server := roomkvtest.New(nil, roomkvtest.Forking)
	server.Fail(func(*http.Request) error { return mautrix.MForbidden })
	assert.Panics(t, func() { server.Client("bot") })
}
