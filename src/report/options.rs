//! The table of options of postgreyreport: what each is called, takes and is for.
//!
//! The parser and `--help` are made from it, and the tests compare the manual page and
//! the completions with it. Names with `_` are those of the original's report.

use std::fmt::Write as _;

/// An option's identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is described by its row in OPTIONS")]
pub enum Id {
    Help,
    Version,
    Summary,
    By,
    Json,
    Csv,
    Html,
    Follow,
    DbDir,
    GreylistText,
    Delay,
    User,
    ShowTries,
    ShowTime,
    SkipClients,
    MatchClients,
    SkipPool,
    SeparateBySubnet,
    SeparateByIp,
    SingleLine,
    NoSingleLine,
    Tab,
    CheckSender,
    SkipDnsbl,
}

/// A row of the table of options.
#[derive(Debug)]
pub struct OptionSpec {
    /// What code calls it.
    pub id: Id,
    /// Its name, after `--`.
    pub name: &'static str,
    /// Another name for it.
    pub alias: Option<&'static str>,
    /// Its letter.
    pub short: Option<char>,
    /// What its value is called; `None` for a flag.
    pub value: Option<&'static str>,
    /// One line for `--help`.
    pub help: &'static str,
}

const fn option(
    id: Id,
    name: &'static str,
    value: Option<&'static str>,
    help: &'static str,
) -> OptionSpec {
    OptionSpec {
        id,
        name,
        alias: None,
        short: None,
        value,
        help,
    }
}

/// The table of options.
#[rustfmt::skip]
pub static OPTIONS: &[OptionSpec] = &[
    OptionSpec { short: Some('h'), ..option(Id::Help, "help", None, "print this text") },
    option(Id::Version, "version", None, "print the version"),
    option(Id::Summary, "summary", None,
        "count requests, delays and who suffers, for each day"),
    option(Id::By, "by", Some("PERIOD"),
        "for each hour, day or week"),
    option(Id::Json, "json", None, "the summary as one JSON object"),
    option(Id::Csv, "csv", None, "the summary as CSV, a line for each period"),
    option(Id::Html, "html", Some("FILE"), "write the summary as a page with charts"),
    option(Id::Follow, "follow", None, "a line a minute while the logs grow"),
    option(Id::DbDir, "dbdir", Some("DIR"), "directory of the database"),
    OptionSpec { alias: Some("return_string"), ..option(Id::GreylistText, "greylist-text", Some("TEXT"),
        "what is in Postfix' lines about greylisted clients: a pattern") },
    option(Id::Delay, "delay", Some("N"), "tell triplets that were not tried again after N seconds"),
    OptionSpec { short: Some('u'), ..option(Id::User, "user", Some("USER"), "read the database as this user") },
    option(Id::ShowTries, "show_tries", None, "with the number of tries"),
    option(Id::ShowTime, "show_time", None, "with the time of the last try"),
    option(Id::SkipClients, "skip_clients", Some("FILE"), "without the clients of this file"),
    option(Id::MatchClients, "match_clients", Some("FILE"), "only the clients of this file"),
    option(Id::SkipPool, "skip_pool", None, "without clients whose name holds the end of their address"),
    option(Id::SeparateBySubnet, "separate_by_subnet", Some("TEXT"), "this text before each network"),
    option(Id::SeparateByIp, "separate_by_ip", Some("TEXT"), "this text before each client"),
    option(Id::SingleLine, "single_line", None, "a line for each triplet, as without this option"),
    OptionSpec { alias: Some("no-single_line"), ..option(Id::NoSingleLine, "nosingle_line", None,
        "a line for each client, and one below it for each of its triplets") },
    option(Id::Tab, "tab", None, "tabs between columns"),
    option(Id::CheckSender, "check_sender", Some("LIST"), "refused: no name server is asked"),
    option(Id::SkipDnsbl, "skip_dnsbl", Some("LIST"), "refused: no name server is asked"),
];

/// The text of `--help`.
pub fn help_text() -> String {
    let mut text = String::from(
        "Usage: postgreyreport [OPTION ...] [LOG ...]\n\n\
         Reads mail logs, or standard input, and tells what greylisting did.\n\n",
    );
    for spec in OPTIONS {
        let short = spec
            .short
            .map_or(String::new(), |short| format!("-{short}, "));
        let value = spec
            .value
            .map_or(String::new(), |value| format!("={value}"));
        let name = format!("{short}--{}{value}", spec.name);
        // Writing to a String cannot fail.
        let _ = match name.len() > 26 {
            true => writeln!(text, "  {name}\n  {:26}  {}", "", spec.help),
            false => writeln!(text, "  {name:26}  {}", spec.help),
        };
    }
    text
}
