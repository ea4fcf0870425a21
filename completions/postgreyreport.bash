# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of postgreyreport(1) for bash.

_postgreyreport() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local options='--summary --by --json --csv --dbdir --greylist-text --help --version'

    COMPREPLY=()
    # bash takes "--option=value" apart at the sign.
    if [[ $word == '=' ]]; then
        word=
    elif [[ $before == '=' ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    case $before in
    --dbdir)
        mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    --by)
        mapfile -t COMPREPLY < <(compgen -W 'hour day week' -- "$word"); return ;;
    --greylist-text)
        return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -o filenames -F _postgreyreport postgreyreport
