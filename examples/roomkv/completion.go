package main

import (
	"fmt"

	"github.com/spf13/cobra"
)

// bashWords stands in for the bash-completion package, whose function of this name cobra's script calls. Bash splits words also at = and : (COMP_WORDBREAKS).
// The function joins them again, and sets the variables cur, prev, words and cword of its caller.
const bashWords = `if ! declare -F _get_comp_words_by_ref >/dev/null; then
    _get_comp_words_by_ref()
    {
        local i word gap before= rest=$COMP_LINE
        words=() cword=0
        for ((i = 0; i < ${#COMP_WORDS[@]}; i++)); do
            word=${COMP_WORDS[i]} gap=${rest%%[![:blank:]]*}
            rest=${rest#"$gap"}
            rest=${rest#"$word"}
            if [[ -n $before && -z $gap && ( $word =~ ^[=:]+$ || $before =~ [=:]$ ) ]]; then
                words[${#words[@]}-1]+=$word
            else
                words+=("$word")
            fi
            ((i == COMP_CWORD)) && cword=$((${#words[@]} - 1))
            before=$word
        done
        cur=${words[cword]} prev=
        ((cword > 0)) && prev=${words[cword-1]}
        return 0
    }
fi
`

// completeInBash makes the script for bash one that needs no package.
func completeInBash(root *cobra.Command) {
	root.InitDefaultCompletionCmd()
	bash, _, err := root.Find([]string{"completion", "bash"})
	if err != nil {
		return // cobra makes none
	}
	bash.Long = `Print what bash needs to complete verbs, flags and keys.

In this shell only:

  source <(roomkv completion bash)

In each new one, once:

  roomkv completion bash >~/.local/share/bash-completion/completions/roomkv   # with the package bash-completion
  echo 'source <(roomkv completion bash)' >>~/.bashrc                          # without it`
	script := bash.RunE
	bash.RunE = func(cmd *cobra.Command, args []string) error {
		if _, err := fmt.Fprint(cmd.OutOrStdout(), bashWords); err != nil {
			return err
		}
		return script(cmd, args)
	}
}
