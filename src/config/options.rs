//! The table of options: what each is called, what value it takes, what it is
//! for, and how the settings show it.
//!
//! The parser, `--help` and `--print-config` are made from this table, and the
//! tests compare the manual page with it, so that an option cannot be known to
//! one of them only.

use std::ffi::OsString;

use super::settings::{Settings, Sync};
use super::show;
use crate::log::Level;
use crate::policy::rules::Lookup;

/// What an option takes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value {
    /// Nothing.
    Flag,
    /// A value, under this name in the manual. It may look like an option.
    Required(&'static str),
    /// A whole number with or without a sign, under this name.
    Integer(&'static str),
    /// Perhaps a value, under this name: the next word unless it begins with
    /// `-`.
    Optional(&'static str),
}

/// The chapter of `--help` and of the manual an option belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Where the server listens.
    Sockets,
    /// How the program runs.
    Process,
    /// Where and how it remembers.
    Storage,
    /// What decides about a triplet.
    Greylisting,
    /// taRgrey.
    Tarpit,
    /// Static and automatic whitelists.
    Whitelists,
    /// What clients and readers of mail see.
    Replies,
    /// What is logged.
    Logging,
    /// Says something and ends.
    Information,
}

impl Group {
    /// All groups, in the order of `--help`.
    pub const ALL: [Group; 9] = [
        Group::Sockets,
        Group::Process,
        Group::Storage,
        Group::Greylisting,
        Group::Tarpit,
        Group::Whitelists,
        Group::Replies,
        Group::Logging,
        Group::Information,
    ];

    /// The heading.
    pub fn title(self) -> &'static str {
        match self {
            Group::Sockets => "Sockets (at least one of --unix and --inet, or --spawn)",
            Group::Process => "Process",
            Group::Storage => "Database",
            Group::Greylisting => "Greylisting",
            Group::Tarpit => "Tarpit",
            Group::Whitelists => "Whitelists",
            Group::Replies => "Replies",
            Group::Logging => "Log",
            Group::Information => "Information",
        }
    }
}

/// An option's identity: what code asks for instead of its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row in OPTIONS")]
pub enum Id {
    Unix,
    Inet,
    Spawn,
    SocketMode,
    ListenQueueSize,
    Exim,
    Daemonize,
    PidFile,
    User,
    Group,
    Workers,
    DbDir,
    DbSize,
    Sync,
    Store,
    StorePasswordFile,
    StoreCaFile,
    StoreCertificateFile,
    StorePrefix,
    StoreTimeout,
    Privacy,
    Compat,
    Delay,
    RetryWindow,
    RetryCount,
    MaxAge,
    LookupBySubnet,
    LookupByHost,
    LookupByDomain,
    PoolDomains,
    Ipv4Cidr,
    Ipv6Cidr,
    MaxNew,
    Tarpit,
    Targrey,
    TarpitPerMessage,
    WhitelistClients,
    WhitelistRecipients,
    WhitelistSenders,
    GreylistRecipients,
    SuspectClients,
    S25r,
    S25rExcept,
    AutoWhitelistClients,
    AutoWhitelistDelay,
    GreylistAction,
    GreylistText,
    XGreylistHeader,
    Hostname,
    NoAction,
    Verbose,
    Quiet,
    SyslogFacility,
    LogStderr,
    LogTime,
    LogTarpit,
    StatsFile,
    Check,
    PrintConfig,
    Help,
    Version,
    Man,
}

/// One row of the table.
#[derive(Debug)]
pub struct OptionSpec {
    /// What code calls it.
    pub id: Id,
    /// Its name, after `--`.
    pub name: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// Other names that mean the same.
    pub aliases: &'static [&'static str],
    /// What it takes.
    pub value: Value,
    /// True if each occurrence counts; otherwise the last one does.
    pub repeats: bool,
    /// Its chapter.
    pub group: Group,
    /// One line for `--help`, without the default.
    pub help: &'static str,
    /// The values that would give this option's part of the settings: one per
    /// occurrence, an empty one for a flag. None if the settings can do
    /// without the option.
    pub show: fn(&Settings) -> Vec<OsString>,
}

impl OptionSpec {
    /// All its names: the main one, the letter, the aliases.
    pub fn names(&self) -> impl Iterator<Item = String> + '_ {
        std::iter::once(self.name.to_owned())
            .chain(self.short.map(String::from))
            .chain(self.aliases.iter().map(|&alias| alias.to_owned()))
    }

    /// The row with this main name, letter or alias.
    pub fn with_name(name: &str) -> Option<&'static OptionSpec> {
        OPTIONS
            .iter()
            .find(|spec| spec.names().any(|own| own == name))
    }

    /// The default as `--help` and the manual show it; `None` for flags and
    /// for options without one.
    pub fn default_text(&self) -> Option<String> {
        if self.id == Id::Hostname {
            // The one default that is not the same everywhere.
            return Some("the name of this host".into());
        }
        let values = (self.show)(&Settings::default());
        if self.value == Value::Flag || values.is_empty() {
            return None;
        }
        let texts: Vec<_> = values.iter().map(|value| value.to_string_lossy()).collect();
        Some(texts.join(", "))
    }
}

const fn flag(
    id: Id,
    name: &'static str,
    group: Group,
    help: &'static str,
    show: fn(&Settings) -> Vec<OsString>,
) -> OptionSpec {
    OptionSpec {
        id,
        name,
        short: None,
        aliases: &[],
        value: Value::Flag,
        repeats: false,
        group,
        help,
        show,
    }
}

const fn valued(
    id: Id,
    name: &'static str,
    value: Value,
    group: Group,
    help: &'static str,
    show: fn(&Settings) -> Vec<OsString>,
) -> OptionSpec {
    OptionSpec {
        id,
        name,
        short: None,
        aliases: &[],
        value,
        repeats: false,
        group,
        help,
        show,
    }
}

const fn with_short(short: char, spec: OptionSpec) -> OptionSpec {
    OptionSpec {
        short: Some(short),
        ..spec
    }
}

const fn with_aliases(aliases: &'static [&'static str], spec: OptionSpec) -> OptionSpec {
    OptionSpec { aliases, ..spec }
}

const fn repeated(spec: OptionSpec) -> OptionSpec {
    OptionSpec {
        repeats: true,
        ..spec
    }
}

/// Information options have no part in the settings.
fn nothing(_: &Settings) -> Vec<OsString> {
    Vec::new()
}

use Value::{Integer, Optional, Required};

/// The table.
#[rustfmt::skip]
pub static OPTIONS: &[OptionSpec] = &[
    repeated(with_short('u', valued(Id::Unix, "unix", Required("PATH"), Group::Sockets,
        "listen on a UNIX socket; may be repeated", show::unix))),
    repeated(with_short('i', valued(Id::Inet, "inet", Required("[HOST:]PORT"), Group::Sockets,
        "listen on a TCP port of localhost, of HOST or (*:PORT) of all; may be repeated", show::inet))),
    flag(Id::Spawn, "spawn", Group::Sockets,
        "serve standard input and output, for spawn(8) of Postfix", |s| show::on(s.spawn)),
    valued(Id::SocketMode, "socketmode", Required("MODE"), Group::Sockets,
        "mode of UNIX sockets, octal", |s| show::text(format!("{:04o}", s.socket_mode))),
    valued(Id::ListenQueueSize, "listen-queue-size", Integer("N"), Group::Sockets,
        "connections that may wait for their turn, at most 999", |s| show::text(s.listen_queue_size)),
    flag(Id::Exim, "exim", Group::Sockets,
        "close the connection after each answer, as Exim expects", |s| show::on(s.exim)),

    with_short('d', flag(Id::Daemonize, "daemonize", Group::Process,
        "go to the background", |s| show::on(s.daemonize))),
    valued(Id::PidFile, "pidfile", Required("PATH"), Group::Process,
        "write the process number of the master to this file", |s| show::path(s.pidfile.as_ref())),
    valued(Id::User, "user", Required("USER"), Group::Process,
        "run as this user (name or number, not root)", |s| show::text(&s.user)),
    valued(Id::Group, "group", Required("GROUP"), Group::Process,
        "run as this group; without it postgrey, nogroup or the user's own", |s| show::maybe(s.group.as_ref())),
    valued(Id::Workers, "workers", Integer("N"), Group::Process,
        "number of worker processes, 1 to 64", |s| show::text(s.workers)),

    valued(Id::DbDir, "dbdir", Required("PATH"), Group::Storage,
        "directory of the database, on a local disk", |s| show::path(Some(&s.dbdir))),
    valued(Id::DbSize, "db-size", Required("SIZE"), Group::Storage,
        "size of its map, which grows when it is full: octets, or with K, M or G; at least 1M", |s| show::text(show::size(s.db_size))),
    valued(Id::Sync, "sync", Required("HOW"), Group::Storage,
        "commit: flush before the answer; none: leave it to the system",
        |s| show::text(match s.sync { Sync::Commit => "commit", Sync::None => "none" })),
    valued(Id::Store, "store", Required("WHERE"), Group::Storage,
        "lmdb: in --dbdir; else an address of Redis or Valkey, which several hosts may share", |s| show::text(show::store(&s.store))),
    valued(Id::StorePasswordFile, "store-password-file", Required("FILE"), Group::Storage,
        "the password for Redis, on one line", |s| show::path(s.store.password_file.as_ref())),
    valued(Id::StoreCaFile, "store-ca-file", Required("FILE"), Group::Storage,
        "who may have signed the certificate of Redis (PEM); without it whom the system trusts", |s| show::path(s.store.ca_file.as_ref())),
    valued(Id::StoreCertificateFile, "store-certificate-file", Required("FILE"), Group::Storage,
        "certificate and key to show to a Redis that asks for them (PEM)", |s| show::path(s.store.certificate_file.as_ref())),
    valued(Id::StorePrefix, "store-prefix", Required("TEXT"), Group::Storage,
        "what all keys in Redis begin with", |s| show::text(&s.store.prefix)),
    valued(Id::StoreTimeout, "store-timeout", Integer("MILLISECONDS"), Group::Storage,
        "how long Redis may take, 50 to 900", |s| show::text(s.store.timeout.as_millis())),
    flag(Id::Privacy, "privacy", Group::Storage,
        "store hashes instead of addresses", |s| show::on(s.rules.privacy)),

    valued(Id::Compat, "compat", Required("VERSION"), Group::Greylisting,
        "rules of targrey-1.37, postgrey-1.37 or targrey-1.34", |s| show::text(s.rules.compat.name())),
    valued(Id::Delay, "delay", Integer("SECONDS"), Group::Greylisting,
        "how long a new triplet is greylisted (0: the default)", |s| show::text(s.rules.delay)),
    valued(Id::RetryWindow, "retry-window", Required("DAYS|HOURSh"), Group::Greylisting,
        "how long a retry is awaited, in days or hours (6h)", |s| show::text(show::window(s.rules.retry_window))),
    valued(Id::RetryCount, "retry-count", Integer("N"), Group::Greylisting,
        "retries after the delay before a triplet passes (0: the default)", |s| show::text(s.rules.retry_count)),
    valued(Id::MaxAge, "max-age", Integer("DAYS"), Group::Greylisting,
        "remove records unused for so long (0: the default)", |s| show::text(s.rules.max_age / 86400.0)),
    flag(Id::LookupBySubnet, "lookup-by-subnet", Group::Greylisting,
        "a client is known by its network (as without this option)", nothing),
    flag(Id::LookupByHost, "lookup-by-host", Group::Greylisting,
        "a client is known by its whole address", |s| show::on(s.rules.lookup == Lookup::Host)),
    flag(Id::LookupByDomain, "lookup-by-domain", Group::Greylisting,
        "a client of a pool is known by its domain, others as without it", |s| show::on(s.rules.by_domain)),
    valued(Id::Ipv4Cidr, "ipv4cidr", Integer("BITS"), Group::Greylisting,
        "length of IPv4 networks, 1 to 32 (0: the default)", |s| show::text(s.rules.ipv4_prefix)),
    valued(Id::Ipv6Cidr, "ipv6cidr", Integer("BITS"), Group::Greylisting,
        "length of IPv6 networks, 1 to 128 (0: the default)", |s| show::text(s.rules.ipv6_prefix)),
    valued(Id::MaxNew, "max-new", Integer("N"), Group::Greylisting,
        "new triplets of a client network that are recorded in an hour (0: all)", |s| show::number(s.rules.max_new)),

    valued(Id::Tarpit, "tarpit", Optional("SECONDS"), Group::Tarpit,
        "let greylisted clients wait, 65 seconds without a value", |s| show::maybe(s.rules.tarpit.as_ref())),
    flag(Id::Targrey, "targrey", Group::Tarpit,
        "greylist only clients that did not wait in the tarpit (125 seconds)", |s| show::on(s.rules.targrey)),
    flag(Id::TarpitPerMessage, "tarpit-per-message", Group::Tarpit,
        "with --targrey hold a mail once: its further recipients pass", |s| show::on(s.rules.tarpit_per_message)),

    repeated(valued(Id::WhitelistClients, "whitelist-clients", Required("FILE"), Group::Whitelists,
        "clients that are never greylisted, with FILE.local; may be repeated", |s| show::paths(&s.whitelist_clients))),
    repeated(valued(Id::WhitelistRecipients, "whitelist-recipients", Required("FILE"), Group::Whitelists,
        "recipients that are never greylisted, with FILE.local; may be repeated", |s| show::paths(&s.whitelist_recipients))),
    repeated(valued(Id::WhitelistSenders, "whitelist-senders", Required("FILE"), Group::Whitelists,
        "senders that are never greylisted, with FILE.local; may be repeated", |s| show::paths(&s.whitelist_senders))),
    repeated(valued(Id::GreylistRecipients, "greylist-recipients", Required("FILE"), Group::Whitelists,
        "greylist these recipients and no others, with FILE.local; may be repeated", |s| show::paths(&s.greylist_recipients))),
    repeated(valued(Id::SuspectClients, "suspect-clients", Required("FILE"), Group::Whitelists,
        "clients that are never auto-whitelisted, with FILE.local; may be repeated", |s| show::paths(&s.suspect_clients))),
    flag(Id::S25r, "s25r", Group::Whitelists,
        "let clients pass whose name does not look like a dial-up line", |s| show::on(s.s25r)),
    repeated(valued(Id::S25rExcept, "s25r-except", Required("FILE"), Group::Whitelists,
        "clients that --s25r judges wrongly, or a table of Postfix for S25R; may be repeated", |s| show::paths(&s.s25r_except))),
    repeated(valued(Id::PoolDomains, "pool-domains", Required("FILE"), Group::Whitelists,
        "domains that --lookup-by-domain takes for pools or not, with FILE.local; may be repeated", |s| show::paths(&s.pool_domains))),
    valued(Id::AutoWhitelistClients, "auto-whitelist-clients", Optional("N"), Group::Whitelists,
        "passes that whitelist a client, 0: never", |s| show::text(show::limit(s.rules.auto_whitelist))),
    valued(Id::AutoWhitelistDelay, "auto-whitelist-delay", Integer("SECONDS"), Group::Whitelists,
        "time between two passes that count (0: the default)", |s| show::text(s.rules.auto_whitelist_delay)),

    valued(Id::GreylistAction, "greylist-action", Required("ACTION"), Group::Replies,
        "what Postfix does with a greylisted recipient", |s| show::text(&s.texts.greylist_action)),
    valued(Id::GreylistText, "greylist-text", Required("TEXT"), Group::Replies,
        "what the client is told; %s: seconds left, %r: domain of the recipient", |s| show::text(&s.texts.greylist_text)),
    valued(Id::XGreylistHeader, "x-greylist-header", Required("TEXT"), Group::Replies,
        "header of mail that passed; %t: seconds, %v: version, %d: date, %h: host", |s| show::text(&s.texts.x_greylist_header)),
    valued(Id::Hostname, "hostname", Required("NAME"), Group::Replies,
        "the host in that header", |s| show::text(&s.texts.hostname)),
    with_short('n', with_aliases(&["no-action"], flag(Id::NoAction, "noaction", Group::Replies,
        "dry run: decide, log and remember, but hold back no mail", |s| show::on(s.noaction)))),

    with_short('v', flag(Id::Verbose, "verbose", Group::Logging,
        "log each connection too", |s| show::on(s.verbosity == Level::Three))),
    with_short('q', flag(Id::Quiet, "quiet", Group::Logging,
        "log warnings and errors only; stronger than --verbose", |s| show::on(s.verbosity == Level::One))),
    with_aliases(&["syslogfacility", "facility"], valued(Id::SyslogFacility, "syslog-facility", Required("NAME"), Group::Logging,
        "facility of syslog(3)", |s| show::text(&s.syslog_facility))),
    flag(Id::LogStderr, "log-stderr", Group::Logging,
        "log to standard error with -d, too", |s| show::on(s.log_stderr)),
    flag(Id::LogTime, "log-time", Group::Logging,
        "begin each line on standard error with the time", |s| show::on(s.log_time)),
    flag(Id::LogTarpit, "log-tarpit", Group::Logging,
        "log who is sent to the tarpit and who passes by waiting", |s| show::on(s.rules.log_tarpit)),
    valued(Id::StatsFile, "stats-file", Required("PATH"), Group::Logging,
        "keep statistics in this file, in the text format of Prometheus", |s| show::path(s.stats_file.as_ref())),

    flag(Id::Check, "check", Group::Information,
        "say what would keep a start from success, and what is worth a note; change nothing", nothing),
    flag(Id::PrintConfig, "print-config", Group::Information,
        "print the options that differ from the defaults", nothing),
    with_short('h', flag(Id::Help, "help", Group::Information, "print this text", nothing)),
    flag(Id::Version, "version", Group::Information, "print the version", nothing),
    flag(Id::Man, "man", Group::Information, "show the manual page", nothing),
];
