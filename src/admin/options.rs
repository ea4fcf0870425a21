//! The tables of commands and options of postgreyctl: what each is called,
//! takes and is for.
//!
//! The parser and `--help` are made from them, and the tests compare the manual
//! page and the completions of the shells with them.

use std::fmt::Write as _;

/// What postgreyctl does: its first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row in COMMANDS")]
pub enum Command {
    List,
    Explain,
    Add,
    Delete,
    Forget,
    Pass,
    Import,
    Export,
    Expire,
    Compact,
    Backup,
    Verify,
    Stats,
    Dump,
    Config,
    Ping,
    Restore,
}

/// A row of the table of commands.
#[derive(Debug)]
pub struct CommandSpec {
    /// What code calls it.
    pub command: Command,
    /// Its word.
    pub name: &'static str,
    /// Its operands, for the help text.
    pub operands: &'static str,
    /// How many operands it takes at least and at most.
    pub count: (usize, usize),
    /// True if options of the server may follow `--`.
    pub takes_server_options: bool,
    /// One line for `--help`.
    pub help: &'static str,
}

/// An option's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row in OPTIONS")]
pub enum Id {
    DbDir,
    Help,
    Version,
    Client,
    Sender,
    Recipient,
    State,
    Since,
    Sort,
    Limit,
    Count,
    Json,
    ClientAddress,
    ClientName,
    At,
    Request,
    Log,
    From,
    Database,
    DbSize,
    Format,
    Prometheus,
    Escape,
    Verbose,
    Defaults,
    Unix,
    Inet,
    Store,
}

/// A row of the table of options.
#[derive(Debug)]
pub struct OptionSpec {
    /// What code calls it.
    pub id: Id,
    /// Its name, after `--`.
    pub name: &'static str,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; `None` for a flag.
    pub value: Option<&'static str>,
    /// The commands that take it; none: it belongs to all.
    pub commands: &'static [Command],
    /// One line for `--help`.
    pub help: &'static str,
}

const fn command(
    command: Command,
    name: &'static str,
    operands: &'static str,
    count: (usize, usize),
    takes_server_options: bool,
    help: &'static str,
) -> CommandSpec {
    CommandSpec {
        command,
        name,
        operands,
        count,
        takes_server_options,
        help,
    }
}

const fn option(
    id: Id,
    name: &'static str,
    value: Option<&'static str>,
    commands: &'static [Command],
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        id,
        name,
        short: None,
        value,
        commands,
        help,
    }
}

use Command::{
    Add, Backup, Compact, Config, Delete, Dump, Expire, Explain, Export, Forget, Import, List,
    Pass, Ping, Restore, Stats, Verify,
};

/// The table of commands.
#[rustfmt::skip]
pub static COMMANDS: &[CommandSpec] = &[
    command(List, "list", "[greylist|clients|tarpit]", (0, 1), true,
        "show records, their state and what comes next"),
    command(Explain, "explain", "", (0, 0), true,
        "tell what the server answers to a request, and why"),
    command(Add, "add", "client ADDRESS|DOMAIN", (2, 2), true,
        "put a client on the auto-whitelist"),
    command(Delete, "delete", "client ADDRESS|DOMAIN | tarpit ADDRESS | triplet CLIENT SENDER RECIPIENT | triplet KEY", (2, 4), true,
        "remove a record"),
    command(Forget, "forget", "ADDRESS|DOMAIN", (1, 1), true,
        "remove everything about a client"),
    command(Pass, "pass", "SENDER RECIPIENT [ADDRESS|DOMAIN]", (2, 3), true,
        "let a triplet through at its next try"),
    command(Import, "import", "FILE|DIRECTORY|-", (1, 1), true,
        "take in records of the original or of an export"),
    command(Export, "export", "[greylist|clients|tarpit]", (0, 1), true,
        "write all records as text"),
    command(Expire, "expire", "", (0, 0), true,
        "remove expired records now"),
    command(Compact, "compact", "", (0, 0), false,
        "make the database file as small as can be; no server may run"),
    command(Backup, "backup", "FILE|-", (1, 1), false,
        "write a consistent copy of the live database"),
    command(Restore, "restore", "FILE|-", (1, 1), false,
        "put a backup in the place of the database; no server may run"),
    command(Verify, "verify", "[FILE]", (0, 1), true,
        "read everything and say what is not a record"),
    command(Stats, "stats", "", (0, 0), true,
        "count records, space and readers"),
    command(Dump, "dump", "greylist|clients|tarpit", (1, 1), true,
        "print key, tab, value of each record"),
    command(Config, "config", "", (0, 0), false,
        "print the options of the server"),
    command(Ping, "ping", "", (0, 0), false,
        "ask the server whether it answers, and say so as Nagios wants it"),
];

/// The table of options.
#[rustfmt::skip]
pub static OPTIONS: &[OptionSpec] = &[
    option(Id::DbDir, "dbdir", Some("DIR"), &[],
        "directory of the database"),
    OptionSpec { short: Some('h'), ..option(Id::Help, "help", None, &[], "print this text") },
    option(Id::Version, "version", None, &[], "print the version"),
    option(Id::Store, "store", Some("WHERE"), &[],
        "where the records are, as for the server; without it where those of the server are"),
    option(Id::Verbose, "verbose", None, &[],
        "say on standard error by which options of the server it goes"),
    option(Id::Defaults, "defaults", None, &[],
        "go by the defaults and the options after --, not by those of the server"),
    option(Id::Client, "client", Some("ADDRESS|NETWORK|DOMAIN"), &[List],
        "only records of this client, of clients in this network, or of this pool"),
    option(Id::Sender, "sender", Some("PATTERN|ADDRESS"), &[List, Explain],
        "only triplets of this sender (* and ? are wildcards); the sender to explain"),
    option(Id::Recipient, "recipient", Some("PATTERN|ADDRESS"), &[List, Explain],
        "only triplets to this recipient; the recipient to explain"),
    option(Id::State, "state", Some("STATE"), &[List, Explain],
        "list: new, waiting, passed or expired; explain: RCPT or DATA"),
    option(Id::Since, "since", Some("TIME"), &[List],
        "only records last used at this time or later"),
    option(Id::Sort, "sort", Some("[-]KEY"), &[List],
        "order by first, last, count, delay, held or name; - the other way round"),
    option(Id::Limit, "limit", Some("N"), &[List],
        "so many lines of a database at most"),
    option(Id::Count, "count", Some("WHAT"), &[List],
        "count by client, network, domain, sender-domain or recipient"),
    option(Id::Json, "json", None, &[List, Stats],
        "JSON, one object a line"),
    option(Id::ClientAddress, "client-address", Some("ADDRESS"), &[Explain],
        "the client to explain"),
    option(Id::ClientName, "client-name", Some("NAME"), &[Explain, Delete, Forget, Pass],
        "the client's name"),
    option(Id::At, "at", Some("TIME"), &[List, Explain],
        "judge as at this time"),
    option(Id::Request, "request", None, &[Explain],
        "read a policy request from standard input"),
    option(Id::Log, "log", Some("LINE|-"), &[Explain],
        "take the request from this line of a log, or from one on standard input"),
    option(Id::From, "from", Some("VERSION"), &[Import],
        "who wrote the records: postgrey-1.34, postgrey-1.36, postgrey-1.37, targrey-1.34 or targrey-1.37"),
    option(Id::Database, "database", Some("NAME"), &[Import],
        "which database the text is of, if it does not say so"),
    option(Id::DbSize, "db-size", Some("SIZE"), &[Import],
        "size of the map of a database that is made, as for the server"),
    option(Id::Format, "format", Some("FORMAT"), &[Export],
        "db_dump (as db_dump -p), tab or json"),
    option(Id::Prometheus, "prometheus", None, &[Stats],
        "the text format of Prometheus"),
    option(Id::Unix, "unix", Some("PATH"), &[Ping],
        "the UNIX socket to ask at"),
    option(Id::Inet, "inet", Some("[HOST:]PORT"), &[Ping],
        "the port to ask at"),
    option(Id::Escape, "escape", None, &[Dump, Delete],
        "octets that do not print as \\hh, the backslash as \\\\, as db_dump -p has it"),
];

impl CommandSpec {
    /// The row with this word.
    pub fn with_name(name: &str) -> Option<&'static CommandSpec> {
        COMMANDS.iter().find(|spec| spec.name == name)
    }

    /// The line that says how to call it.
    pub fn usage(&self) -> String {
        let mut line = format!("postgreyctl {}", self.name);
        for spec in OPTIONS {
            if spec.commands.contains(&self.command) {
                line.push_str(&match spec.value {
                    Some(value) => format!(" [--{}={value}]", spec.name),
                    None => format!(" [--{}]", spec.name),
                });
            }
        }
        for more in [
            self.operands,
            if self.takes_server_options {
                "[-- OPTION OF postgrey ...]"
            } else {
                ""
            },
        ] {
            if !more.is_empty() {
                line.push(' ');
                line.push_str(more);
            }
        }
        line
    }
}

/// The text of `--help`.
pub fn help_text() -> String {
    let mut text = String::from(
        "Usage: postgreyctl [--dbdir=DIR] COMMAND [OPTION ...] [OPERAND ...] [-- OPTION OF postgrey ...]\n\n\
         See, explain, change and move the database of postgrey; see postgreyctl(8).\n\nCommands:\n",
    );
    // Writing to a String cannot fail.
    for spec in COMMANDS {
        let _ = writeln!(
            text,
            "  {} {}\n{:14}{}",
            spec.name, spec.operands, "", spec.help
        );
    }
    text.push_str("\nOptions:\n");
    for spec in OPTIONS {
        let letter = spec
            .short
            .map_or(String::new(), |letter| format!("-{letter}, "));
        let value = spec
            .value
            .map_or(String::new(), |value| format!("={value}"));
        let names = format!("{letter}--{}{value}", spec.name);
        let of: Vec<&str> = COMMANDS
            .iter()
            .filter(|command| spec.commands.contains(&command.command))
            .map(|command| command.name)
            .collect();
        let of = if of.is_empty() {
            String::new()
        } else {
            format!(" ({})", of.join(", "))
        };
        let _ = writeln!(text, "  {names}\n{:14}{}{of}", "", spec.help);
    }
    let _ = writeln!(
        text,
        "\nThe default of --dbdir is {}.",
        crate::config::paths::DBDIR
    );
    text
}
