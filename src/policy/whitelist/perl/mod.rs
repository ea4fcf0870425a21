//! Patterns as Perl reads them, rewritten for our engines.
//!
//! Files written for the original hold Perl's syntax. Most of it is also ours;
//! this module removes the differences that would otherwise change a meaning
//! in silence (`\<`, `[a&&b]`, `a++`, `\h`) or refuse what Perl takes
//! (`[\w-.]`, `\_`, `a{`). The result is plain ASCII: octets above are written
//! as `\xHH`, so that a pattern may be in any encoding.

#[cfg(test)]
mod tests;

/// A pattern for our engines.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Translated {
    /// The pattern; the engine still has to check it.
    pub text: String,
    /// True if the automaton would take it, but for something else.
    pub needs_backtracking: bool,
}

/// Rewrites a pattern. The error says in one line why this is not possible.
pub(super) fn translate(pattern: &[u8]) -> Result<Translated, String> {
    let mut translator = Translator {
        rest: pattern,
        text: String::with_capacity(pattern.len() + 16),
        last: Last::Nothing,
        needs_backtracking: false,
    };
    translator
        .run()
        .map_err(|why| format!("bad pattern: {why}"))?;
    Ok(Translated {
        text: translator.text,
        needs_backtracking: translator.needs_backtracking,
    })
}

/// The names between `[:` and `:]`.
const CLASS_NAMES: [&[u8]; 14] = [
    b"alnum", b"alpha", b"ascii", b"blank", b"cntrl", b"digit", b"graph", b"lower", b"print",
    b"punct", b"space", b"upper", b"word", b"xdigit",
];

/// What a repeat sign would follow.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Last {
    Nothing,
    Item,
    Repeat,
    /// A repeat that already has its `?` or `+`.
    FullRepeat,
}

/// What a backslash sequence stands for.
enum Escape {
    /// One octet, literally.
    Octet(u8),
    /// Several octets, as they are written inside of brackets.
    Class(String),
    /// Something that only exists outside of brackets.
    Outside(String),
}

struct Translator<'a> {
    rest: &'a [u8],
    text: String,
    last: Last,
    needs_backtracking: bool,
}

impl<'a> Translator<'a> {
    fn run(&mut self) -> Result<(), String> {
        while let Some(octet) = self.take() {
            let last = std::mem::replace(&mut self.last, Last::Item);
            match octet {
                b'\\' => self.outside_escape()?,
                b'[' => self.class()?,
                b'(' => {
                    self.text.push('(');
                    if self.take_if(b'?') {
                        self.text.push('?');
                    }
                    self.last = Last::Nothing;
                }
                b'|' => {
                    self.text.push('|');
                    self.last = Last::Nothing;
                }
                b'*' | b'+' | b'?' => self.repeat(last, &char::from(octet).to_string())?,
                b'{' => match self.take_counts()? {
                    Some(counts) => self.repeat(last, &counts)?,
                    None => self.literal(b'{'),
                },
                b'}' | b']' => self.literal(octet),
                b'!'..=b'~' => self.text.push(char::from(octet)),
                _ => self.literal(octet),
            }
        }
        Ok(())
    }

    fn take(&mut self) -> Option<u8> {
        let (&first, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(first)
    }

    fn take_if(&mut self, octet: u8) -> bool {
        let is_next = self.rest.first() == Some(&octet);
        if is_next {
            self.take();
        }
        is_next
    }

    /// Takes the octets for which `is_wanted` is true, at most `limit`.
    fn take_while(&mut self, limit: usize, is_wanted: impl Fn(&u8) -> bool) -> &'a [u8] {
        let count = self
            .rest
            .iter()
            .take(limit)
            .take_while(|octet| is_wanted(octet))
            .count();
        let (head, tail) = self
            .rest
            .split_at_checked(count)
            .unwrap_or((self.rest, &[]));
        self.rest = tail;
        head
    }

    /// Takes everything up to `end`, and `end`, which is not in the result.
    fn take_until(&mut self, end: &[u8]) -> Option<&'a [u8]> {
        let at = self
            .rest
            .windows(end.len())
            .position(|window| window == end)?;
        let (head, tail) = self.rest.split_at_checked(at)?;
        self.rest = tail.get(end.len()..)?;
        Some(head)
    }

    /// Takes the rest of `{n}`, `{n,}`, `{,m}` or `{n,m}`; in Perl, any other
    /// brace is only a brace.
    fn take_counts(&mut self) -> Result<Option<String>, String> {
        let Some(end) = self.rest.iter().position(|&octet| octet == b'}') else {
            return Ok(None);
        };
        let (inner, tail) = self.rest.split_at_checked(end).unwrap_or_default();
        let mut numbers = inner.splitn(2, |&octet| octet == b',');
        let low = numbers.next().unwrap_or_default();
        let high = numbers.next();
        let are_digits = |text: &[u8]| text.iter().all(u8::is_ascii_digit);
        let is_empty = low.is_empty() && high.is_none_or(<[u8]>::is_empty);
        if is_empty || !are_digits(low) || !high.is_none_or(are_digits) {
            return Ok(None);
        }
        self.rest = tail.get(1..).unwrap_or_default();
        // Longer numbers are beyond what either engine takes.
        let number = |text: &[u8]| match std::str::from_utf8(text).unwrap_or_default() {
            "" => Ok(0),
            text => text
                .parse::<u16>()
                .map_err(|_| "number of repeats too large"),
        };
        let low = number(low)?;
        match high {
            None => Ok(Some(format!("{{{low}}}"))),
            Some([]) => Ok(Some(format!("{{{low},}}"))),
            Some(high) if number(high)? < low => Err("repeat that can never match".into()),
            Some(high) => Ok(Some(format!("{{{low},{}}}", number(high)?))),
        }
    }

    fn repeat(&mut self, last: Last, sign: &str) -> Result<(), String> {
        self.last = match (last, sign) {
            (Last::Nothing | Last::Item, _) => Last::Repeat,
            (Last::Repeat, "?") => Last::FullRepeat,
            (Last::Repeat, "+") => {
                // The automaton would read this as a repeat of a repeat.
                self.needs_backtracking = true;
                Last::FullRepeat
            }
            _ => return Err("repeat of a repeat".into()),
        };
        self.text.push_str(sign);
        Ok(())
    }

    /// Writes an octet that has no meaning but itself, anywhere.
    fn literal(&mut self, octet: u8) {
        self.text.push_str(&literal(octet));
    }

    fn outside_escape(&mut self) -> Result<(), String> {
        match self.escape(false)? {
            Escape::Octet(octet) => self.literal(octet),
            Escape::Class(class) => self.text.push_str(&format!("[{class}]")),
            Escape::Outside(text) => self.text.push_str(&text),
        }
        Ok(())
    }

    /// The rest of a bracket expression. Every octet in it is written so that
    /// it cannot be taken for the set operators our engines have.
    fn class(&mut self) -> Result<(), String> {
        self.text.push('[');
        if self.take_if(b'^') {
            self.text.push('^');
        }
        let (mut is_first, mut may_be_range) = (true, false);
        loop {
            let octet = self.take().ok_or("[ without ]")?;
            match octet {
                b']' if !is_first => break,
                b'-' if may_be_range && self.is_octet_next() => {
                    self.text.push('-');
                    let end = self.take().ok_or("[ without ]")?;
                    self.class_item(end)?;
                    may_be_range = false;
                }
                _ => may_be_range = self.class_item(octet)?,
            }
            is_first = false;
        }
        self.text.push(']');
        Ok(())
    }

    /// True if what follows in brackets is a single octet, so that a range
    /// may end there.
    fn is_octet_next(&self) -> bool {
        match self.rest {
            [] | [b']', ..] | [b'[', b':', ..] => false,
            [b'\\', next, ..] => !b"dDwWsShHvVpPN".contains(next),
            _ => true,
        }
    }

    /// Writes one item of a bracket expression; true if it is a single octet.
    fn class_item(&mut self, octet: u8) -> Result<bool, String> {
        if octet == b'[' && self.rest.first() == Some(&b':') {
            let before = self.rest;
            self.take();
            let name = self.take_until(b":]").unwrap_or_default();
            let bare = name.strip_prefix(b"^").unwrap_or(name);
            if CLASS_NAMES.contains(&bare) {
                self.text
                    .push_str(&format!("[:{}:]", String::from_utf8_lossy(name)));
                return Ok(false);
            }
            if !bare.is_empty() && bare.iter().all(u8::is_ascii_alphabetic) {
                return Err(format!(
                    "unknown class [:{}:]",
                    String::from_utf8_lossy(name)
                ));
            }
            self.rest = before;
        }
        if octet != b'\\' {
            self.literal(octet);
            return Ok(true);
        }
        match self.escape(true)? {
            Escape::Octet(octet) => {
                self.literal(octet);
                Ok(true)
            }
            Escape::Class(class) => {
                self.text.push_str(&class);
                Ok(false)
            }
            Escape::Outside(_) => Err("escape that has no meaning inside of []".into()),
        }
    }

    /// Reads what follows a backslash.
    fn escape(&mut self, in_class: bool) -> Result<Escape, String> {
        let octet = self.take().ok_or("backslash at the end")?;
        Ok(match octet {
            b'd' | b'D' | b'w' | b'W' | b's' | b'S' => {
                Escape::Class(format!("\\{}", char::from(octet)))
            }
            b'h' => Escape::Class(r"\t\x20\xa0".into()),
            b'v' => Escape::Class(r"\n\x0b\x0c\r\x85".into()),
            b'H' => Escape::Outside(r"[^\t\x20\xa0]".into()),
            b'V' => Escape::Outside(r"[^\n\x0b\x0c\r\x85]".into()),
            b'N' => Escape::Outside(r"[^\n]".into()),
            b'R' => Escape::Outside(r"(?:\r\n|[\n\x0b\x0c\r\x85])".into()),
            b't' => Escape::Octet(b'\t'),
            b'n' => Escape::Octet(b'\n'),
            b'r' => Escape::Octet(b'\r'),
            b'f' => Escape::Octet(0x0c),
            b'a' => Escape::Octet(0x07),
            b'e' => Escape::Octet(0x1b),
            b'b' if in_class => Escape::Octet(0x08),
            b'b' | b'B' | b'A' | b'z' | b'K' => Escape::Outside(format!("\\{}", char::from(octet))),
            // A name holds no line end for which Perl would make an exception.
            b'Z' => Escape::Outside(r"\z".into()),
            b'G' => Escape::Outside(r"\A".into()),
            b'x' => Escape::Octet(self.hexadecimal()?),
            b'c' => Escape::Octet(
                self.take()
                    .ok_or("backslash at the end")?
                    .to_ascii_uppercase()
                    ^ 0x40,
            ),
            b'1'..=b'9' if !in_class => {
                let digits = self.take_while(3, u8::is_ascii_digit);
                let digits = String::from_utf8_lossy(digits);
                Escape::Outside(format!("(?:\\{}{digits})", char::from(octet)))
            }
            b'0'..=b'7' => {
                let digits = self.take_while(2, |octet| (b'0'..=b'7').contains(octet));
                let value = digits.iter().fold(u32::from(octet - b'0'), |value, digit| {
                    value * 8 + u32::from(digit - b'0')
                });
                Escape::Octet(u8::try_from(value).map_err(|_| "octal number above an octet")?)
            }
            b'k' | b'g' => Escape::Outside(self.reference(octet)?),
            b'p' | b'P' | b'o' | b'X' | b'C' => {
                return Err(format!("\\{} is not supported", char::from(octet)));
            }
            _ => Escape::Octet(octet),
        })
    }

    /// The rest of `\xHH` or `\x{H...}`.
    fn hexadecimal(&mut self) -> Result<u8, String> {
        let digits = if self.take_if(b'{') {
            self.take_until(b"}").ok_or("\\x{ without }")?
        } else {
            self.take_while(2, u8::is_ascii_hexdigit)
        };
        let digits = String::from_utf8_lossy(digits);
        if digits.is_empty() {
            return Ok(0);
        }
        u8::from_str_radix(&digits, 16).map_err(|_| "\\x{} that is not an octet".into())
    }

    /// The rest of `\gN`, `\g{N}`, `\k<name>`, `\k{name}` or `\k'name'`.
    fn reference(&mut self, octet: u8) -> Result<String, String> {
        let opening = self.rest.first().copied();
        let end: &[u8] = match opening {
            Some(b'{') => b"}",
            Some(b'<') if octet == b'k' => b">",
            Some(b'\'') if octet == b'k' => b"'",
            Some(b'1'..=b'9') if octet == b'g' => b"",
            _ => return Err("unknown kind of back-reference".into()),
        };
        let name = if end.is_empty() {
            self.take_while(3, u8::is_ascii_digit)
        } else {
            self.take();
            self.take_until(end)
                .ok_or("back-reference without an end")?
        };
        let is_name = name
            .iter()
            .all(|octet| octet.is_ascii_alphanumeric() || *octet == b'_');
        if name.is_empty() || !is_name {
            return Err("unknown kind of back-reference".into());
        }
        let name = String::from_utf8_lossy(name);
        let is_number = name.bytes().all(|octet| octet.is_ascii_digit());
        Ok(if is_number {
            format!("(?:\\{name})")
        } else {
            format!("\\k<{name}>")
        })
    }
}

fn literal(octet: u8) -> String {
    match octet {
        b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' => char::from(octet).to_string(),
        _ => format!("\\x{octet:02x}"),
    }
}
