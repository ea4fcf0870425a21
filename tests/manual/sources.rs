//! The sources of the server, cut into functions and texts.

use std::fs;
use std::ops::Range;

use regex::Regex;

use super::root;

/// A source file without its unit tests.
pub struct Source {
    /// Its name, from the root of the project.
    pub name: String,
    /// The code, in which comments and the insides of texts are blanks.
    pub code: String,
    /// The texts, with the octets of the code that they take.
    pub texts: Vec<(Range<usize>, String)>,
}

/// A function of a source file.
pub struct Function<'s> {
    pub source: &'s Source,
    pub name: &'s str,
    /// The octets of its body in the code.
    pub body: Range<usize>,
}

/// Source files of the server: the tools have pages of their own, and main.rs
/// writes to standard error.
pub fn sources() -> Vec<Source> {
    let mut sources = Vec::new();
    let mut folders = vec![root().join("src")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            let name = path.strip_prefix(root()).unwrap().display().to_string();
            if name == "src/bin" || name == "src/admin" || name == "src/main.rs" {
                continue;
            }
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).unwrap();
            let text = text.split("#[cfg(test)]\nmod tests {").next().unwrap();
            sources.push(Source::new(name, text));
        }
    }
    assert!(sources.len() > 30);
    sources
}

impl Source {
    fn new(name: String, text: &str) -> Source {
        let mut source = Source {
            name,
            code: String::new(),
            texts: Vec::new(),
        };
        let mut rest = text;
        while !rest.is_empty() {
            let (length, is_blank) = match token(rest) {
                Token::Text(length, text) => {
                    let start = source.code.len();
                    source.texts.push((start..start + length, text));
                    (length, true)
                }
                Token::Blank(length) => (length, true),
                Token::Code(length) => (length, false),
            };
            let (taken, after) = rest.split_at(length);
            match is_blank {
                true => source.code.extend(taken.bytes().map(|_| ' ')),
                false => source.code.push_str(taken),
            }
            rest = after;
        }
        source
    }

    /// Its functions and methods, those inside of others too.
    pub fn functions(&self) -> Vec<Function<'_>> {
        let mut functions = Vec::new();
        for (at, _) in self.code.match_indices("fn ") {
            let name = &self.code[at + 3..];
            let length = name.find(|c: char| !c.is_alphanumeric() && c != '_');
            let name = &name[..length.unwrap_or(name.len())];
            // The type of a function has no name, a declaration no body.
            let end = self.code[at..].find(['{', ';']).map(|length| at + length);
            if let Some(open) = end.filter(|&end| !name.is_empty() && &self.code[end..=end] == "{")
            {
                functions.push(Function {
                    source: self,
                    name,
                    body: open + 1..self.closing(open),
                });
            }
        }
        functions
    }

    /// Where the parenthesis or brace at `open` is closed.
    pub fn closing(&self, open: usize) -> usize {
        let mut depth = 0;
        for (at, c) in self.code[open..].char_indices() {
            match c {
                '(' | '{' => depth += 1,
                ')' | '}' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                return open + at;
            }
        }
        panic!("{}: no end: {}", self.name, &self.code[open..]);
    }

    /// The texts between two octets, and where they begin.
    pub fn texts_in(&self, range: &Range<usize>) -> impl Iterator<Item = (usize, &str)> {
        self.texts
            .iter()
            .filter(|(at, _)| range.contains(&at.start))
            .map(|(at, text)| (at.start, text.as_str()))
    }
}

impl Function<'_> {
    /// What stands between the parentheses of calls that this expression
    /// finds.
    pub fn calls(&self, expression: &str) -> Vec<Range<usize>> {
        let code = &self.source.code;
        Regex::new(expression)
            .unwrap()
            .find_iter(&code[self.body.clone()])
            .map(|found| {
                let start = self.body.start + found.start();
                let open = start + code[start..].find('(').unwrap();
                open + 1..self.source.closing(open)
            })
            .collect()
    }

    /// The first argument of such calls, and the others.
    pub fn split_calls(&self, expression: &str) -> (Vec<Range<usize>>, Vec<Range<usize>>) {
        let split = |call: Range<usize>| {
            let comma = self.end_of(call.clone(), ',');
            (call.start..comma, comma..call.end)
        };
        self.calls(expression).into_iter().map(split).unzip()
    }

    /// The statements of the body: a `let` up to its end, of the others what
    /// stands between `;`, `{` and `}`.
    pub fn statements(&self) -> Vec<Range<usize>> {
        let code = &self.source.code[..self.body.end];
        let mut statements = Vec::new();
        let mut start = self.body.start;
        // Braces in texts are none: texts are blanks.
        while let Some(length) = code[start..].find([';', '{', '}']) {
            let is_let = code[start..].trim_start().starts_with("let ");
            let end = match is_let {
                true => self.end_of(start..self.body.end, ';'),
                false => start + length,
            };
            statements.push(start..end);
            start += length + 1;
        }
        statements.push(start..self.body.end);
        statements
    }

    /// Where this character ends what begins a range, else the end of what it
    /// is in.
    fn end_of(&self, range: Range<usize>, last: char) -> usize {
        let mut depth = 0;
        for (at, c) in self.source.code[range.clone()].char_indices() {
            match c {
                '(' | '{' | '[' => depth += 1,
                ')' | '}' | ']' => depth -= 1,
                _ => {}
            }
            if depth < 0 || (depth == 0 && c == last) {
                return range.start + at;
            }
        }
        range.end
    }
}

/// What source code begins with; lengths in octets.
enum Token {
    /// A text, and what it says.
    Text(usize, String),
    /// A comment or a character.
    Blank(usize),
    Code(usize),
}

fn token(code: &str) -> Token {
    if code.starts_with("//") {
        return Token::Blank(code.find('\n').unwrap_or(code.len()));
    }
    // A lifetime has no quote after it.
    for quoted in ["'\\''", "'\\\\'", "'\"'", "b'\"'", "b'\\''", "b'\\\\'"] {
        if code.starts_with(quoted) {
            return Token::Blank(quoted.len());
        }
    }
    for brace in ["'{'", "'}'", "'('", "')'", "';'"] {
        if code.starts_with(brace) {
            return Token::Blank(brace.len());
        }
    }
    if let Some(inner) = code.strip_prefix("r\"").or(code.strip_prefix("r#\"")) {
        let end = if code.starts_with("r#") { "\"#" } else { "\"" };
        let length = inner.find(end).unwrap();
        let whole = code.len() - inner.len() + length + end.len();
        return Token::Text(whole, inner[..length].to_owned());
    }
    if code.starts_with('"') {
        return text_token(code);
    }
    Token::Code(code.chars().next().map_or(1, char::len_utf8))
}

fn text_token(code: &str) -> Token {
    let mut said = String::new();
    let mut rest = code[1..].chars();
    while let Some(c) = rest.next() {
        match c {
            '"' => return Token::Text(code.len() - rest.as_str().len(), said),
            '\\' => match rest.next() {
                Some('n') => said.push('\n'),
                // The line goes on after the blanks of the next.
                Some('\n') => {
                    let next = rest.as_str().trim_start();
                    rest = next.chars();
                }
                Some(other) => said.push(other),
                None => break,
            },
            _ => said.push(c),
        }
    }
    panic!("a text without an end: {code}");
}
