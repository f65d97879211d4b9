package session

import (
	"os"
	"strconv"
	"strings"
	"time"

	"maunium.net/go/mautrix/event"
)

// The environment variables that [FromEnv] reads. Those that hold a secret can be files: with _FILE after its name, a variable has the path of a file
// that holds the value, whose last line break does not count.
const (
	EnvHomeserver   = "ROOMKV_HOMESERVER"    // Homeserver
	EnvUser         = "ROOMKV_USER"          // User
	EnvPassword     = "ROOMKV_PASSWORD"      // Password; also _FILE
	EnvAccessToken  = "ROOMKV_ACCESS_TOKEN"  // AccessToken; also _FILE
	EnvRecoveryKey  = "ROOMKV_RECOVERY_KEY"  // RecoveryKey; also _FILE
	EnvPickleKey    = "ROOMKV_PICKLE_KEY"    // PickleKey; also _FILE
	EnvDir          = "ROOMKV_DIR"           // Dir
	EnvDeviceName   = "ROOMKV_DEVICE_NAME"   // DeviceName
	EnvNoEncryption = "ROOMKV_NO_ENCRYPTION" // NoEncryption, true or false
	EnvInvites      = "ROOMKV_INVITES"       // Invites.Allow, with commas or spaces between
	EnvInvitesDeny  = "ROOMKV_INVITES_DENY"  // Invites.Deny, likewise
	EnvLeaveEmpty   = "ROOMKV_LEAVE_EMPTY"   // LeaveEmpty, true or false
	EnvOwnMessages  = "ROOMKV_OWN_MESSAGES"  // OwnMessages, true or false
	EnvOldMessages  = "ROOMKV_OLD_MESSAGES"  // OldMessages, true or false
	EnvPresence     = "ROOMKV_PRESENCE"      // Presence: online, unavailable or offline
	EnvProxy        = "ROOMKV_PROXY"         // Proxy
	EnvTimeout      = "ROOMKV_TIMEOUT"       // Timeout, as 90s or 2m
)

// The environment variables of OAuth. [EnvOAuth] has it used, and the others need that. What a person is shown goes to standard error, and the address that they
// paste is read from standard input. A program can put callbacks of its own in the place of these.
const (
	EnvOAuth            = "ROOMKV_OAUTH"              // OAuth.Flow: browser, paste or device-code
	EnvOAuthClientID    = "ROOMKV_OAUTH_CLIENT_ID"    // OAuth.ClientID
	EnvOAuthClientName  = "ROOMKV_OAUTH_CLIENT_NAME"  // OAuth.ClientName
	EnvOAuthClientURI   = "ROOMKV_OAUTH_CLIENT_URI"   // OAuth.ClientURI
	EnvOAuthRedirect    = "ROOMKV_OAUTH_REDIRECT"     // OAuth.Redirect
	EnvOAuthMetadataURL = "ROOMKV_OAUTH_METADATA_URL" // OAuth.MetadataURL
)

// FromEnv is the configuration that environment variables give: [EnvUser], [EnvPassword] and the others. What they do not name is as in an empty [Config].
// It fails with [ErrInvalidConfig] where a variable cannot be read, or where two contradict each other. What is missing is an error of [Open], so that a
// program can add it.
func FromEnv() (Config, error) {
	var e environment
	config := Config{
		Homeserver:   os.Getenv(EnvHomeserver),
		User:         os.Getenv(EnvUser),
		Password:     e.secret(EnvPassword),
		AccessToken:  e.secret(EnvAccessToken),
		RecoveryKey:  e.secret(EnvRecoveryKey),
		Dir:          os.Getenv(EnvDir),
		DeviceName:   os.Getenv(EnvDeviceName),
		NoEncryption: e.bool(EnvNoEncryption),
		Invites:      Invites{Allow: list(EnvInvites), Deny: list(EnvInvitesDeny)},
		LeaveEmpty:   e.bool(EnvLeaveEmpty),
		OwnMessages:  e.bool(EnvOwnMessages),
		OldMessages:  e.bool(EnvOldMessages),
		Presence:     event.Presence(os.Getenv(EnvPresence)),
		Proxy:        os.Getenv(EnvProxy),
		Timeout:      e.duration(EnvTimeout),
	}
	if key := e.secret(EnvPickleKey); key != "" {
		config.PickleKey = []byte(key)
	}
	config.OAuth = e.oauth()
	for _, both := range [][2]string{{EnvPassword, EnvAccessToken}, {EnvPassword, EnvOAuth}, {EnvAccessToken, EnvOAuth}} {
		if isSet(both[0]) && isSet(both[1]) {
			e.wrong("%s and %s are both set, and one is used", both[0], both[1])
		}
	}
	if e.err != nil {
		return Config{}, e.err
	}
	return config, nil
}

// environment reads variables, and has the first error.
type environment struct{ err error }

// isSet tells whether a variable has a value, or names a file that has it.
func isSet(name string) bool { return os.Getenv(name) != "" || os.Getenv(name+"_FILE") != "" }

// oauth reads the variables of OAuth, nil where [EnvOAuth] is not set.
func (e *environment) oauth() *OAuth {
	o := &OAuth{
		ClientID:    os.Getenv(EnvOAuthClientID),
		ClientName:  os.Getenv(EnvOAuthClientName),
		ClientURI:   os.Getenv(EnvOAuthClientURI),
		Redirect:    os.Getenv(EnvOAuthRedirect),
		MetadataURL: os.Getenv(EnvOAuthMetadataURL),
	}
	person := terminal{os.Stdin, os.Stderr}
	switch flow := os.Getenv(EnvOAuth); flow {
	case "browser":
		o.Flow, o.ShowURL = OAuthBrowser, person.showURL
	case "paste":
		o.Flow, o.AskURL = OAuthPaste, person.askURL
	case "device-code":
		o.Flow, o.ShowCode = OAuthDeviceCode, person.showCode
	case "":
		for _, name := range []string{EnvOAuthClientID, EnvOAuthClientName, EnvOAuthClientURI, EnvOAuthRedirect, EnvOAuthMetadataURL} {
			if isSet(name) {
				e.wrong("%s is set, and %s is not, which says how a person approves the bot: browser, paste or device-code", name, EnvOAuth)
			}
		}
		return nil
	default:
		e.wrong("%s is %q, and none of browser, paste and device-code", EnvOAuth, flow)
	}
	if o.Flow == OAuthDeviceCode && o.Redirect != "" {
		e.wrong("%s is set, and %s is device-code, which needs none", EnvOAuthRedirect, EnvOAuth)
	}
	return o
}

// secret reads a variable, or the file that another one names.
func (e *environment) secret(name string) string {
	value, file := os.Getenv(name), os.Getenv(name+"_FILE")
	switch {
	case file == "":
		return value
	case value != "":
		e.wrong("%s and %s_FILE are both set, and one is used", name, name)
		return ""
	}
	content, err := os.ReadFile(file)
	text := strings.TrimSuffix(strings.TrimSuffix(string(content), "\n"), "\r")
	switch {
	case err != nil:
		e.wrong("%s_FILE: %w", name, err)
	case text == "":
		e.wrong("%s_FILE: %s is empty", name, file)
	}
	return text
}

// list reads a variable with several values, nil where it has none.
func list(name string) []string {
	values := strings.FieldsFunc(os.Getenv(name), func(c rune) bool { return c == ',' || c == ' ' })
	if len(values) == 0 {
		return nil
	}
	return values
}

func (e *environment) bool(name string) bool {
	text := os.Getenv(name)
	if text == "" {
		return false
	}
	value, err := strconv.ParseBool(text)
	if err != nil {
		e.wrong("%s is %q, and neither true nor false", name, text)
	}
	return value
}

func (e *environment) duration(name string) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return 0
	}
	value, err := time.ParseDuration(text)
	if err != nil || value <= 0 {
		e.wrong("%s is %q, and no duration as 90s or 2m", name, text)
	}
	return value
}

// wrong keeps the first error.
func (e *environment) wrong(format string, args ...any) {
	if e.err == nil {
		e.err = fail(ErrInvalidConfig, format, args...)
	}
}
