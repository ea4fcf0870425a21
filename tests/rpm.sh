#!/bin/bash
# SPDX-License-Identifier: GPL-2.0-or-later
#
# rpm.sh TARBALL - rpm/postgrey.spec: the package is built from the tarball of
# "make dist" by rpmbuild, without a network, and its contents and scriptlets are
# compared with what they should be. Not installed: no Fedora is at hand.
set -euo pipefail

tarball=$(realpath "${1:?usage: $0 TARBALL}")
here=$(realpath "$(dirname "$0")/..")

for program in rpmbuild unshare; do
    if ! command -v "$program" >/dev/null; then
        echo "skipped: tests/rpm.sh: no $program on this machine"
        exit 0
    fi
done

top=$(mktemp -d)
trap 'rm -rf "$top"' EXIT
log=$top/log

# shellcheck source=tests/checks.sh
. "$here/tests/checks.sh"

mkdir "$top/SOURCES"
cp "$tarball" "$here"/rpm/postgrey.* "$top/SOURCES"
# As whoever may have no network of his own.
alone=
if [ "$(id -u)" -eq 0 ]; then
    alone='unshare --net'
fi
# shellcheck disable=SC2086
check "it is built without a network" env -u RUSTC_WRAPPER \
    $alone rpmbuild -bb --nodeps --define "_topdir $top" "$here/rpm/postgrey.spec"
[ "$failures" -eq 0 ] || exit 1
package=$(find "$top/RPMS" -name 'postgrey-2*.rpm')

# Mode, owner and name of each file.
cat >"$top/wanted" <<'FILES'
-rw-r--r-- root /etc/postfix/permit_client_nots25r
-rw-r--r-- root /etc/postfix/postgrey_pools
-rw-r--r-- root /etc/postfix/postgrey_whitelist_clients
-rw-r--r-- root /etc/postfix/postgrey_whitelist_recipients
-rw-r--r-- root /etc/postfix/whitelist_client
-rw-r--r-- root /etc/postfix/whitelist_recipient
-rw-r--r-- root /etc/sysconfig/postgrey
-rw-r--r-- root /usr/lib/systemd/system/postgrey.service
-rw-r--r-- root /usr/lib/sysusers.d/postgrey.conf
-rw-r--r-- root /usr/lib/tmpfiles.d/postgrey.conf
-rwxr-xr-x root /usr/bin/postgreyreport
-rwxr-xr-x root /usr/sbin/postgrey
-rwxr-xr-x root /usr/sbin/postgreyctl
-rw-r--r-- root /usr/share/bash-completion/completions/postgreyctl
-rw-r--r-- root /usr/share/bash-completion/completions/postgreyreport
drwxr-xr-x root /usr/share/doc/postgrey
-rw-r--r-- root /usr/share/doc/postgrey/CHANGELOG.md
-rw-r--r-- root /usr/share/doc/postgrey/README.ja.md
-rw-r--r-- root /usr/share/doc/postgrey/README.md
-rw-r--r-- root /usr/share/doc/postgrey/main.cf.example
-rw-r--r-- root /usr/share/doc/postgrey/master.cf.example
-rw-r--r-- root /usr/share/doc/postgrey/permit_client_nots25r
-rw-r--r-- root /usr/share/doc/postgrey/postgrey.munin
-rw-r--r-- root /usr/share/doc/postgrey/postgrey.rules.yml
-rw-r--r-- root /usr/share/doc/postgrey/postgrey_pools
-rw-r--r-- root /usr/share/doc/postgrey/postgrey_whitelist_clients
-rw-r--r-- root /usr/share/doc/postgrey/postgrey_whitelist_recipients
-rw-r--r-- root /usr/share/doc/postgrey/redis.conf.example
-rw-r--r-- root /usr/share/doc/postgrey/whitelist_client
-rw-r--r-- root /usr/share/doc/postgrey/whitelist_recipient
drwxr-xr-x root /usr/share/licenses/postgrey
-rw-r--r-- root /usr/share/licenses/postgrey/COPYING
-rw-r--r-- root /usr/share/man/ja/man8/postgrey.8
-rw-r--r-- root /usr/share/man/man1/postgreyreport.1
-rw-r--r-- root /usr/share/man/man5/postgrey_whitelist.5
-rw-r--r-- root /usr/share/man/man7/s25r.7
-rw-r--r-- root /usr/share/man/man8/postgrey.8
-rw-r--r-- root /usr/share/man/man8/postgreyctl.8
-rw-r--r-- root /usr/share/zsh/site-functions/_postgreyctl
-rw-r--r-- root /usr/share/zsh/site-functions/_postgreyreport
drwxr-x--x postgrey /var/spool/postfix/postgrey
FILES
echo "rpm -qlp:"
rpm -qlp "$package" | sed 's/^/    /'
rpm -qp --qf '[%{FILEMODES:perms} %{FILEUSERNAME} %{FILENAMES}\n]' "$package" |
    sed -e '/\/\.build-id/d' -e 's|\(/man[1-8]/.*\)\.gz$|\1|' \
        -e 's|/licenses/postgrey-2[^/]*|/licenses/postgrey|' | sort -k 3 >"$top/files"
sort -k 3 "$top/wanted" >"$top/sorted"
check "it has these files, and no others" diff "$top/sorted" "$top/files"
rpm -qpc "$package" | sort >"$top/configs"
check "what is below /etc is configuration" \
    diff <(sed -n 's|^.* \(/etc/.*\)|\1|p' "$top/sorted" | sort) "$top/configs"

rpm -qp --scripts "$package" >"$top/scripts"
for words in preinstall postinstall preuninstall postuninstall; do
    check "it has a $words scriptlet" grep "^$words scriptlet (using /bin/sh):" "$top/scripts"
    awk -v words="$words" '/scriptlet \(using/ { on = ($1 == words); next } on' \
        "$top/scripts" >"$top/script"
    check "the $words scriptlet is one of sh" dash -n "$top/script"
    check "shellcheck is silent about it" shellcheck -s sh "$top/script"
done

# The scriptlets with stubs of what they call, at install, upgrade and removal.
mkdir "$top/bin"
for program in systemctl groupadd useradd; do
    # shellcheck disable=SC2016
    printf '#!/bin/sh\necho "${0##*/} $*" >>%s/calls\n' "$top" >"$top/bin/$program"
done
printf '#!/bin/sh\nexit 2\n' >"$top/bin/getent"
chmod 755 "$top/bin"/*
calls() {
    local words=$1 number=$2
    awk -v words="$words" '/scriptlet \(using/ { on = ($1 == words); next } on' \
        "$top/scripts" >"$top/script"
    : >"$top/calls"
    PATH=$top/bin:$PATH sh "$top/script" "$number"
    cat "$top/calls"
}
says() {
    diff <(calls "$1" "$2") <(printf '%b' "$3")
}
check "the user is made" says preinstall 1 \
    'groupadd -r postgrey\nuseradd -r -g postgrey -d /var/spool/postfix/postgrey -s /sbin/nologin postgrey\n'
check "the service is preset" says postinstall 1 'systemctl --no-reload preset postgrey.service\n'
check "an upgrade does not disable it" says preuninstall 1 ''
check "a removal does" says preuninstall 0 'systemctl --no-reload disable --now postgrey.service\n'
check "an upgrade starts it anew" says postuninstall 1 'systemctl try-restart postgrey.service\n'
check "a removal does not" says postuninstall 0 ''

if command -v systemd-analyze >/dev/null; then
    check "the unit is valid" bash -c \
        "systemd-analyze verify --man=no '$here/rpm/postgrey.service' 2>&1 | tee /dev/stderr | { ! grep . ; }"
fi
if command -v rpmlint >/dev/null; then
    check "rpmlint is quiet" rpmlint -r "$here/rpm/postgrey.rpmlintrc" "$package" "$here/rpm/postgrey.spec"
    grep -E '^[^ ]+: [EWI]: ' "$log" | sed 's/^/    /' || :
else
    echo "skipped: rpmlint: no rpmlint on this machine"
fi
summary rpm
