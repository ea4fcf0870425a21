//! POSIX expressions, as regexp_table(5) has them, in the syntax of the regex
//! crate.
//!
//! The two differ in what a backslash, a bracket or a brace means, and a table
//! that was tried with postmap(1) must say the same here. What POSIX leaves
//! open is taken as the crate has it: `\d` and `(?:...)` mean what whoever
//! writes them has in mind.

/// Escapes of letters that the crate knows. What another one means POSIX leaves
/// open, and systems differ.
const KNOWN_ESCAPES: &[u8] = b"ABDPSUWabdfnprstuvwxz<>";

/// The classes of POSIX.
const CLASSES: [&str; 12] = [
    "alnum", "alpha", "blank", "cntrl", "digit", "graph", "lower", "print", "punct", "space",
    "upper", "xdigit",
];

/// An expression for the crate, with what is doubtful about it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// The expression.
    pub text: String,
    /// A remark for the administrator.
    pub doubt: Option<&'static str>,
}

/// Translates an expression; `is_extended` is false for a basic one, in which
/// `\(` groups and `(` is itself.
pub(super) fn translate(expression: &str, is_extended: bool) -> Result<Translated, String> {
    let mut translator = Translator {
        rest: expression,
        out: String::new(),
        depth: 0,
        doubt: None,
    };
    while let Some(symbol) = translator.next() {
        match symbol {
            '[' => translator.bracket()?,
            '\\' => translator.escape(is_extended)?,
            _ if is_extended => translator.operator(symbol),
            _ => translator.basic(symbol),
        }
    }
    Ok(Translated {
        text: translator.out,
        doubt: translator.doubt,
    })
}

struct Translator<'a> {
    rest: &'a str,
    out: String,
    /// Groups that are open.
    depth: usize,
    doubt: Option<&'static str>,
}

impl Translator<'_> {
    fn next(&mut self) -> Option<char> {
        let mut symbols = self.rest.chars();
        let symbol = symbols.next();
        self.rest = symbols.as_str();
        symbol
    }

    fn peek(&self) -> Option<char> {
        self.rest.chars().next()
    }

    /// A character that is none but itself.
    fn literal(&mut self, symbol: char) {
        if symbol.is_ascii() && !symbol.is_ascii_alphanumeric() {
            self.out.push_str(&format!("\\x{{{:x}}}", symbol as u32));
        } else {
            self.out.push(symbol);
        }
    }

    /// A character of an extended expression, or an escaped one of a basic.
    fn operator(&mut self, symbol: char) {
        match symbol {
            '(' => self.depth += 1,
            ')' if self.depth == 0 => return self.literal(symbol),
            ')' => self.depth -= 1,
            '{' => return self.repeat(),
            '}' => return self.literal(symbol),
            // The crate would take this for one or more, as few as can be.
            '?' if self.out.ends_with('+') => {
                self.out.pop();
                return self.out.push('*');
            }
            _ => {}
        }
        self.out.push(symbol);
    }

    /// A character of a basic expression.
    fn basic(&mut self, symbol: char) {
        let begins = self.out.is_empty() || self.out.ends_with(['(', '|', '^']);
        let ends = [r"\)", r"\|"].iter().any(|end| self.rest.starts_with(end));
        match symbol {
            '(' | ')' | '{' | '}' | '|' | '+' | '?' => self.literal(symbol),
            '*' if begins => self.literal(symbol),
            '^' if !begins => self.literal(symbol),
            '$' if !ends && !self.rest.is_empty() => self.literal(symbol),
            _ => self.out.push(symbol),
        }
    }

    fn escape(&mut self, is_extended: bool) -> Result<(), String> {
        let Some(symbol) = self.next() else {
            return Err("trailing backslash".into());
        };
        match symbol {
            '1'..='9' => return Err("references back are not supported".into()),
            '(' | ')' | '{' | '}' | '|' | '+' | '?' if !is_extended => self.operator(symbol),
            '`' => self.out.push_str(r"\A"),
            '\'' => self.out.push_str(r"\z"),
            _ if symbol.is_ascii() && KNOWN_ESCAPES.contains(&(symbol as u8)) => {
                self.out.extend(['\\', symbol]);
            }
            _ if symbol.is_ascii_alphanumeric() => {
                return Err(format!("unknown escape \\{symbol}"));
            }
            _ => self.literal(symbol),
        }
        Ok(())
    }

    /// After `{`: `n}`, `n,}`, `n,m}` or `,m}`, in a basic expression with a
    /// backslash before the brace; anything else is left for the crate to
    /// refuse.
    fn repeat(&mut self) {
        let end = self.rest.find('}').unwrap_or(self.rest.len());
        let (bounds, rest) = self.rest.split_at(end);
        let bounds = bounds.strip_suffix('\\').unwrap_or(bounds);
        let numbers = bounds.split(',').collect::<Vec<_>>();
        let are_numbers = bounds.bytes().all(|b| b.is_ascii_digit() || b == b',');
        if !are_numbers || numbers.len() > 2 || rest.is_empty() {
            return self.out.push('{');
        }
        self.rest = rest.strip_prefix('}').unwrap_or(rest);
        let zero = if bounds.starts_with(',') { "0" } else { "" };
        self.out.push_str(&format!("{{{zero}{bounds}}}"));
    }

    /// After `[`: a backslash stands for itself there, and so may be the end of
    /// a range, except in front of the letters of a class of the crate.
    fn bracket(&mut self) -> Result<(), String> {
        self.out.push('[');
        if self.peek() == Some('^') {
            self.next();
            self.out.push('^');
        }
        let mut is_first = true;
        loop {
            let symbol = match self.next().ok_or("unclosed [")? {
                ']' if !is_first => break,
                '[' if self.rest.starts_with(':') => {
                    self.class()?;
                    is_first = false;
                    continue;
                }
                '[' if self.rest.starts_with(['.', '=']) => {
                    return Err("[. .] and [= =] are not supported".into());
                }
                '\\' if self.rest.starts_with(['d', 'D', 's', 'S', 'w', 'W']) => {
                    self.out.push('\\');
                    let class = self.next();
                    self.out.extend(class);
                    is_first = false;
                    continue;
                }
                symbol => symbol,
            };
            is_first = false;
            self.literal(symbol);
            if self.rest.starts_with('-') && !self.rest.starts_with("-]") {
                self.next();
                let last = self.next().ok_or("unclosed [")?;
                if last == '[' && self.rest.starts_with([':', '.', '=']) {
                    return Err("a range ends with a character".into());
                }
                if symbol == '\\' || last == '\\' {
                    self.doubt = Some(
                        "in [ ] a backslash stands for itself, as in regexp_table(5), and begins \
                         or ends a range here: write a - first or last, and nothing before a dot",
                    );
                }
                self.out.push('-');
                self.literal(last);
            }
        }
        self.out.push(']');
        Ok(())
    }

    /// After `[`, at `:name:]`.
    fn class(&mut self) -> Result<(), String> {
        let end = self.rest.find(":]").ok_or("unclosed [:")? + 2;
        let (class, rest) = self.rest.split_at(end);
        if !CLASSES.contains(&class.trim_matches([':', ']'])) {
            return Err("no such class of characters".into());
        }
        self.rest = rest;
        self.out.push('[');
        self.out.push_str(class);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::rules::octets_regex;
    use super::*;

    fn matches(expression: &str, is_extended: bool, text: &str) -> Result<bool, String> {
        let translated = translate(expression, is_extended)?;
        let regex = octets_regex(&translated.text)
            .build()
            .map_err(|error| error.to_string())?;
        Ok(regex.is_match(text.as_bytes()))
    }

    /// What Postfix' regexp tables answered, with glibc; an expression that it
    /// refuses is an error.
    #[test]
    fn expressions_match_as_in_postfix() {
        for (expression, text, wanted) in [
            (r"^[^.]*[0-9]{5}", "host12345.example", true),
            (r"a{,2}$", "a", true),
            (r"a{2}$", "aa", true),
            (r"x{2}{3}$", "xxxx", false),
            (r"^[0-9\-\.]+$", "1-2", false),
            (r"^[0-9\-\.]+$", "1.2", true),
            (r"^[0-9\.\-]+$", "1.2-3", true),
            (r"^[]a]$", "]", true),
            (r"^[^]a]$", "]", false),
            (r"[[]x", "[x", true),
            (r"^[a&&b]$", "&", true),
            (r"^[a&&b]$", "a", true),
            (r"^[a-]$", "-", true),
            (r"^[[:digit:]-]+$", "1-2", true),
            (r"^[^[:digit:]]+$", "a1", false),
            (r"a+?b", "b", true),
            (r"^x)", "x)", true),
            (r"x}", "x}", true),
            (r"a||b", "c", true),
            (r"\bx\b", "a.x.b", true),
            (r"\<x", "ax", false),
            (r"a\/b\.c\-d\_e\@", "a/b.c-d_e@", true),
            (r"^\.\*$", ".*", true),
            (r"(^|[.-])x", "a.x", true),
            (r"^[\d]$", "7", true),
            (r"^\d+$", "42", true),
        ] {
            let found = matches(expression, true, text);
            assert_eq!(found, Ok(wanted), "{expression} {text}");
        }
    }

    #[test]
    fn basic_expressions_escape_the_other_way_round() {
        for (expression, text, wanted) in [
            (r"^\(a\|b\)\{2\}$", "ab", true),
            (r"^a+$", "a+", true),
            (r"^a\+$", "aa", true),
            (r"^(a)$", "(a)", true),
            (r"^*a$", "*a", true),
            (r"a^b$c", "a^b$c", true),
            (r"^\(a$\)", "a", true),
        ] {
            let found = matches(expression, false, text);
            assert_eq!(found, Ok(wanted), "{expression} {text}");
        }
    }

    #[test]
    fn what_cannot_be_read_is_refused() {
        for expression in [
            "[a",
            r"a\",
            "(a",
            "*a",
            "{a",
            "a{b",
            "[z-a]",
            r"[\-0-9]",
            r"(a)\1",
            "[[.x.]]",
            "[[:nothing:]]",
            "[a-[:digit:]]",
            "(?=a)",
            "[",
        ] {
            let found = matches(expression, true, "a");
            assert!(found.is_err(), "{expression} {found:?}");
        }
    }

    #[test]
    fn a_backslash_in_a_range_is_doubtful() {
        for (expression, is_doubtful) in [
            (r"[0-9\-\.]", true),
            (r"[0-9\.\-]", false),
            (r"\[\-\.]", false),
            (r"[a\-z]", true),
        ] {
            let doubt = translate(expression, true).unwrap().doubt;
            assert_eq!(doubt.is_some(), is_doubtful, "{expression}");
        }
    }
}
