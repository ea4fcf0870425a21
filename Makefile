# SPDX-License-Identifier: GPL-2.0-or-later
#
# Makefile of postgrey, for every make: POSIX, no GNU syntax.
#
#   make                 build
#   make run             build and try it out, without installing anything
#   make check           run the tests with what is on this machine
#   make check-all       the same on Debian, with all packages the tests can use
#   make check-long      those that take long, too
#   make check-systems   type-check for Solaris, illumos, FreeBSD and NetBSD
#   make check-dist      make dist, licences, and what is made from it: equal programs,
#                        container, RPM
#   make lint            format and clippy
#   make bench           measure
#   make deb             the package for Debian, by cargo-deb
#   make dist            the tarball of a release, with the sources of all crates
#   make install         programs, manual pages, whitelists, Postfix examples,
#                        completions for bash and zsh
#   make install-rc      the init script and its links
#   make install-smf     manifest and method for SMF
#   make install-systemd the unit for systemd
#   make install-cron    a mail with the summary each morning, by cron
#   make install-timer   the same by systemd
#   make install-freebsd on FreeBSD: "install" with its places, and the rc.d script
#   make uninstall       remove all of it but configuration and data
#
# A script or unit of this name that is another's is moved aside, with a word.
#
# The variables below are given on the command line, the same for "make" and
# for "make install": some are built into the programs.

DESTDIR =
PREFIX = /usr/local
SBINDIR = $(PREFIX)/sbin
BINDIR = $(PREFIX)/bin
MANDIR = $(PREFIX)/share/man
DOCDIR = $(PREFIX)/share/doc/postgrey
# Where bash and zsh look for the completions of postgreyctl and postgreyreport.
BASHCOMPDIR = $(PREFIX)/share/bash-completion/completions
ZSHCOMPDIR = $(PREFIX)/share/zsh/site-functions
# The section of administrators' commands: 8, or 1m on Solaris before 11.4.
MANSECT = 8
# Where the whitelists and the S25R table are.
SYSCONFDIR = /etc/postfix
WHITELIST_CLIENTS = $(SYSCONFDIR)/postgrey_whitelist_clients
WHITELIST_RECIPIENTS = $(SYSCONFDIR)/postgrey_whitelist_recipients
POOL_DOMAINS = $(SYSCONFDIR)/postgrey_pools
# Tables of Postfix: about whom it does not ask the server.
CLIENT_TABLE = $(SYSCONFDIR)/whitelist_client
RECIPIENT_TABLE = $(SYSCONFDIR)/whitelist_recipient
# The queue directory of Postfix; the examples have a UNIX socket below it.
QUEUEDIR = /var/spool/postfix
# The database: a local disk, no network file system.
DBDIR = /var/spool/postfix/postgrey
USER = postgrey
GROUP = postgrey
# For install-rc: /etc/default/postgrey, the script, and the rc?.d directories.
DEFAULTDIR = /etc/default
INITDIR = /etc/init.d
RCDIR = /etc
# For install-smf and install-systemd.
SMFDIR = /lib/svc
UNITDIR = /lib/systemd/system
# For install-cron and install-timer.
CRONDIR = /etc/cron.d
MAILLOG = /var/log/mail.log

RCDDIR = $(PREFIX)/etc/rc.d

# The places of FreeBSD, those of its port. On another system the programs for
# it cannot be built.
FREEBSD = SYSCONFDIR=/usr/local/etc/postfix DBDIR=/var/db/postgrey \
	INET=127.0.0.1:10023 SERVICE='sysrc postgrey_enable=YES' \
	GROUPADD='pw groupadd -n $(GROUP)' \
	USERADD='pw useradd -n $(USER) -g $(GROUP) -d /var/db/postgrey -s /usr/sbin/nologin'

# What "make install" shows as next: where the server is to listen, what makes
# it a service, and how a user is made.
INET = 127.0.0.1:60000
SERVICE = make install-rc        (or install-smf, or install-systemd)
GROUPADD = groupadd $(GROUP)
USERADD = useradd -g $(GROUP) -d $(DBDIR) -s /bin/false $(USER)

CARGO = cargo
CARGOFLAGS = --locked

# What is built into the programs.
BUILD_ENV = POSTGREY_SYSCONFDIR='$(SYSCONFDIR)' POSTGREY_DBDIR='$(DBDIR)' \
	POSTGREY_USER='$(USER)' POSTGREY_GROUP='$(GROUP)' \
	POSTGREY_WHITELIST_CLIENTS='$(WHITELIST_CLIENTS)' \
	POSTGREY_WHITELIST_RECIPIENTS='$(WHITELIST_RECIPIENTS)' \
	POSTGREY_POOL_DOMAINS='$(POOL_DOMAINS)'

# Puts this installation's places where the sources have the usual ones.
PLACES = sed -e 's|/usr/local/sbin/|$(SBINDIR)/|g' \
	-e 's|/usr/local/bin/|$(BINDIR)/|g' \
	-e 's|/usr/local/share/man|$(MANDIR)|g' \
	-e 's|/var/log/mail\.log$$|$(MAILLOG)|' \
	-e 's|/var/spool/postfix/postgrey|$(DBDIR)|g' \
	-e 's|/var/spool/postfix/greylist|$(QUEUEDIR)/greylist|g' \
	-e 's|/etc/postfix/whitelist_client|$(CLIENT_TABLE)|g' \
	-e 's|/etc/postfix/whitelist_recipient|$(RECIPIENT_TABLE)|g' \
	-e 's|/etc/postfix/postgrey_whitelist_clients|$(WHITELIST_CLIENTS)|g' \
	-e 's|/etc/postfix/postgrey_whitelist_recipients|$(WHITELIST_RECIPIENTS)|g' \
	-e 's|/etc/postfix/postgrey_pools|$(POOL_DOMAINS)|g' \
	-e 's|/etc/postfix/permit_client_nots25r|$(SYSCONFDIR)/permit_client_nots25r|g' \
	-e 's|/etc/default/postgrey|$(DEFAULTDIR)/postgrey|g' \
	-e 's|/etc/init\.d/postgrey|$(INITDIR)/postgrey|g' \
	-e 's|/lib/svc/method|$(SMFDIR)/method|g' \
	-e 's|user=postgrey |user=$(USER) |g' \
	-e 's|^User=postgrey$$|User=$(USER)|'

# A shell function: what is in the place "$$1" and not from here goes to
# "$$1.old". Ours begin with a line of the licence.
ASIDE = aside() { \
	if test -f "$$1" && ! head -n 3 "$$1" | grep SPDX-License-Identifier >/dev/null; then \
		if test -f "$$1.old"; then \
			echo "$$1 is not ours, and $$1.old is there already:" \
				"move one of them away" >&2; \
			return 1; \
		fi; \
		mv "$$1" "$$1.old" && echo "moved     $$1 to $$1.old: it was not ours" && \
		echo "          (if a package brought it, remove the package:" && \
		echo "          its next upgrade would put it back)"; \
	fi; \
}

# With the crates beside it (make dist) the programs do not depend on where they
# are built: messages of panics name files from here on.
REMAP = if test -d vendor; then \
	RUSTFLAGS="$$RUSTFLAGS --remap-path-prefix=`pwd`=."; \
	CFLAGS="$$CFLAGS -ffile-prefix-map=`pwd`=."; \
	export RUSTFLAGS CFLAGS; \
fi

all:
	@$(REMAP); $(BUILD_ENV) $(CARGO) build --release $(CARGOFLAGS)

run: all
	@sh tests/try.sh

check:
	@sh tests/check.sh

check-all:
	@sh tests/check.sh --install

check-long:
	@sh tests/check.sh --long

check-solaris: check-systems

check-systems:
	@sh tests/systems-check.sh

check-dist:
	@sh tests/dist.sh

lint:
	$(CARGO) fmt --check
	$(CARGO) clippy $(CARGOFLAGS) --all-targets -- -D warnings

bench:
	$(CARGO) bench $(CARGOFLAGS)

deb:
	@sh deb/build.sh

dist:
	@sh dist/dist.sh

clean:
	$(CARGO) clean
	rm -rf var

# Root often has no cargo: what was built before is taken then, if it was built
# for the same places.
build-for-install:
	@if command -v $(CARGO) >/dev/null 2>&1; then \
		$(REMAP); $(BUILD_ENV) $(CARGO) build --release $(CARGOFLAGS); \
	fi
	@built="$${CARGO_TARGET_DIR:-target}/release/postgrey"; \
	test -x "$$built" || { echo "nothing is built: run make first" >&2; exit 1; }; \
	knows=`"$$built" --help`; \
	for place in '$(DBDIR)' '$(WHITELIST_CLIENTS)' '$(WHITELIST_RECIPIENTS)' '$(USER)'; do \
		case $$knows in \
		*"[$$place"*) ;; \
		*) echo "$$built was not built for $$place:" \
			"run make with the same variables first" >&2; exit 1 ;; \
		esac; \
	done

install: build-for-install
	@mkdir -p '$(DESTDIR)$(SBINDIR)' '$(DESTDIR)$(BINDIR)' \
		'$(DESTDIR)$(SYSCONFDIR)' '$(DESTDIR)$(DOCDIR)' \
		'$(DESTDIR)$(BASHCOMPDIR)' '$(DESTDIR)$(ZSHCOMPDIR)'
	@put() { \
		cp "$$1" "$$2.new" && chmod "$$3" "$$2.new" && mv -f "$$2.new" "$$2" && \
		echo "installed $$2"; \
	}; \
	built="$${CARGO_TARGET_DIR:-target}/release"; \
	put "$$built/postgrey" '$(DESTDIR)$(SBINDIR)/postgrey' 755 && \
	put "$$built/postgreyctl" '$(DESTDIR)$(SBINDIR)/postgreyctl' 755 && \
	put "$$built/postgreyreport" '$(DESTDIR)$(BINDIR)/postgreyreport' 755 && \
	for name in postgreyctl postgreyreport; do \
		put completions/$$name.bash '$(DESTDIR)$(BASHCOMPDIR)'/$$name 644 && \
		put completions/_$$name '$(DESTDIR)$(ZSHCOMPDIR)'/_$$name 644 || exit 1; \
	done
	@sect=`echo '$(MANSECT)' | tr m M`; \
	for page in man/*.[1-8] man/ja/*.[1-8]; do \
		name=`basename "$$page" | sed 's/\.8$$/.$(MANSECT)/'`; \
		language=`dirname "$$page" | sed 's/^man//'`; \
		dir='$(DESTDIR)$(MANDIR)'"$$language"/man`echo "$$name" | sed 's/.*\.//'`; \
		mkdir -p "$$dir" && \
		$(PLACES) -e "s/^\(\.TH POSTGREY[A-Z]*\) 8 /\1 $$sect /" \
			-e "s/\(postgrey[a-z]*\)\( *\)(8)/\1\2($$sect)/g" \
			-e "s/\(postgrey[a-z]*\\\\fP\)(8)/\1($$sect)/g" \
			"$$page" >"$$dir/$$name.new" && \
		chmod 644 "$$dir/$$name.new" && \
		mv -f "$$dir/$$name.new" "$$dir/$$name" && \
		echo "installed $$dir/$$name" || exit 1; \
	done
	@keep() { \
		if test -f "$$2"; then \
			echo "kept      $$2"; \
		else \
			mkdir -p `dirname "$$2"` && \
			$(PLACES) "$$1" >"$$2.new" && chmod 644 "$$2.new" && \
			mv -f "$$2.new" "$$2" && echo "installed $$2"; \
		fi; \
	}; \
	keep conf/postgrey_whitelist_clients '$(DESTDIR)$(WHITELIST_CLIENTS)' && \
	keep conf/postgrey_whitelist_recipients '$(DESTDIR)$(WHITELIST_RECIPIENTS)' && \
	keep conf/postgrey_pools '$(DESTDIR)$(POOL_DOMAINS)' && \
	keep conf/permit_client_nots25r '$(DESTDIR)$(SYSCONFDIR)/permit_client_nots25r' && \
	keep conf/whitelist_client '$(DESTDIR)$(CLIENT_TABLE)' && \
	keep conf/whitelist_recipient '$(DESTDIR)$(RECIPIENT_TABLE)'
	@for file in conf/main.cf.example conf/master.cf.example conf/postgrey_whitelist_clients \
		conf/postgrey_whitelist_recipients conf/postgrey_pools conf/permit_client_nots25r \
		conf/whitelist_client conf/whitelist_recipient conf/redis.conf.example \
		rc/postgrey.munin rc/postgrey.rules.yml \
		README.md README.ja.md CHANGELOG.md COPYING; do \
		to='$(DESTDIR)$(DOCDIR)'/`basename "$$file"`; \
		$(PLACES) "$$file" >"$$to.new" && chmod 644 "$$to.new" && \
		mv -f "$$to.new" "$$to" && echo "installed $$to" || exit 1; \
	done
	@echo
	@echo 'Next, as root, unless it is done already:'
	@echo
	@echo '    $(GROUPADD)'
	@echo '    $(USERADD)'
	@echo '    mkdir -p $(DBDIR)'
	@echo '    chown $(USER):$(GROUP) $(DBDIR) && chmod 700 $(DBDIR)'
	@echo '    $(SERVICE)'
	@echo '    $(SBINDIR)/postgrey --check --inet=$(INET)'
	@echo
	@echo 'and in main.cf of Postfix, into the lists that are there, or as they stand'
	@echo '(in front of the server must be reject_unauth_destination):'
	@echo
	@echo '    smtpd_recipient_restrictions = permit_sasl_authenticated, permit_mynetworks,'
	@echo '        reject_unauth_destination,'
	@echo '        check_policy_service { inet:$(INET), timeout=10s, default_action=DUNNO }'
	@echo '    smtpd_data_restrictions = permit_sasl_authenticated, permit_mynetworks,'
	@echo '        check_policy_service { inet:$(INET), timeout=10s, default_action=DUNNO }'
	@echo
	@echo 'The second is for --targrey, which is among the options that install-rc,'
	@echo 'install-smf and install-systemd bring: without it nobody leaves the tarpit.'
	@echo
	@echo 'More: $(DOCDIR)/main.cf.example, man postgrey'

install-rc:
	@mkdir -p '$(DESTDIR)$(INITDIR)' '$(DESTDIR)$(DEFAULTDIR)' \
		'$(DESTDIR)$(RCDIR)/rc0.d' '$(DESTDIR)$(RCDIR)/rc1.d' \
		'$(DESTDIR)$(RCDIR)/rc2.d' '$(DESTDIR)$(RCDIR)/rcS.d'
	@$(ASIDE); to='$(DESTDIR)$(INITDIR)/postgrey'; aside "$$to" && \
	$(PLACES) rc/postgrey >"$$to.new" && chmod 744 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"
	@for link in rc0.d/K36 rc1.d/K36 rcS.d/K36 rc2.d/S88; do \
		to='$(DESTDIR)$(RCDIR)'/$${link}postgrey; \
		rm -f "$$to" && ln -s '$(INITDIR)/postgrey' "$$to" && \
		echo "linked    $$to" || exit 1; \
	done
	@to='$(DESTDIR)$(DEFAULTDIR)/postgrey'; \
	if test -f "$$to"; then \
		echo "kept      $$to"; \
	else \
		$(PLACES) rc/postgrey.default >"$$to.new" && chmod 644 "$$to.new" && \
		mv -f "$$to.new" "$$to" && echo "installed $$to"; \
	fi
	@echo
	@echo 'Next: $(INITDIR)/postgrey start'

install-smf:
	@mkdir -p '$(DESTDIR)$(SMFDIR)/manifest/network' '$(DESTDIR)$(SMFDIR)/method'
	@to='$(DESTDIR)$(SMFDIR)/manifest/network/postgrey.xml'; \
	$(PLACES) smf/postgrey.xml >"$$to.new" && chmod 444 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"
	@to='$(DESTDIR)$(SMFDIR)/method/svc-postgrey'; \
	$(PLACES) smf/svc-postgrey >"$$to.new" && chmod 555 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"
	@echo
	@echo 'Next: svcadm restart manifest-import'
	@echo '      svccfg -s postgrey listprop config'
	@echo '      svcadm enable postgrey'

install-systemd:
	@mkdir -p '$(DESTDIR)$(UNITDIR)' '$(DESTDIR)$(DEFAULTDIR)'
	@$(ASIDE); to='$(DESTDIR)$(UNITDIR)/postgrey.service'; aside "$$to" && \
	$(PLACES) rc/postgrey.service >"$$to.new" && chmod 644 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"
	@to='$(DESTDIR)$(DEFAULTDIR)/postgrey'; \
	if test -f "$$to"; then \
		echo "kept      $$to"; \
	else \
		$(PLACES) rc/postgrey.default >"$$to.new" && chmod 644 "$$to.new" && \
		mv -f "$$to.new" "$$to" && echo "installed $$to"; \
	fi
	@echo
	@echo 'Next: systemctl daemon-reload'
	@echo '      systemctl enable --now postgrey'

install-cron:
	@mkdir -p '$(DESTDIR)$(CRONDIR)'
	@to='$(DESTDIR)$(CRONDIR)/postgreyreport'; \
	$(PLACES) rc/postgreyreport.cron >"$$to.new" && chmod 644 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"

install-timer:
	@mkdir -p '$(DESTDIR)$(UNITDIR)'
	@for unit in postgreyreport.service postgreyreport.timer; do \
		to='$(DESTDIR)$(UNITDIR)'/$$unit; \
		$(PLACES) rc/$$unit >"$$to.new" && chmod 644 "$$to.new" && \
		mv -f "$$to.new" "$$to" && echo "installed $$to" || exit 1; \
	done
	@echo
	@echo 'Next: systemctl daemon-reload'
	@echo '      systemctl enable --now postgreyreport.timer'

# What is given on the command line besides (DESTDIR, USER) counts here, too.
# LMDB is told to use robust mutexes there (ARCHITECTURE.md, Systems).
freebsd:
	@CFLAGS="$$CFLAGS -include `pwd`/rc/lmdb-freebsd.h" make all $(FREEBSD)

install-freebsd:
	@CFLAGS="$$CFLAGS -include `pwd`/rc/lmdb-freebsd.h" make install install-rcd $(FREEBSD)

install-rcd:
	@mkdir -p '$(DESTDIR)$(RCDDIR)'
	@$(ASIDE); to='$(DESTDIR)$(RCDDIR)/postgrey'; aside "$$to" && \
	sed -e 's|/var/db/postgrey|$(DBDIR)|g' \
		-e 's|/usr/local/etc/rc\.d/|$(RCDDIR)/|' rc/postgrey.freebsd | \
	$(PLACES) >"$$to.new" && chmod 555 "$$to.new" && \
	mv -f "$$to.new" "$$to" && echo "installed $$to"
	@echo
	@echo 'At last: service postgrey start'

# Configuration, database and user stay: this may be the first half of an
# upgrade. Directories go if nothing else is in them.
uninstall:
	rm -f '$(DESTDIR)$(SBINDIR)/postgrey' '$(DESTDIR)$(SBINDIR)/postgreyctl' \
		'$(DESTDIR)$(BINDIR)/postgreyreport' \
		'$(DESTDIR)$(BASHCOMPDIR)/postgreyctl' \
		'$(DESTDIR)$(ZSHCOMPDIR)/_postgreyctl' \
		'$(DESTDIR)$(BASHCOMPDIR)/postgreyreport' \
		'$(DESTDIR)$(ZSHCOMPDIR)/_postgreyreport' \
		'$(DESTDIR)$(INITDIR)/postgrey' \
		'$(DESTDIR)$(RCDIR)/rc0.d/K36postgrey' \
		'$(DESTDIR)$(RCDIR)/rc1.d/K36postgrey' \
		'$(DESTDIR)$(RCDIR)/rcS.d/K36postgrey' \
		'$(DESTDIR)$(RCDIR)/rc2.d/S88postgrey' \
		'$(DESTDIR)$(SMFDIR)/manifest/network/postgrey.xml' \
		'$(DESTDIR)$(SMFDIR)/method/svc-postgrey' \
		'$(DESTDIR)$(UNITDIR)/postgrey.service' \
		'$(DESTDIR)$(UNITDIR)/postgreyreport.service' \
		'$(DESTDIR)$(UNITDIR)/postgreyreport.timer' \
		'$(DESTDIR)$(CRONDIR)/postgreyreport' \
		'$(DESTDIR)$(RCDDIR)/postgrey'
	@for page in man/*.[1-8] man/ja/*.[1-8]; do \
		name=`basename "$$page" | sed 's/\.8$$/.$(MANSECT)/'`; \
		language=`dirname "$$page" | sed 's/^man//'`; \
		dir='$(DESTDIR)$(MANDIR)'"$$language"/man`echo "$$name" | sed 's/.*\.//'`; \
		rm -f "$$dir/$$name"; \
	done
	@for file in main.cf.example master.cf.example postgrey_whitelist_clients \
		postgrey_whitelist_recipients postgrey_pools permit_client_nots25r \
		whitelist_client whitelist_recipient redis.conf.example \
		postgrey.munin postgrey.rules.yml \
		README.md README.ja.md CHANGELOG.md COPYING; do \
		rm -f '$(DESTDIR)$(DOCDIR)'/"$$file"; \
	done
	@rmdir '$(DESTDIR)$(DOCDIR)' 2>/dev/null || :
	@echo
	@echo 'A server that runs goes on until its process is ended (the pid file names it).'
	@echo 'Kept: $(WHITELIST_CLIENTS), $(WHITELIST_RECIPIENTS),'
	@echo '      $(POOL_DOMAINS), $(SYSCONFDIR)/permit_client_nots25r,'
	@echo '      $(CLIENT_TABLE), $(RECIPIENT_TABLE), $(DEFAULTDIR)/postgrey,'
	@echo '      the database in $(DBDIR), user $(USER), group $(GROUP)'

# GNU make takes these for names of files otherwise; others ignore it.
.PHONY: all deb dist run check check-all check-long check-solaris check-systems check-dist lint bench clean \
	build-for-install install install-rc install-smf install-systemd freebsd \
	install-freebsd install-rcd install-cron install-timer uninstall
