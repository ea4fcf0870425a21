//! The lines of a table: an entry, `if`, or `endif`.
//!
//! A table is one of Postfix' (regexp_table(5) with actions of access(5)), or
//! one of domains, or both: whoever has a table gives it as it is.

use regex::bytes::Regex;

use super::posix;
use super::rules::octets_regex;
use crate::policy::whitelist::address_shape;

/// What an entry says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Word {
    /// The client is let in.
    Ok,
    /// It is not.
    Suspicious,
    /// The table does not know.
    Dunno,
}

/// An expression of a table.
#[derive(Clone, Debug)]
pub(super) struct Expression {
    /// The expression, without `!`.
    pub regex: Regex,
    /// There is a `!` in front: true of what does not match.
    pub is_negated: bool,
}

/// Whom an entry is about.
#[derive(Clone, Debug)]
pub(super) enum Pattern {
    /// A domain in lower case: itself and what is below it.
    Domain(Vec<u8>),
    /// Names, or addresses, that match.
    Expression(Expression),
}

/// A line.
#[derive(Debug)]
pub(super) enum Statement {
    /// `PATTERN WORD`
    Entry(Pattern, Word),
    /// `if EXPRESSION`; `None` if the expression cannot be used.
    If(Option<Expression>),
    /// `endif`
    EndIf,
}

/// What is to be said about a line.
#[derive(Debug, Default)]
pub(super) struct Remarks {
    /// Why it is left out.
    pub mistake: Option<String>,
    /// What is doubtful about it, although it is used.
    pub doubts: Vec<String>,
}

/// Reads a line that is not empty. `None` if it is left out.
pub(super) fn parse(line: &[u8], remarks: &mut Remarks) -> Option<Statement> {
    let line = line.trim_ascii();
    if let Some(rest) = after_keyword(line, b"endif") {
        doubt_rest(rest, remarks);
        return Some(Statement::EndIf);
    }
    if let Some(rest) = after_keyword(line, b"if") {
        return Some(Statement::If(match parse_expression(rest, remarks) {
            Ok((expression, rest)) => {
                doubt_rest(rest, remarks);
                Some(expression)
            }
            Err(why) => {
                remarks.mistake = Some(format!("{why}; the lines up to its endif are left out"));
                None
            }
        }));
    }
    match parse_entry(line, remarks) {
        Ok(entry) => entry,
        Err(why) => {
            remarks.mistake = Some(why);
            None
        }
    }
}

/// What follows the keyword, if the line begins with it. `endif.example` is a
/// domain.
fn after_keyword<'a>(line: &'a [u8], keyword: &[u8]) -> Option<&'a [u8]> {
    let (head, rest) = line.split_at_checked(keyword.len())?;
    let is_over = rest.first().is_none_or(|b| !is_name_byte(*b) && *b != b'.');
    (head.eq_ignore_ascii_case(keyword) && is_over).then(|| rest.trim_ascii_start())
}

fn doubt_rest(rest: &[u8], remarks: &mut Remarks) {
    if !rest.trim_ascii().is_empty() {
        let why = "what follows on the line of if or endif is ignored";
        remarks.doubts.push(why.into());
    }
}

fn parse_entry(line: &[u8], remarks: &mut Remarks) -> Result<Option<Statement>, String> {
    if line.first().is_some_and(|b| is_delimiter(*b)) {
        let (expression, rest) = parse_expression(line, remarks)?;
        let word = parse_word(rest)?;
        let pattern = Pattern::Expression(expression);
        return Ok(Some(Statement::Entry(pattern, word)));
    }
    let end = line
        .iter()
        .position(|b| b.is_ascii_whitespace() || *b == b'#')
        .unwrap_or(line.len());
    let (domain, rest) = line.split_at(end);
    let address = address_shape(domain);
    let is_name = domain
        .split(|byte| *byte == b'.')
        .all(|label| !label.is_empty() && label.iter().all(|b| is_name_byte(*b)));
    if !is_name {
        let shown = String::from_utf8_lossy(domain).escape_debug().to_string();
        let why = format!("'{shown}' is neither a domain nor a /regular expression/");
        return Err(match address {
            Some(advice) => format!("{why}: {advice}"),
            None => why,
        });
    }
    let word = parse_word(rest)?;
    if let Some(advice) = address {
        // A client without a name is unknown, so this matches nobody.
        remarks.doubts.push(format!("matches nothing: {advice}"));
        return Ok(None);
    }
    let domain = Pattern::Domain(domain.to_ascii_lowercase());
    Ok(Some(Statement::Entry(domain, word)))
}

/// Postfix takes any sign; those with which a name or an address that was
/// spelt wrong may begin are none here.
fn is_delimiter(byte: u8) -> bool {
    byte.is_ascii_punctuation() && !b".-_[:*@<#".contains(&byte)
}

fn is_name_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_'
}

/// Reads `!/expression/flags`; what follows comes back, too.
fn parse_expression<'a>(
    text: &'a [u8],
    remarks: &mut Remarks,
) -> Result<(Expression, &'a [u8]), String> {
    let mut body = text;
    let mut is_negated = false;
    let delimiter = loop {
        let Some((first, rest)) = body.split_first() else {
            return Err("the regular expression is missing".into());
        };
        body = rest;
        match first {
            b'!' => is_negated = !is_negated,
            first if first.is_ascii_whitespace() => {}
            first if is_delimiter(*first) => break *first,
            _ => return Err("a regular expression stands between two slashes".into()),
        }
    };
    let (regex, rest) = split_regex(body, delimiter)?;
    let end = rest
        .iter()
        .position(u8::is_ascii_whitespace)
        .unwrap_or(rest.len());
    let (flags, rest) = rest.split_at(end);
    let (mut ignores_case, mut is_extended) = (true, true);
    for flag in flags {
        match flag {
            b'i' => ignores_case = !ignores_case,
            b'x' => is_extended = !is_extended,
            // A name has one line.
            b'm' => {}
            _ => {
                let flag = char::from(*flag).escape_debug();
                return Err(format!(
                    "'{flag}' after the regular expression is none of the flags i, m and x"
                ));
            }
        }
    }
    let regex = compile(regex, ignores_case, is_extended, remarks)?;
    Ok((Expression { regex, is_negated }, rest))
}

/// Splits after the first delimiter that has no backslash in front of it.
fn split_regex(body: &[u8], delimiter: u8) -> Result<(&[u8], &[u8]), String> {
    let mut escaped = false;
    for (index, byte) in body.iter().enumerate() {
        if *byte == delimiter && !escaped {
            return Ok((&body[..index], &body[index + 1..]));
        }
        escaped = *byte == b'\\' && !escaped;
    }
    let delimiter = char::from(delimiter);
    Err(format!(
        "the regular expression does not end with '{delimiter}'"
    ))
}

fn compile(
    regex: &[u8],
    ignores_case: bool,
    is_extended: bool,
    remarks: &mut Remarks,
) -> Result<Regex, String> {
    if regex.is_empty() {
        return Err("the regular expression is empty".into());
    }
    let text =
        std::str::from_utf8(regex).map_err(|_| "the regular expression is not UTF-8".to_owned())?;
    let bad = |why| format!("bad regular expression: {why}");
    let translated = posix::translate(text, is_extended).map_err(bad)?;
    remarks.doubts.extend(translated.doubt.map(str::to_owned));
    octets_regex(&translated.text)
        .case_insensitive(ignores_case)
        .build()
        .map_err(|error| bad(last_line(&error)))
}

/// The crate draws the position of a mistake on several lines; the log wants one.
fn last_line(error: &regex::Error) -> String {
    let text = error.to_string();
    let line = text.lines().last().unwrap_or_default().trim();
    line.strip_prefix("error: ").unwrap_or(line).to_owned()
}

/// Reads what an entry says: a word of s25r(7), or an action of access(5),
/// with a text that does not matter.
fn parse_word(rest: &[u8]) -> Result<Word, String> {
    let rest = rest.trim_ascii();
    let end = rest
        .iter()
        .position(|b| b.is_ascii_whitespace() || *b == b'#')
        .unwrap_or(rest.len());
    let (word, text) = rest.split_at(end);
    let text = text.trim_ascii();
    let shown = |word| String::from_utf8_lossy(word).escape_debug().to_string();
    match word.to_ascii_lowercase().as_slice() {
        b"" => Err("'suspicious' or 'ok' is missing after the pattern".into()),
        b"suspicious" if !text.is_empty() && !text.starts_with(b"#") => Err(format!(
            "'{}' is neither 'suspicious' nor 'ok'",
            shown(rest)
        )),
        b"ok" | b"permit" | b"relay" => Ok(Word::Ok),
        // greylist is what Postfix' own instructions call a class of
        // restrictions that asks a policy server.
        b"suspicious"
        | b"warn"
        | b"info"
        | b"defer"
        | b"defer_if_permit"
        | b"defer_if_reject"
        | b"greylist"
        | b"check_policy_service" => Ok(Word::Suspicious),
        [b'4', b'0'..=b'9', b'0'..=b'9'] => Ok(Word::Suspicious),
        b"dunno" => Ok(Word::Dunno),
        b"reject" | [b'5', b'0'..=b'9', b'0'..=b'9'] => Err(format!(
            "'{}' is neither 'suspicious' nor 'ok': to reject is left to Postfix",
            shown(word)
        )),
        _ => Err(format!(
            "'{}' is neither 'suspicious' nor 'ok'",
            shown(word)
        )),
    }
}
