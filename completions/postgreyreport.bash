# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of postgreyreport(1) for bash.

_postgreyreport() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local options='--summary --by --json --csv --html --follow --dbdir --greylist-text'
    options+=' --delay --user --show_tries --show_time --skip_clients --match_clients --skip_pool'
    options+=' --separate_by_subnet --separate_by_ip --single_line --nosingle_line --tab --check_sender --skip_dnsbl --help --version'

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
    --user)
        mapfile -t COMPREPLY < <(compgen -u -- "$word"); return ;;
    --html | --skip_clients | --match_clients)
        mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --greylist-text | --delay | --separate_by_* | --check_sender | --skip_dnsbl)
        return ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
    else
        mapfile -t COMPREPLY < <(compgen -f -- "$word")
    fi
}

complete -o filenames -F _postgreyreport postgreyreport
