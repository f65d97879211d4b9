package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"
	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv"
	"github.com/roomkv/roomkv/session"
)

// memory is what the flags say about a memory: which room's, how it is kept there, and who reads it.
type memory struct {
	account
	room            string
	eventType       string
	stateKey        string
	perKey          bool
	shards          int
	encrypt         bool
	secretFile      string
	recoveryKeyFile string
	followUpgrades  bool
	accountData     bool
}

// register adds the flags, under two headings, and with a prefix for one of two memories.
func (m *memory) register(flags *pflag.FlagSet, prefix, memoryHeading, loginHeading string) {
	registerIn(flags, memoryHeading, func(flags *pflag.FlagSet) { m.registerMemory(flags, prefix) })
	registerIn(flags, loginHeading, func(flags *pflag.FlagSet) { m.account.register(flags, prefix) })
}

func (m *memory) registerMemory(flags *pflag.FlagSet, prefix string) {
	flags.StringVar(&m.room, prefix+"room", "", "`ROOM` with the memory: an ID (!…) or an alias (#…) ($"+envRoom+")")
	flags.StringVar(&m.eventType, prefix+"event-type", roomkv.DefaultEventType, "event `TYPE` of the memory; opsdroid's is dev.opsdroid.database")
	flags.BoolVar(&m.perKey, prefix+"per-key", false, "each key is in a state event of its own")
	flags.IntVar(&m.shards, prefix+"shards", 0, "keys are spread over `N` state events")
	flags.StringVar(&m.stateKey, prefix+"state-key", "", "state `KEY` of the event with all keys")
	flags.BoolVar(&m.encrypt, prefix+"encrypt", true, "encrypt values in encrypted rooms")
	flags.StringVar(&m.secretFile, prefix+"sealed-secret-file", "", "`FILE` with the secret of sealed keys (else $"+envSecret+")")
	flags.StringVar(&m.recoveryKeyFile, prefix+"recovery-key-file", "", "`FILE` with the key backup's recovery key (else $"+envRecoveryKey+")")
	flags.BoolVar(&m.followUpgrades, prefix+"follow-upgrades", false, "where the room was upgraded, join its replacement and move the memory there")
	flags.BoolVar(&m.accountData, prefix+"account-data-fallback", false, "where the user may not write to the room's state, use the user's own account data")
}

// open logs in and opens the memory. In an encrypted room it also opens the keys; any other room needs none.
func (a *app) open(ctx context.Context, m *memory) (*opened, error) {
	layout, err := m.layout()
	if err != nil {
		return nil, err
	}
	room := cmp.Or(m.room, os.Getenv(envRoom))
	if room == "" {
		return nil, usagef("which room? Give --room or %s", envRoom)
	}
	if room[0] != '!' && room[0] != '#' {
		return nil, usagef("%q is neither a room ID (!…) nor an alias (#…)", room)
	}
	login, err := a.connect(ctx, m.account, nil)
	if err != nil {
		return nil, err
	}
	roomID, err := resolve(ctx, login.bot.Client, room)
	if err != nil {
		return nil, err
	}
	options := []roomkv.Option{roomkv.WithEventType(m.eventType), roomkv.WithEncryption(m.encrypt), layout}
	if m.followUpgrades {
		options = append(options, roomkv.WithRoomUpgrades())
	}
	if m.accountData {
		options = append(options, roomkv.WithAccountDataFallback())
	}
	secretText, err := secret(envSecret, m.secretFile)
	if err != nil {
		return nil, err
	}
	if secretText != "" {
		options = append(options, roomkv.WithSealedKeys([]byte(secretText)))
	}
	bot, err := a.botFor(ctx, m, login, roomID)
	if err != nil {
		return nil, err
	}
	store, err := bot.Store(roomID.String(), options...)
	if err != nil {
		return nil, err
	}
	return &opened{store, bot, roomID}, nil
}

// botFor is the bot with encryption where the room is encrypted. Without a recovery key that the account asks for, it is the one without where values are not to
// be encrypted.
func (a *app) botFor(ctx context.Context, m *memory, login *login, room id.RoomID) (*session.Bot, error) {
	encrypted, err := isEncrypted(ctx, login.bot.Client, room)
	if err != nil || !encrypted {
		return login.bot, err
	}
	recoveryKey, err := secret(envRecoveryKey, m.recoveryKeyFile)
	if err != nil {
		return nil, err
	}
	bot, err := a.encrypted(ctx, login, recoveryKey, nil)
	login.tellOfKey()
	if errors.Is(err, session.ErrRecoveryKeyNeeded) && !m.encrypt {
		return login.bot, nil
	}
	return bot, err
}

// layout is what the flags say of it. At most one of them is given.
func (m *memory) layout() (roomkv.Option, error) {
	switch {
	case m.perKey && m.shards != 0, m.perKey && m.stateKey != "", m.shards != 0 && m.stateKey != "":
		return nil, usagef("--per-key, --shards and --state-key exclude one another")
	case m.perKey:
		return roomkv.WithPerKeyState(), nil
	case m.shards != 0:
		return roomkv.WithShards(m.shards), nil
	}
	return roomkv.WithSingleStateKey(m.stateKey), nil
}

// opened is a memory that can be used.
type opened struct {
	*roomkv.Store
	bot  *session.Bot
	room id.RoomID
}

func resolve(ctx context.Context, client *mautrix.Client, room string) (id.RoomID, error) {
	if strings.HasPrefix(room, "!") {
		return id.RoomID(room), nil
	}
	resp, err := client.ResolveAlias(ctx, id.RoomAlias(room))
	if err != nil {
		return "", fmt.Errorf("looking for the room %s: %w", room, err)
	}
	return resp.RoomID, nil
}

// isEncrypted tells whether the room needs a crypto store. Where the homeserver does not say, the verb's own request will
// tell why.
func isEncrypted(ctx context.Context, client *mautrix.Client, room id.RoomID) (bool, error) {
	var content event.EncryptionEventContent
	err := client.StateEvent(ctx, room, event.StateEncryption, "", &content)
	switch {
	case errors.Is(err, mautrix.MNotFound), errors.Is(err, mautrix.MForbidden):
		return false, nil
	case err != nil:
		return false, fmt.Errorf("asking whether %s is encrypted: %w", room, err)
	}
	return true, nil
}

// completionTimeout is how long a person waits for the Tab key.
const completionTimeout = 5 * time.Second

// completeKeys offers the keys of the memory to the shell, where the login is complete.
func (a *app) completeKeys(cmd *cobra.Command, _ []string, _ string) ([]string, cobra.ShellCompDirective) {
	const none = cobra.ShellCompDirectiveNoFileComp
	ctx, cancel := context.WithTimeout(cmd.Context(), completionTimeout)
	defer cancel()
	if kept, err := loadProfile(a.memory.profile); err != nil || !kept.kept.SignedIn { // the shell can ask for no password
		return nil, none
	}
	store, err := a.open(ctx, &a.memory)
	if err != nil {
		return nil, none
	}
	keys, _ := store.Keys(ctx)
	return slices.DeleteFunc(keys, func(key string) bool { return !isOffered(key) }), none
}

// activeHelp begins what cobra has the shell print as it is, in place of completing it.
const activeHelp = "_activeHelp_ "

// isOffered tells whether the shell can have a key: one of somebody else's could move the cursor, and cobra cuts one at a tab or a line break.
func isOffered(key string) bool { return oneLine(key) == key && !strings.HasPrefix(key, activeHelp) }
