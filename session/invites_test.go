package session

import (
	"context"
	"testing"

	"github.com/stretchr/testify/assert"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/rooms"
)

func TestInvitesPolicy(t *testing.T) {
	invite := rooms.Invite{Room: "!room:other.org", RoomName: "name", Inviter: "@alice:Example.org", Direct: true}
	asked := func(answer bool) func(context.Context, Invite) bool {
		return func(_ context.Context, got Invite) bool {
			assert.Equal(t, Invite(invite), got)
			return answer
		}
	}
	never := func(context.Context, Invite) bool {
		t.Error("Func is asked though a list decides")
		return true
	}
	for name, test := range map[string]struct {
		policy Invites
		want   bool
	}{
		"none":              {Invites{}, false},
		"everybody":         {Invites{Allow: []string{"*"}, Func: never}, true},
		"the user":          {Invites{Allow: []string{"@alice:Example.org"}}, true},
		"another user":      {Invites{Allow: []string{"@bob:example.org"}}, false},
		"the server":        {Invites{Allow: []string{"example.org"}}, true},
		"the room's server": {Invites{Allow: []string{"other.org"}}, false},
		"the room":          {Invites{Allow: []string{"!room:other.org"}}, true},
		"deny wins":         {Invites{Allow: []string{"@alice:Example.org"}, Deny: []string{"example.org"}, Func: never}, false},
		"deny a user":       {Invites{Allow: []string{"*"}, Deny: []string{"@alice:Example.org"}}, false},
		"deny a room":       {Invites{Allow: []string{"*"}, Deny: []string{"!room:other.org"}}, false},
		"deny everybody":    {Invites{Deny: []string{"*"}, Func: never}, false},
		"deny others":       {Invites{Allow: []string{"*"}, Deny: []string{"evil.org"}}, true},
		"the function":      {Invites{Allow: []string{"evil.org"}, Func: asked(true)}, true},
		"the function's no": {Invites{Func: asked(false)}, false},
	} {
		assert.Equal(t, test.want, test.policy.accepts(t.Context(), invite), name)
	}
	for _, entry := range []string{"", "#room:example.org", "@alice", "*.org", "https://example.org", "a b"} {
		assert.ErrorIs(t, Invites{Deny: []string{entry}}.check(), ErrInvalidConfig, entry)
	}
	assert.NoError(t, Invites{Allow: []string{"*", "@a:b.org", "b.org:8448", "!r:b.org", "!31hneApxJ_1o-63DmFrpeqnkFfWppnzWso1JvH3ogLM"}}.check())
}

func TestEnvInvites(t *testing.T) {
	t.Setenv(EnvInvites, "example.org, @alice:other.org")
	t.Setenv(EnvInvitesDeny, "@bob:example.org")
	config, err := FromEnv()
	assert.NoError(t, err)
	assert.Equal(t, Invites{Allow: []string{"example.org", "@alice:other.org"}, Deny: []string{"@bob:example.org"}}, config.Invites)
	assert.Equal(t, id.UserID("@bob:example.org").String(), config.Invites.Deny[0])
}
