package main

import (
	"github.com/rs/zerolog"
	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// app is one run of the command: what the flags of all verbs say, and who has logged in.
type app struct {
	memory  // of the verbs that are about one
	json    bool
	verbose bool
	started bool // whether a verb has begun

	logins map[string]*login // by profile, or by "token" and the token
}

// The groups in which the help shows the verbs.
const (
	groupValues  = "values"
	groupHistory = "history"
	groupMove    = "move"
	groupAccount = "account"
)

func (a *app) root() *cobra.Command {
	root := &cobra.Command{
		Use:   "roomkv",
		Short: "Read and write a Matrix bot's memory",
		Long: `roomkv reads and writes the memory that a bot keeps in the state of a Matrix room.

It needs to know who you are, and which room:

  export ROOMKV_HOMESERVER=https://matrix.example.org   # or --homeserver
  export ROOMKV_USER=bot                                # or --user
  export ROOMKV_ROOM='#bots:example.org'                # or --room

The first command asks for the password, without showing it. The login is then kept, in a file that only you can
read, until "roomkv logout". Scripts set ROOMKV_PASSWORD or ROOMKV_ACCESS_TOKEN, or name a file with --password-file
or --access-token-file. No password is ever an argument, where other users of the machine could see it.

Where the homeserver has no passwords, "roomkv login --oauth" signs in with a browser.

  roomkv put greeting 'Hello!'
  roomkv get greeting
  roomkv ls

Exit codes: 0 done, 1 error, 2 wrong usage, 3 key not found, 130 interrupted (a watch: 0).
Colour is for terminals only; NO_COLOR=1 turns it off there too.`,
		Version:       version(),
		SilenceErrors: true,
		SilenceUsage:  true,
		PersistentPreRun: func(cmd *cobra.Command, _ []string) {
			a.started = true
			if a.verbose {
				log := zerolog.New(zerolog.NewConsoleWriter(func(w *zerolog.ConsoleWriter) {
					w.Out, w.NoColor = cmd.ErrOrStderr(), !bool(styleFor(cmd.ErrOrStderr()))
				})).With().Timestamp().Logger()
				cmd.SetContext(log.WithContext(cmd.Context()))
			}
		},
	}
	a.memory.register(root.PersistentFlags(), "", globalMemory, globalLogin)
	registerIn(root.PersistentFlags(), globalOutput, func(flags *pflag.FlagSet) {
		flags.BoolVar(&a.json, "json", false, "print JSON, one object a line")
		flags.BoolVarP(&a.verbose, "verbose", "v", false, "show each request on standard error; values are not shown")
	})
	root.SetFlagErrorFunc(flagError)
	root.SetUsageTemplate(usageTemplate)
	root.AddGroup(
		&cobra.Group{ID: groupValues, Title: "Values:"},
		&cobra.Group{ID: groupHistory, Title: "The past:"},
		&cobra.Group{ID: groupMove, Title: "Whole memories:"},
		&cobra.Group{ID: groupAccount, Title: "The login:"},
	)
	root.AddCommand(
		a.getCommand(), a.putCommand(), a.rmCommand(), a.lsCommand(), a.infoCommand(), a.watchCommand(),
		a.historyCommand(), a.restoreCommand(), a.graphCommand(),
		a.exportCommand(), a.importCommand(), a.copyCommand(),
		a.roomsCommand(),
		a.loginCommand(), a.logoutCommand(),
		a.verifyCommand(),
		a.keybackupCommand(),
	)
	completeInBash(root)
	return root
}
