package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strconv"

	"github.com/spf13/cobra"
	"maunium.net/go/mautrix"
	"maunium.net/go/mautrix/event"

	"github.com/roomkv/roomkv/session"
)

func (a *app) keybackupCommand() *cobra.Command {
	cmd := &cobra.Command{
		Use:     "keybackup",
		Short:   "Set up the backup of encryption keys, or look at it",
		GroupID: groupAccount,
		Long: `The key backup keeps the keys of encrypted values on the homeserver, encrypted with the account's recovery key. With that, a new login reads
what an earlier one has written.`,
		Example: `  roomkv keybackup status
  roomkv keybackup setup
  roomkv keybackup save-all --recovery-key-file /mnt/safe/recovery-key`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return usagef("what about the key backup? Name setup, save-all or status")
		},
	}
	cmd.AddCommand(a.keybackupSetup(), a.keybackupSaveAll(), a.keybackupStatus())
	return cmd
}

func (a *app) keybackupSetup() *cobra.Command {
	return &cobra.Command{
		Use:   "setup",
		Short: "Set up the key backup where the account has none",
		Long: `Set up what the account lacks: cross-signing, secret storage and a key backup, all with one recovery key. This login is signed with it.

A new recovery key is printed, and kept in the profile, where later commands find it. Write it down: it is what remains when this computer is lost. Where
the account has secret storage already, give its recovery key. What is there stays.`,
		Example: `  roomkv keybackup setup
  roomkv keybackup setup --recovery-key-file /mnt/safe/recovery-key   # the account has secret storage already`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			login, bot, err := a.withBackup(cmd)
			if err != nil {
				return err
			}
			version := bot.Backup().Version().String()
			made, err := readKey(login.recoveryFile())
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(setUp{bot.Client.UserID.String(), version, made})
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "%s has key backup %s, and this login is signed.\n", oneLine(bot.Client.UserID.String()), oneLine(version))
			if made == "" {
				return nil
			}
			fmt.Fprintln(cmd.ErrOrStderr(), "This is the recovery key. Write it down, and keep it in another place:")
			_, err = fmt.Fprintln(cmd.OutOrStdout(), made)
			return err
		},
	}
}

// setUp is what --json prints of a set-up. The recovery key is missing where somebody else has made it.
type setUp struct {
	User        string `json:"user"`
	Version     string `json:"version"`
	RecoveryKey string `json:"recovery_key,omitempty"`
}

func (a *app) keybackupSaveAll() *cobra.Command {
	return &cobra.Command{
		Use:     "save-all",
		Short:   "Save all keys of this login to the key backup",
		Long:    `Save every key that this login has and the key backup has not: for values from before there was a backup, and after the backup was made anew.`,
		Example: "  roomkv keybackup save-all",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			login, bot, err := a.withBackup(cmd)
			if err != nil {
				return err
			}
			login.tellOfKey()
			saved, err := bot.Backup().SaveAll(cmd.Context())
			if a.json {
				return errors.Join(json.NewEncoder(cmd.OutOrStdout()).Encode(map[string]int{"saved": saved}), err)
			}
			fmt.Fprintf(cmd.ErrOrStderr(), "Saved %s.\n", count(saved, "key"))
			return err
		},
	}
}

func (a *app) keybackupStatus() *cobra.Command {
	return &cobra.Command{
		Use:   "status",
		Short: "Show whether there is a key backup, and what is in it",
		Long: `Show the account's key backup, how many keys are in it, and whether the account has secret storage. Nothing is changed. Where there is a
recovery key, given or in the profile, it shows whether that opens the backup.`,
		Example: "  roomkv keybackup status\n  roomkv keybackup status --json | jq .keys",
		Args:    noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			status, err := a.backupStatus(cmd)
			if err != nil {
				return err
			}
			if a.json {
				return json.NewEncoder(cmd.OutOrStdout()).Encode(status)
			}
			table := newTable(cmd.OutOrStdout(), "ACCOUNT", oneLine(status.User))
			if status.Version == "" {
				table.row("KEY BACKUP", "none; roomkv keybackup setup makes one")
			} else {
				table.row("KEY BACKUP", oneLine(status.Version))
				table.row("KEYS", strconv.Itoa(status.Keys))
			}
			table.row("SECRET STORAGE", yesNo(status.SecretStorage))
			switch {
			case status.Opens == nil:
				table.row("RECOVERY KEY", "not given")
			case *status.Opens:
				table.row("RECOVERY KEY", "opens the backup")
			default:
				table.row("RECOVERY KEY", "is not that of this account")
			}
			return table.print()
		},
	}
}

// backupStatus is what --json prints of the status.
type backupStatus struct {
	User          string `json:"user"`
	Version       string `json:"version,omitempty"` // "" where there is no backup
	Keys          int    `json:"keys"`
	SecretStorage bool   `json:"secret_storage"`
	Opens         *bool  `json:"recovery_key_opens,omitempty"` // nil where there is no recovery key
}

func (a *app) backupStatus(cmd *cobra.Command) (status backupStatus, err error) {
	ctx := cmd.Context()
	login, err := a.connect(ctx, a.account, nil)
	if err != nil {
		return status, err
	}
	client := login.bot.Client
	status.User = client.UserID.String()
	version, err := client.GetKeyBackupLatestVersion(ctx)
	switch {
	case err == nil:
		status.Version, status.Keys = version.Version.String(), version.Count
	case !errors.Is(err, mautrix.MNotFound):
		return status, fmt.Errorf("asking for the key backup: %w", err)
	}
	var storage struct {
		Key string `json:"key"`
	}
	err = client.GetAccountData(ctx, event.AccountDataSecretStorageDefaultKey.Type, &storage)
	if err != nil && !errors.Is(err, mautrix.MNotFound) {
		return status, fmt.Errorf("asking for secret storage: %w", err)
	}
	status.SecretStorage = storage.Key != ""
	recoveryKey, err := secret(envRecoveryKey, a.recoveryKeyFile)
	if err != nil {
		return status, err
	}
	if kept, err := readKey(login.recoveryFile()); err != nil {
		return status, err
	} else if recoveryKey == "" && kept == "" || status.Version == "" || !status.SecretStorage {
		return status, nil // opening it would set up what is missing
	}
	_, err = a.encrypted(ctx, login, recoveryKey, nil)
	opens := err == nil
	if opens || errors.Is(err, session.ErrWrongRecoveryKey) {
		status.Opens, err = &opens, nil
	}
	return status, err
}

// withBackup logs in and opens the key backup, which is set up where there is none.
func (a *app) withBackup(cmd *cobra.Command) (*login, *session.Bot, error) {
	recoveryKey, err := secret(envRecoveryKey, a.recoveryKeyFile)
	if err != nil {
		return nil, nil, err
	}
	login, err := a.connect(cmd.Context(), a.account, nil)
	if err != nil {
		return nil, nil, err
	}
	bot, err := a.encrypted(cmd.Context(), login, recoveryKey, nil)
	return login, bot, err
}

// readKey reads a recovery key that package session has made, "" where there is none.
func readKey(name string) (string, error) {
	if _, err := os.Stat(name); errors.Is(err, os.ErrNotExist) {
		return "", nil
	}
	return secret("", name)
}
