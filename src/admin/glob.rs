//! Patterns with `*` and `?`, without regard to case, on octets.

/// True if the pattern matches the whole text. It takes at most as many steps
/// as pattern and text are long, multiplied.
pub fn matches(pattern: &[u8], text: &[u8]) -> bool {
    let (mut at, mut position) = (0, 0);
    // Where the last star stands, and up to where it has eaten.
    let mut star: Option<(usize, usize)> = None;
    while position < text.len() {
        match pattern.get(at) {
            Some(b'*') => {
                star = Some((at, position));
                at += 1;
            }
            Some(&octet) if octet == b'?' || octet.eq_ignore_ascii_case(&text[position]) => {
                at += 1;
                position += 1;
            }
            _ => match &mut star {
                Some((star_at, eaten)) => {
                    *eaten += 1;
                    (at, position) = (*star_at + 1, *eaten);
                }
                None => return false,
            },
        }
    }
    pattern[at..].iter().all(|&octet| octet == b'*')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stars_and_question_marks() {
        for (pattern, text, is_match) in [
            ("", "", true),
            ("*", "", true),
            ("a@b", "A@B", true),
            ("*@example.com", "x@example.com", true),
            ("*@example.com", "x@example.com.evil", false),
            ("*a*b", "xxaxxaxxb", true),
            ("a?c", "abc", true),
            ("a?c", "ac", false),
            ("a", "", false),
            ("", "a", false),
            ("**?", "a", true),
        ] {
            assert_eq!(
                matches(pattern.as_bytes(), text.as_bytes()),
                is_match,
                "{pattern} {text}"
            );
        }
        let (pattern, text) = ("*a".repeat(200), "a".repeat(500) + "b");
        assert!(!matches(pattern.as_bytes(), text.as_bytes()));
    }
}
