package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

// noArgs is for a verb that takes none.
func noArgs(_ *cobra.Command, args []string) error {
	if len(args) > 0 {
		return usagef("%q is too much: only flags can stand here", args[0])
	}
	return nil
}

// exactly is for a verb that takes these arguments. The error names the first that is missing.
func exactly(names ...string) cobra.PositionalArgs {
	return func(cmd *cobra.Command, args []string) error {
		if len(args) < len(names) {
			return usagef("%s is missing", names[len(args)])
		}
		return atMost(names...)(cmd, args)
	}
}

// atLeast is for a verb that takes one of these, or more.
func atLeast(name string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) == 0 {
			return usagef("%s is missing", name)
		}
		return nil
	}
}

// atMost is for a verb that takes these arguments, or fewer.
func atMost(names ...string) cobra.PositionalArgs {
	return func(_ *cobra.Command, args []string) error {
		if len(args) > len(names) {
			return usagef("%q is too much: what has spaces needs quotes, and stands for %s", args[len(names)], strings.Join(names, " "))
		}
		return nil
	}
}

// flagError says what can be done about a flag that does not exist: a value that begins with a dash looks like one.
func flagError(_ *cobra.Command, err error) error {
	if at := strings.LastIndex(err.Error(), " in -"); strings.HasPrefix(err.Error(), "unknown shorthand flag") && at >= 0 {
		return usagef("there is no flag %s; put -- before what begins with a dash and is no flag: -- %[1]s", err.Error()[at+len(" in "):])
	}
	return usageError{err}
}

// example is the first line of a verb's examples, without its remark.
func example(verb *cobra.Command) string {
	line, _, _ := strings.Cut(strings.TrimSpace(verb.Example), "\n")
	line, _, _ = strings.Cut(line, "  #")
	return strings.TrimSpace(line)
}

// The headings of flags in the help, in their order.
const (
	ownFlags     = "Flags:"
	sourceMemory = "The source, which memory:"
	sourceLogin  = "The source, which login:"
	targetMemory = "The target, which memory:"
	targetLogin  = "The target, which login:"
	globalMemory = "Global flags, which memory:"
	globalLogin  = "Global flags, which login:"
	globalOutput = "Global flags, the output:"
)

var headings = []string{ownFlags, sourceMemory, sourceLogin, targetMemory, targetLogin, globalMemory, globalLogin, globalOutput}

// flagGroup is the annotation of flags with the heading under which the help shows them.
const flagGroup = "roomkv_group"

// registerIn registers flags under a heading.
func registerIn(flags *pflag.FlagSet, heading string, register func(flags *pflag.FlagSet)) {
	group := pflag.NewFlagSet(heading, pflag.ContinueOnError)
	register(group)
	group.VisitAll(func(flag *pflag.Flag) {
		flag.Annotations = map[string][]string{flagGroup: {heading}}
		flags.AddFlag(flag)
	})
}

// flagHelp shows a verb's own flags first, and then those of each group.
func flagHelp(cmd *cobra.Command) string {
	groups := map[string]*pflag.FlagSet{}
	for _, heading := range headings {
		groups[heading] = pflag.NewFlagSet("", pflag.ContinueOnError)
		groups[heading].SortFlags = false
	}
	add := func(flag *pflag.Flag) {
		heading := ownFlags
		if of := flag.Annotations[flagGroup]; len(of) > 0 {
			heading = of[0]
		}
		groups[heading].AddFlag(flag)
	}
	cmd.LocalFlags().VisitAll(add)
	cmd.InheritedFlags().VisitAll(add)
	var help strings.Builder
	for _, heading := range headings {
		if usages := groups[heading].FlagUsagesWrapped(widthOf(os.Stdout)); usages != "" {
			fmt.Fprintf(&help, "\n%s\n%s", heading, usages)
		}
	}
	return help.String()
}

// usageTemplate is cobra's, but for the flags.
const usageTemplate = `Usage:{{if .Runnable}}
  {{.UseLine}}{{end}}{{if .HasAvailableSubCommands}}
  {{.CommandPath}} [command]{{end}}{{if .HasExample}}

Examples:
{{.Example}}{{end}}{{if .HasAvailableSubCommands}}{{$verbs := .Commands}}{{range $group := .Groups}}

{{.Title}}{{range $verbs}}{{if (and (eq .GroupID $group.ID) .IsAvailableCommand)}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{if not .AllChildCommandsHaveGroup}}

{{if .Groups}}Other commands:{{else}}Commands:{{end}}{{range $verbs}}{{if (and (eq .GroupID "") (or .IsAvailableCommand (eq .Name "help")))}}
  {{rpad .Name .NamePadding}} {{.Short}}{{end}}{{end}}{{end}}{{end}}
{{flagHelp .}}{{if .HasAvailableSubCommands}}
"{{.CommandPath}} [command] --help" explains a command.
{{end}}`

func init() { cobra.AddTemplateFunc("flagHelp", flagHelp) }
