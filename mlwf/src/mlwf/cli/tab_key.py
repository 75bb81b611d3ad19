"""The Tab key in bash: as click has it, but that a name comes as it must be written there, with spaces, backslashes and `@`."""

from click.shell_completion import BashComplete, split_arg_string

from mlwf.settings import environment

END = "\x01"
# To bash, but within quotes, a word begins at each @: of what is put in the place of the last one, those before it are taken off.
SCRIPT = """\
%(complete_func)s() {
    local type value typed=${COMP_LINE:0:COMP_POINT} word=${COMP_WORDS[COMP_CWORD]}
    while IFS=, read -r type value; do
        if [[ $type == dir ]]; then
            compopt -o dirnames
        elif [[ $type == file ]]; then
            compopt -o default
        elif [[ $type == plain ]]; then
            if [[ $word != [\\"\\']* || ${word:1} == *"${word:0:1}"* ]]; then
                printf -v value %%q "$value"
                local before=${typed##*[[:space:]]} at=
                while [[ $COMP_WORDBREAKS == *@* && $before == *@* ]]; do
                    value=${value#*@} before=${before#*@} at=@
                done
                value=$at$value
            fi
            [[ $value == */ ]] && compopt -o nospace
            COMPREPLY+=("$value")
        fi
    done <<< "$(env COMP_WORDS="$typed" %(complete_var)s=bash_complete "$1")"
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""


class Bash(BashComplete):
    source_template = SCRIPT

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is to be completed, and that one, of the line up to the cursor."""
        words = split_arg_string(environment()["COMP_WORDS"] + END)
        return words[1:-1], words[-1].removesuffix(END)
