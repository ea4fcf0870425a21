//! The lines of the original's report.

use std::io::Write as _;
use std::os::unix::ffi::OsStrExt;

use super::tries::{Found, holds_address};
use crate::report::options::Id;
use crate::report::words::Words;
use crate::sys::clock;

/// How it is laid out.
#[derive(Debug)]
pub struct Layout {
    shows_tries: bool,
    shows_time: bool,
    has_tabs: bool,
    is_grouped: bool,
    between_networks: Vec<u8>,
    between_addresses: Vec<u8>,
}

impl Layout {
    /// By the options.
    pub fn new(words: &Words) -> Layout {
        let separator = |id| {
            let text = words.value(id).map_or(&b""[..], |text| text.as_bytes());
            unescaped(text)
        };
        Layout {
            shows_tries: words.has(Id::ShowTries),
            shows_time: words.has(Id::ShowTime),
            has_tabs: words.has(Id::Tab),
            is_grouped: words.has_after(Id::NoSingleLine, Id::SingleLine),
            between_networks: separator(Id::SeparateBySubnet),
            between_addresses: separator(Id::SeparateByIp),
        }
    }

    /// Appends the lines of all these.
    pub fn write(&self, all: &[Found], out: &mut Vec<u8>) {
        let mut previous: Option<(Vec<u8>, &[u8])> = None;
        for one in all {
            let network = network(&one.name, &one.address);
            let is_same = |(old, _): &(Vec<u8>, &[u8])| *old == network;
            let is_new_address = previous.as_ref().is_none_or(|(_, old)| *old != one.address);
            if previous.as_ref().is_some_and(is_same) {
                if is_new_address {
                    out.extend_from_slice(&self.between_addresses);
                }
            } else if self.between_networks.is_empty() {
                out.extend_from_slice(&self.between_addresses);
            } else {
                out.extend_from_slice(&self.between_networks);
            }
            match self.is_grouped {
                true => self.write_grouped(one, is_new_address, out),
                false => self.write_line(one, out),
            }
            previous = Some((network, &one.address));
        }
    }

    fn write_line(&self, one: &Found, out: &mut Vec<u8>) {
        let mut fields: Vec<Vec<u8>> = Vec::new();
        if self.shows_time {
            let mut time = Vec::new();
            clock::push_log_time(&mut time, one.last as f64);
            fields.push(time);
        }
        if self.shows_tries {
            fields.push(one.tries.to_string().into_bytes());
        }
        let address = shown(&one.address);
        fields.push(match self.has_tabs {
            true => address.into_bytes(),
            false => format!("{address:>15}").into_bytes(),
        });
        let texts = [&one.name, &one.sender, &one.recipient];
        fields.extend(texts.map(|text| shown(text).into_bytes()));
        let separator: &[u8] = if self.has_tabs { b"\t" } else { b" " };
        out.extend_from_slice(&fields.join(separator));
        out.push(b'\n');
    }

    fn write_grouped(&self, one: &Found, is_new: bool, out: &mut Vec<u8>) {
        // Writing to a Vec cannot fail.
        if is_new {
            let (name, address) = (shown(&one.name), shown(&one.address));
            let _ = writeln!(out, "{name:<77} {address:>15}");
        }
        let tries = match self.shows_tries {
            true => format!(" {:>2} ", one.tries),
            false => "    ".into(),
        };
        let (sender, recipient) = (shown(&one.sender), shown(&one.recipient));
        let _ = writeln!(out, "      {tries} {sender:>40}  {recipient:>40} ");
    }
}

/// The network by which lines are separated: the whole address of a client that has no
/// name, or whose name holds the end of it.
fn network(name: &[u8], address: &[u8]) -> Vec<u8> {
    let dot = address.iter().rposition(|&octet| octet == b'.');
    match dot {
        Some(dot) if name != b"unknown" && !holds_address(name, address) => {
            [&address[..=dot], b"0"].concat()
        }
        _ => address.to_vec(),
    }
}

/// `\n` is a line end.
fn unescaped(text: &[u8]) -> Vec<u8> {
    String::from_utf8_lossy(text)
        .replace("\\n", "\n")
        .into_bytes()
}

/// Control characters would move the cursor of whoever looks at it, and marks of
/// direction the text.
fn shown(text: &[u8]) -> String {
    let is_harmless = |letter: char| {
        !letter.is_control()
            && !matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
    };
    let letters = String::from_utf8_lossy(text);
    let letters = letters.chars();
    letters
        .map(|letter| if is_harmless(letter) { letter } else { '?' })
        .collect()
}
