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
	EnvLeaveEmpty   = "ROOMKV_LEAVE_EMPTY"   // LeaveEmpty, true or false
	EnvOwnMessages  = "ROOMKV_OWN_MESSAGES"  // OwnMessages, true or false
	EnvOldMessages  = "ROOMKV_OLD_MESSAGES"  // OldMessages, true or false
	EnvPresence     = "ROOMKV_PRESENCE"      // Presence: online, unavailable or offline
	EnvProxy        = "ROOMKV_PROXY"         // Proxy
	EnvTimeout      = "ROOMKV_TIMEOUT"       // Timeout, as 90s or 2m
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
	if config.Password != "" && config.AccessToken != "" {
		e.wrong("%s and %s are both set, and one is used", EnvPassword, EnvAccessToken)
	}
	if e.err != nil {
		return Config{}, e.err
	}
	return config, nil
}

// environment reads variables, and has the first error.
type environment struct{ err error }

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
