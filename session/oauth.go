package session

import (
	"cmp"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"net/http"
	"net/url"

	"maunium.net/go/mautrix/id"

	"github.com/roomkv/roomkv/session/internal/oauth"
)

// OAuthFlow is how a person approves a sign-in.
type OAuthFlow int

const (
	// OAuthBrowser is for a browser on the machine of the bot, which listens on 127.0.0.1 for the browser to come back.
	OAuthBrowser OAuthFlow = iota

	// OAuthPaste is for a browser anywhere. At the end the person copies the address from it.
	OAuthPaste

	// OAuthDeviceCode is for a browser anywhere. The person enters a short code in it. Not every homeserver has it.
	OAuthDeviceCode
)

// OAuth signs in by OAuth 2: a person approves the bot once, in a browser. The bot keeps its tokens in [Config.Dir], and is not approved again.
type OAuth struct {
	Flow OAuthFlow

	// ShowURL gives a person the URL to open, in [OAuthBrowser]. It may open a browser. It returns at once.
	ShowURL func(ctx context.Context, url string) error

	// AskURL gives a person the URL to open, in [OAuthPaste], and returns the address at which their browser has ended. The page there may be missing.
	AskURL func(ctx context.Context, url string) (string, error)

	// ShowCode gives a person the code to enter, in [OAuthDeviceCode]. It returns at once.
	ShowCode func(ctx context.Context, code UserCode) error

	// Redirect is where the browser ends. "" is a free port of 127.0.0.1. In [OAuthPaste] it can be https on the host of ClientURI.
	Redirect string

	// ClientName is what the person is shown. "" is [Config.DeviceName].
	ClientName string

	// ClientURI is an https page about the bot. "" is that of roomkv.
	ClientURI string

	// ClientID is needed only where the homeserver lets no client register itself. Its administrator gives it.
	ClientID string

	// MetadataURL is where the authorization server's metadata is. "" is where the homeserver has it.
	MetadataURL string
}

// UserCode is what a person needs to approve a sign-in by [OAuthDeviceCode].
type UserCode oauth.UserCode

const clientURI = "https://github.com/roomkv/roomkv"

// check finds contradictions.
func (o *OAuth) check() error {
	callbacks := map[OAuthFlow]bool{OAuthBrowser: o.ShowURL != nil, OAuthPaste: o.AskURL != nil, OAuthDeviceCode: o.ShowCode != nil}
	wanted := map[OAuthFlow]string{OAuthBrowser: "OAuth.ShowURL", OAuthPaste: "OAuth.AskURL", OAuthDeviceCode: "OAuth.ShowCode"}
	if _, known := wanted[o.Flow]; !known {
		return errors.New("OAuth.Flow is none of OAuthBrowser, OAuthPaste and OAuthDeviceCode")
	}
	for flow, given := range callbacks {
		if given != (flow == o.Flow) {
			return fmt.Errorf("OAuth.Flow needs %s and no other callback", wanted[o.Flow])
		}
	}
	if o.Flow == OAuthDeviceCode && o.Redirect != "" {
		return errors.New("OAuth.Redirect is not used by OAuthDeviceCode: leave it out")
	}
	for name, address := range map[string]string{"OAuth.Redirect": o.Redirect, "OAuth.ClientURI": o.ClientURI, "OAuth.MetadataURL": o.MetadataURL} {
		if parsed, err := url.Parse(address); address != "" && (err != nil || parsed.Scheme == "") {
			return fmt.Errorf("%s is no URL", name)
		}
	}
	return nil
}

// app is what the authorization server is told of the bot.
func (o *OAuth) app(deviceName string) oauth.App {
	app := oauth.App{Name: cmp.Or(o.ClientName, deviceName), URI: cmp.Or(o.ClientURI, clientURI)}
	if o.Flow != OAuthDeviceCode {
		app.Redirect = cmp.Or(o.Redirect, oauth.DefaultRedirect)
	}
	return app
}

// signIn gets a person to approve a new device of the user, given by its full ID or not at all. homeserver is the URL of the client API.
func (o *OAuth) signIn(ctx context.Context, client *http.Client, homeserver string, user id.UserID, deviceName string) (oauth.Tokens, error) {
	server, err := oauth.Discover(ctx, client, homeserver, o.MetadataURL)
	if err != nil {
		return oauth.Tokens{}, err
	}
	app, who := o.app(deviceName), oauth.Who{ClientID: o.ClientID, Device: newDevice(), User: user}
	if who.ClientID == "" {
		if who.ClientID, err = server.Register(ctx, app); err != nil {
			return oauth.Tokens{}, err
		}
	}
	switch o.Flow {
	case OAuthPaste:
		return server.ByPasting(ctx, who, app.Redirect, o.AskURL)
	case OAuthDeviceCode:
		return server.ByDeviceCode(ctx, who, func(ctx context.Context, code oauth.UserCode) error { return o.ShowCode(ctx, UserCode(code)) })
	}
	return server.ByListening(ctx, who, app.Redirect, o.ShowURL)
}

// deviceLetters is how many random letters a device's ID has after its prefix. The Client-Server API wants at least ten.
const deviceLetters = 12

// newDevice is an ID that no device has.
func newDevice() id.DeviceID { return id.DeviceID("ROOMKV" + rand.Text()[:deviceLetters]) }
