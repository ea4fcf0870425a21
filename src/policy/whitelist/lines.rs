//! The lines of a whitelist file: what both lists have in common.
//!
//! The comment is cut before anything else is looked at, and so also inside a
//! pattern: that is what the original does, and files written for it count on
//! `provider.example # why`. Who meant the `#` gets a warning.

/// A line with something on it.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    /// Its number in the file, from 1.
    pub number: usize,
    /// What it says.
    pub content: Content<'a>,
}

/// What a line says.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Content<'a> {
    /// `/regex/`: the part between the slashes, not empty, without blanks.
    Pattern(&'a [u8]),
    /// Anything else that holds no blank.
    Word(&'a [u8]),
    /// A word that begins like a pattern but does not end like one. The text
    /// is the warning about it.
    BrokenPattern(&'a [u8], &'static str),
    /// A line with a blank inside: it cannot be a rule.
    Blanks,
}

/// Takes off the mark that some editors put in front of UTF-8, and with which
/// the first entry would match nothing; true if there was one.
pub(in crate::policy) fn strip_mark(text: &[u8]) -> (&[u8], bool) {
    match text.strip_prefix(b"\xef\xbb\xbf") {
        Some(text) => (text, true),
        None => (text, false),
    }
}

/// The lines of a file which are not empty after the comment's removal.
pub(super) fn read_lines(text: &[u8]) -> impl Iterator<Item = Line<'_>> {
    let line = |(index, raw): (usize, _)| {
        let content = read_content(raw)?;
        Some(Line {
            number: index + 1,
            content,
        })
    };
    text.split(|&octet| octet == b'\n')
        .enumerate()
        .filter_map(line)
}

fn read_content(raw: &[u8]) -> Option<Content<'_>> {
    let comment = raw.iter().position(|&octet| octet == b'#');
    let word = trim(raw.get(..comment.unwrap_or(raw.len()))?);
    if word.is_empty() {
        return None;
    }
    if word.iter().copied().any(is_blank) {
        return Some(Content::Blanks);
    }
    let inner = word
        .strip_prefix(b"/")
        .and_then(|rest| rest.strip_suffix(b"/"));
    Some(match inner {
        Some(pattern) if !pattern.is_empty() => Content::Pattern(pattern),
        _ if !word.starts_with(b"/") => Content::Word(word),
        _ if comment.is_some() => Content::BrokenPattern(
            word,
            "# begins a comment, also inside a pattern (write \\x23); the rest is taken literally",
        ),
        _ => Content::BrokenPattern(
            word,
            "a pattern begins and ends with a slash; taken literally",
        ),
    })
}

/// Perl's idea of white space, which has one octet more than
/// `is_ascii_whitespace`: the vertical tab.
fn is_blank(octet: u8) -> bool {
    octet.is_ascii_whitespace() || octet == 0x0b
}

fn trim(mut text: &[u8]) -> &[u8] {
    while let [first, rest @ ..] = text
        && is_blank(*first)
    {
        text = rest;
    }
    while let [rest @ .., last] = text
        && is_blank(*last)
    {
        text = rest;
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &[u8]) -> Vec<(usize, Content<'_>)> {
        read_lines(text)
            .map(|line| (line.number, line.content))
            .collect()
    }

    #[test]
    fn comments_and_blanks_go_and_lines_are_counted() {
        let text = b"# all\n\n \t a.example \r\nb # c\n\x0bd\x0b";
        let words = [(3, Content::Word(b"a.example")), (4, Content::Word(b"b"))];
        assert_eq!(read(text)[..2], words);
        assert_eq!(read(text)[2..], [(5, Content::Word(b"d"))]);
    }

    #[test]
    fn a_mark_in_front_goes_once() {
        assert_eq!(
            strip_mark(b"\xef\xbb\xbf\xef\xbb\xbfa"),
            (&b"\xef\xbb\xbfa"[..], true)
        );
        assert_eq!(strip_mark(b"a\xef\xbb\xbf"), (&b"a\xef\xbb\xbf"[..], false));
    }

    #[test]
    fn a_blank_inside_makes_a_line_no_rule() {
        assert_eq!(read(b"two words\n/white space/\na\x0bb").len(), 3);
        assert!(
            read(b"two words\n/white space/\na\x0bb")
                .iter()
                .all(|l| l.1 == Content::Blanks)
        );
    }

    #[test]
    fn a_pattern_has_two_slashes_and_something_between() {
        assert_eq!(read(b"/a/b/"), [(1, Content::Pattern(b"a/b"))]);
        assert_eq!(read(b"/a/ # /b"), [(1, Content::Pattern(b"a"))]);
        assert_eq!(read(b"a/"), [(1, Content::Word(b"a/"))]);
        for text in [&b"/"[..], b"//", b"/a"] {
            assert!(matches!(read(text)[..], [(1, Content::BrokenPattern(w, _))] if w == text));
        }
    }

    #[test]
    fn a_number_sign_cuts_a_pattern() {
        let lines = read(b"/cut#comment/");
        let [(1, Content::BrokenPattern(word, why))] = lines[..] else {
            panic!("{lines:?}")
        };
        assert_eq!(word, b"/cut");
        assert!(why.contains("\\x23"), "{why}");
    }
}
