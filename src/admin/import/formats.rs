//! The texts that `import` reads: of `db_dump` and `mdb_dump` in both
//! encodings, of `dump --escape` and `export`.
//!
//! A reader hands each record to a [`Sink`] and stops at the first thing that
//! does not belong into such a text.

use std::io::BufRead;

use super::lines::{Lines, Wrong};
use crate::admin::escape::{escaped, unescape, unhex};
use crate::admin::records::database_with_name;
use crate::policy::record::Database;

/// Lines of one header.
const MAX_HEADER: u64 = 100;

/// Where records go.
pub trait Sink {
    /// A database begins; `None`: the text does not say which.
    fn begin(&mut self, database: Option<Database>) -> Result<(), String>;
    /// A record of the last database that began.
    fn record(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), String>;
}

/// Reads a text of any format; its first line tells which.
pub fn read_text(reader: impl BufRead, sink: &mut dyn Sink) -> Result<(), Wrong> {
    let mut lines = Lines::new(reader);
    if !lines.advance()? {
        return Err(lines.wrong("the text is empty"));
    }
    let line = lines.line();
    if line.starts_with(b"VERSION=") {
        read_db_dump(&mut lines, sink)
    } else if line.starts_with(b"{") {
        read_json(&mut lines, sink)
    } else if line.contains(&b'\t') {
        read_tab(&mut lines, sink)
    } else {
        Err(lines.wrong("neither a text of db_dump nor one of postgreyctl dump --escape or export"))
    }
}

/// `name=value` lines, `HEADER=END`, keys and values in turns after a blank
/// each, `DATA=END`; perhaps again.
fn read_db_dump<R: BufRead>(lines: &mut Lines<R>, sink: &mut dyn Sink) -> Result<(), Wrong> {
    let mut key: Vec<u8> = Vec::new();
    loop {
        let (decode, database) = read_header(lines)?;
        sink.begin(database).map_err(|why| lines.wrong(why))?;
        let mut has_key = false;
        loop {
            if !lines.advance()? || !lines.is_whole {
                return Err(lines.wrong("cut off: the text ends before DATA=END"));
            }
            if lines.line() == b"DATA=END" {
                break;
            }
            let Some(text) = lines.line().strip_prefix(b" ") else {
                return Err(lines.wrong("not a line of data: it does not begin with a blank"));
            };
            let octets = decode(text).map_err(|why| lines.wrong(why))?;
            if has_key {
                sink.record(lines.number() - 1, &key, &octets)
                    .map_err(|why| lines.wrong(why))?;
            } else {
                key = octets;
            }
            has_key = !has_key;
        }
        if has_key {
            return Err(lines.wrong("the last key has no value"));
        }
        if !lines.advance()? {
            return Ok(());
        }
    }
}

type Decode = fn(&[u8]) -> Result<Vec<u8>, &'static str>;

/// Reads a header whose first line has been read.
fn read_header<R: BufRead>(lines: &mut Lines<R>) -> Result<(Decode, Option<Database>), Wrong> {
    let first = lines.number();
    let (mut decode, mut database): (Option<Decode>, _) = (None, None);
    loop {
        // Parts of it are shown to the administrator.
        let line = escaped(lines.line());
        let is_first = lines.number() == first;
        match line.split_once('=') {
            Some(("HEADER", "END")) if !is_first => break,
            Some(("VERSION", version)) if is_first => {
                if !["1", "2", "3"].contains(&version) {
                    return Err(lines.wrong(format!("version {version} is unknown")));
                }
            }
            Some(_) if is_first => return Err(lines.wrong("VERSION= is missing")),
            Some(("format", "print")) => decode = Some(unescape),
            Some(("format", "bytevalue")) => decode = Some(unhex),
            Some(("format", format)) => {
                return Err(lines.wrong(format!("format {format} is unknown")));
            }
            Some(("type", "btree" | "hash")) => {}
            Some(("type", kind)) => {
                return Err(lines.wrong(format!("a {kind} is no database of postgrey")));
            }
            Some(("keys", "0")) => return Err(lines.wrong("the keys were left out")),
            Some(("database" | "subdatabase", name)) => {
                let found = database_with_name(name.as_bytes());
                database =
                    Some(found.map_err(|_| {
                        lines.wrong(format!("\"{name}\" is no database of postgrey"))
                    })?);
            }
            Some(_) => {}
            None => return Err(lines.wrong("not a line of a header")),
        }
        if lines.number() - first > MAX_HEADER {
            return Err(lines.wrong("the header has no end"));
        }
        if !lines.advance()? {
            return Err(lines.wrong("cut off: the text ends before HEADER=END"));
        }
    }
    let decode = decode.ok_or_else(|| lines.wrong("the header names no format"))?;
    Ok((decode, database))
}

/// `[DATABASE TAB] KEY TAB VALUE`, escaped.
fn read_tab<R: BufRead>(lines: &mut Lines<R>, sink: &mut dyn Sink) -> Result<(), Wrong> {
    let columns = lines.line().split(|&octet| octet == b'\t').count();
    if columns == 2 {
        sink.begin(None).map_err(|why| lines.wrong(why))?;
    }
    loop {
        if !lines.is_whole {
            return Err(lines.wrong("cut off: the line has no end"));
        }
        let fields: Vec<&[u8]> = lines.line().split(|&octet| octet == b'\t').collect();
        let (key, value) = match fields[..] {
            [key, value] if columns == 2 => (key, value),
            [name, key, value] if columns == 3 => {
                let database =
                    database_with_name(name).map_err(|failure| lines.wrong(failure.message))?;
                sink.begin(Some(database)).map_err(|why| lines.wrong(why))?;
                (key, value)
            }
            _ => return Err(lines.wrong("not [DATABASE tab] KEY tab VALUE")),
        };
        let key = unescape(key).map_err(|why| lines.wrong(why))?;
        let value = unescape(value).map_err(|why| lines.wrong(why))?;
        sink.record(lines.number(), &key, &value)
            .map_err(|why| lines.wrong(why))?;
        if !lines.advance()? {
            return Ok(());
        }
    }
}

/// An object a line: `{"database":...,"key":...,"value":...}`, key and value
/// escaped.
fn read_json<R: BufRead>(lines: &mut Lines<R>, sink: &mut dyn Sink) -> Result<(), Wrong> {
    let mut present = None;
    loop {
        let object: serde_json::Value = serde_json::from_slice(lines.line())
            .map_err(|error| lines.wrong(format!("not JSON: {error}")))?;
        let field = |name: &str| object.get(name).and_then(|value| value.as_str());
        let octets = |name: &str| {
            let text = field(name).ok_or_else(|| lines.wrong(format!("\"{name}\" is missing")))?;
            unescape(text.as_bytes()).map_err(|why| lines.wrong(why))
        };
        let (key, value) = (octets("key")?, octets("value")?);
        let database = match field("database") {
            None => None,
            Some(name) => Some(
                database_with_name(name.as_bytes())
                    .map_err(|failure| lines.wrong(failure.message))?,
            ),
        };
        if present != Some(database) {
            sink.begin(database).map_err(|why| lines.wrong(why))?;
            present = Some(database);
        }
        sink.record(lines.number(), &key, &value)
            .map_err(|why| lines.wrong(why))?;
        if !lines.advance()? {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    type Taken = (Option<Database>, u64, Vec<u8>, Vec<u8>);

    #[derive(Default)]
    struct Taking(Option<Database>, Vec<Taken>);

    impl Sink for Taking {
        fn begin(&mut self, database: Option<Database>) -> Result<(), String> {
            self.0 = database;
            Ok(())
        }

        fn record(&mut self, line: u64, key: &[u8], value: &[u8]) -> Result<(), String> {
            self.1.push((self.0, line, key.to_vec(), value.to_vec()));
            Ok(())
        }
    }

    fn read(text: &[u8]) -> Result<Vec<Taken>, (u64, String)> {
        let mut taking = Taking::default();
        match read_text(text, &mut taking) {
            Ok(()) => Ok(taking.1),
            Err(wrong) => Err((wrong.line, wrong.why)),
        }
    }

    #[test]
    fn every_format_gives_the_same_record() {
        let record = (b"a\xfc/b/c".to_vec(), b"1,2".to_vec());
        for (text, database, line) in [
            (
                "VERSION=3\nformat=print\ntype=btree\nHEADER=END\n a\\fc/b/c\n 1,2\nDATA=END\n",
                None,
                5,
            ),
            (
                "VERSION=3\nformat=bytevalue\nHEADER=END\n 61fc2f622f63\n 312c32\nDATA=END\n",
                None,
                4,
            ),
            (
                "VERSION=3\nformat=print\ndatabase=postgrey.db\ndb_pagesize=4096\nHEADER=END\n a\\fc/b/c\n 1,2\nDATA=END\n",
                Some(Database::Greylist),
                6,
            ),
            ("a\\fc/b/c\t1,2\n", None, 1),
            ("greylist\ta\\fc/b/c\t1,2\n", Some(Database::Greylist), 1),
            (
                "{\"database\":\"clients\",\"key\":\"a\\\\fc/b/c\",\"value\":\"1,2\"}",
                Some(Database::Clients),
                1,
            ),
        ] {
            let (key, value) = record.clone();
            assert_eq!(
                read(text.as_bytes()),
                Ok(vec![(database, line, key, value)]),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_line() {
        for (text, line) in [
            ("", 0),
            ("root:x:0:0\n", 1),
            ("VERSION=9\n", 1),
            ("VERSION=3\nformat=print\n", 2),
            ("VERSION=3\nformat=odd\n", 2),
            ("VERSION=3\ntype=recno\n", 2),
            ("VERSION=3\ndatabase=mail\n", 2),
            ("VERSION=3\nHEADER=END\n a\n b\nDATA=END\n", 2),
            ("VERSION=3\nformat=print\nHEADER=END\n a\n b\n", 5),
            ("VERSION=3\nformat=print\nHEADER=END\n a\nDATA=END\n", 5),
            ("VERSION=3\nformat=print\nHEADER=END\n a\n b\nDATA=EN", 6),
            ("VERSION=3\nformat=print\nHEADER=END\na\n b\nDATA=END\n", 4),
            (
                "VERSION=3\nformat=print\nHEADER=END\n a\\x\n b\nDATA=END\n",
                4,
            ),
            (
                "VERSION=3\nformat=bytevalue\nHEADER=END\n 6\n 61\nDATA=END\n",
                4,
            ),
            ("VERSION=3\nformat=print\nHEADER=END\nDATA=END\nx\n", 5),
            ("a\tb\nc\n", 2),
            ("a\tb\nc\td", 2),
            ("mail\tb\tc\n", 1),
            ("{}\n", 1),
            ("{\"key\":\"a\",\"value\":\"b\"}\n{\"key\":1}\n", 2),
            ("{\"key\":\"a\"\n", 1),
        ] {
            assert_eq!(
                read(text.as_bytes()).map_err(|(line, _)| line),
                Err(line),
                "{text}"
            );
        }
        let deep = "{\"key\":".to_owned() + &"[".repeat(60_000);
        assert!(read(deep.as_bytes()).is_err());
    }
}
