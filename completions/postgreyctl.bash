# SPDX-License-Identifier: GPL-2.0-or-later
# Completion of postgreyctl(8) for bash.

_postgreyctl() {
    local word=${COMP_WORDS[COMP_CWORD]} before=${COMP_WORDS[COMP_CWORD-1]}
    local commands='list explain add delete forget pass import export expire compact backup restore verify stats dump config ping'
    local databases='greylist clients tarpit' options='--dbdir --store --verbose --defaults --help --version'
    local command='' count=0 i

    COMPREPLY=()
    # bash takes "--option=value" apart at the sign, and a URL at its colons.
    if [[ $word == '=' ]]; then
        word=
    elif [[ $before == '=' ]]; then
        before=${COMP_WORDS[COMP_CWORD-2]}
    fi
    for ((i = 1; i < COMP_CWORD; i++)); do
        case ${COMP_WORDS[i]} in
        --)
            # The rest is for postgrey.
            return ;;
        =|:*)
            ((i++)) ;;
        --dbdir|--store)
            [[ ${COMP_WORDS[i+1]} == '=' ]] || ((i++)) ;;
        -*) ;;
        *)
            if [[ -z $command ]]; then
                command=${COMP_WORDS[i]}
            else
                ((count++))
            fi ;;
        esac
    done

    case $before in
    --dbdir)
        mapfile -t COMPREPLY < <(compgen -d -- "$word"); return ;;
    --store)
        mapfile -t COMPREPLY < <(compgen -W 'lmdb redis:// rediss:// redis+unix:// redis-cluster:// rediss-cluster://' -- "$word"); return ;;
    --state)
        case $command in
        explain) mapfile -t COMPREPLY < <(compgen -W 'RCPT DATA' -- "$word") ;;
        *) mapfile -t COMPREPLY < <(compgen -W 'new waiting passed expired' -- "$word") ;;
        esac
        return ;;
    --from)
        mapfile -t COMPREPLY < <(compgen -W 'postgrey-1.34 postgrey-1.36 postgrey-1.37 targrey-1.34 targrey-1.37' -- "$word"); return ;;
    --sort)
        mapfile -t COMPREPLY < <(compgen -W 'first last count delay held name -first -last -count -delay -held -name' -- "$word"); return ;;
    --count)
        mapfile -t COMPREPLY < <(compgen -W 'client network domain sender-domain recipient' -- "$word"); return ;;
    --format)
        mapfile -t COMPREPLY < <(compgen -W 'db_dump tab json' -- "$word"); return ;;
    --database)
        mapfile -t COMPREPLY < <(compgen -W "$databases" -- "$word"); return ;;
    --unix)
        mapfile -t COMPREPLY < <(compgen -f -- "$word"); return ;;
    --inet|--client|--sender|--recipient|--since|--limit|--at|--client-address|--client-name|--log|--db-size)
        return ;;
    esac

    case $command in
    list) options+=' --client --sender --recipient --state --since --at --sort --limit --count --json' ;;
    explain) options+=' --client-address --client-name --sender --recipient --state --at --request --log' ;;
    delete) options+=' --client-name --escape' ;;
    forget|pass) options+=' --client-name' ;;
    import) options+=' --from --database --db-size' ;;
    export) options+=' --format' ;;
    stats) options+=' --json --prometheus' ;;
    dump) options+=' --escape' ;;
    ping) options+=' --unix --inet' ;;
    esac
    if [[ $word == -* ]]; then
        mapfile -t COMPREPLY < <(compgen -W "$options" -- "$word")
        return
    fi
    case $command in
    '') mapfile -t COMPREPLY < <(compgen -W "$commands" -- "$word") ;;
    list|export|dump) [[ $count -eq 0 ]] && mapfile -t COMPREPLY < <(compgen -W "$databases" -- "$word") ;;
    add) [[ $count -eq 0 ]] && mapfile -t COMPREPLY < <(compgen -W 'client' -- "$word") ;;
    delete) [[ $count -eq 0 ]] && mapfile -t COMPREPLY < <(compgen -W 'client triplet tarpit' -- "$word") ;;
    import|backup|restore|verify) mapfile -t COMPREPLY < <(compgen -f -- "$word") ;;
    esac
}

complete -o filenames -F _postgreyctl postgreyctl
