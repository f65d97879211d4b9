package session

import (
	"context"
	"errors"
	"net/http"
	"time"

	"maunium.net/go/mautrix"

	"github.com/roomkv/roomkv/session/internal/folder"
	"github.com/roomkv/roomkv/session/internal/tokens"
)

// Open signs the bot in, or goes on with the session that [Config.Dir] keeps, and sets its encryption up. [Bot.Run] then runs it. Open can be called
// again after any error, and after the process was killed at any moment: it goes on from where it was.
//
// The error is one of this package's where a person must mend something. Others may pass, for example that the homeserver does not answer a bot that has
// signed in before. One that comes again at each start says in its text what to do.
func Open(ctx context.Context, config Config) (*Bot, error) {
	base, err := config.transport()
	if err != nil {
		return nil, err
	}
	return open(ctx, config, base)
}

// open is Open with a transport for all requests.
func open(ctx context.Context, config Config, base http.RoundTripper) (*Bot, error) {
	if err := config.check(); err != nil {
		return nil, err
	}
	config = config.withDefaults()
	files, err := folder.Open(config.Dir)
	if err != nil {
		return nil, fail(ErrInvalidConfig, "Dir: %w", err)
	}
	timed := &bounded{base, config.Timeout}
	signing := &signingIn{config: config, files: files, client: &http.Client{Transport: timed, CheckRedirect: straight}, now: time.Now}
	token, err := signing.signIn(ctx)
	if err != nil {
		return nil, err
	}
	bot, err := newBot(config, files, token)
	if err != nil {
		return nil, err
	}
	bot.base = base
	bot.keep(signing, token)
	bot.receive()
	if config.NoEncryption {
		return bot, nil
	}
	if bot.secured, err = openSecure(ctx, bot); err != nil {
		return nil, errors.Join(err, bot.Close())
	}
	return bot, nil
}

// straight keeps a client from following a redirect with what a request has of secrets, but lets a server's file be elsewhere.
func straight(req *http.Request, via []*http.Request) error {
	if via[0].Method != http.MethodGet || via[0].Header.Get("Authorization") != "" || len(via) >= 10 {
		return http.ErrUseLastResponse
	}
	return nil
}

// retries is how often the client sends a request again, as stores do by themselves. mautrix's encryption does not try again what was limited.
const retries = 3

// newBot makes a bot with a client that has no token yet.
func newBot(config Config, files *folder.Folder, token tokens.Token) (*Bot, error) {
	client, err := mautrix.NewClient(token.Homeserver, token.UserID, "")
	if err != nil {
		return nil, fail(ErrHomeserver, "%s: %w", token.Homeserver, err)
	}
	client.DeviceID = token.DeviceID
	client.Log = config.log()
	client.SyncPresence = config.Presence
	client.DefaultHTTPRetries = retries
	if config.Filter != nil {
		client.Syncer.(*mautrix.DefaultSyncer).FilterJSON = config.Filter
	}
	return &Bot{Client: client, config: config, files: files, closed: make(chan struct{})}, nil
}

// keep hands the session to a keeper, through which the client's requests go. mautrix never has a refresh token, so that it refreshes nothing itself: in v0.32
// that loses sessions.
func (b *Bot) keep(signing *signingIn, token tokens.Token) {
	files := b.files
	if b.config.AccessToken != "" && token.AccessToken == b.config.AccessToken {
		files = folder.InMemory()
	}
	b.keeper = tokens.NewKeeper(tokens.Config{
		Token: token, Files: files, Refresher: tokens.Refreshing(token, signing.client, signing.now), Password: signing.password(), Now: signing.now,
		Log: b.Client.Log, Changed: tokens.Changed(b.Client),
	})
	b.Client.Client = &http.Client{Transport: b.keeper.Transport(signing.client.Transport)}
}
