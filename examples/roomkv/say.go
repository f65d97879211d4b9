package main

import (
	"regexp"
	"strings"
)

// The library's texts name options of Go, which nobody can give on a command line. These are the flags that stand for them; of two the longer name comes first.
var optionFlags = strings.NewReplacer(
	"Copy the memory to a store WithShards, which has as many state events as you say, or WithPerKeyState, which has one for each key",
	"copy the memory to more state events, with roomkv copy and --to-shards or --to-per-key",
	"move them to a store with WithPerKeyState", "move them with roomkv copy --to-per-key",
	" or by WithMaxValue", "",
	"; give it one (mautrix's cryptohelper), or write", "; write",
	"Copy can take it to a store without WithRoomUpgrades", "roomkv copy can take it to the other room",
	"Copy takes it from a store WithAccountDataFallback", "roomkv copy takes it, with --from-account-data-fallback",
	"WithEncryption(false)", "--encrypt=false",
	"WithRoomUpgrades", "--follow-upgrades",
	"WithAccountDataFallback", "--account-data-fallback",
	"WithSealedKeys", "--sealed-secret-file",
	"WithPerKeyState", "--per-key",
	"WithSingleStateKey", "--state-key",
	"WithShards", "--shards",
	"WithEventType", "--event-type",
	"WithKeyBackup", "--recovery-key-file",
	"ImportReplace", "--replace", "ImportOverwrite", "--overwrite", "CopyOverwrite", "--overwrite", "CopyRedactSource", "--redact-source",
	"Limit takes", "--limit takes",
)

// fields of session.Config, which stand in its texts as words of their own.
var (
	field      = regexp.MustCompile(`\b(User|Homeserver|Password|AccessToken|RecoveryKey|Dir|NoEncryption|Verification)\b`)
	fieldFlags = map[string]string{
		"User": "--user", "Homeserver": "--homeserver", "Password": "--password-file", "AccessToken": "--access-token-file", "RecoveryKey": "--recovery-key-file",
		"Dir": "the profile's folder", "NoEncryption": "--encrypt=false", "Verification": "roomkv verify",
	}
)

// say is the text of an error, in words of the command line.
func say(err error) string {
	text := err.Error()
	if before, found, ok := strings.Cut(text, "session: "); ok {
		text = before + field.ReplaceAllStringFunc(found, func(name string) string { return fieldFlags[name] })
	}
	return optionFlags.Replace(strings.TrimPrefix(text, "roomkv: "))
}
