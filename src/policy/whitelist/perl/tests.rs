use super::*;
use crate::policy::whitelist::patterns::Patterns;

/// What Perl 5.36 says about `text =~ /pattern/i`.
fn is_found(pattern: &str, text: &str) -> bool {
    let mut patterns = Patterns::default();
    patterns.add(pattern.as_bytes(), 0).expect(pattern);
    assert_eq!(patterns.finish(), []);
    patterns.find(text.as_bytes()).is_some()
}

#[test]
fn escapes_mean_what_they_mean_in_perl() {
    for (pattern, text) in [
        (r"^\x2e\x{61}\x61$", ".aA"),
        (r"^\056\0?\cA?$", "."),
        (r"^\<\>\_\-\/\@\#$", "<>_-/@#"),
        (r"^\q\y\i\E\Q$", "qyieq"),
        (r"\Aa\Z", "a"),
        (r"^\h\t\N$", "\t\tx"),
        (r"^[\h]\v\R\H\V$", "\t\n\r\nab"),
        (r"^\d\D\w\W\s\S\bx\Bx", "1aa. .xx"),
        (r"^(a)(b)\2\1$", "abba"),
        (r"^(a)\g1\g{1}$", "aaa"),
        (r"^(?<n>a|b)\k<n>\k{n}\k'n'$", "bbbb"),
    ] {
        assert!(is_found(pattern, text), "{pattern}");
        assert!(!is_found(pattern, "-"), "{pattern}");
    }
}

#[test]
fn brackets_have_no_set_operators() {
    for (pattern, yes, no) in [
        (r"^[a&&b]$", "&", "c"),
        (r"^[a~~b]$", "~", "c"),
        (r"^[[ab]$", "[", "c"),
        (r"^[]a]$", "]", "["),
        (r"^[^]a]$", "b", "]"),
        (r"^[\w-.]$", "-", "+"),
        (r"^[.-\w]$", "-", ":"),
        (r"^[-a]$", "-", "b"),
        (r"^[a-]$", "-", "b"),
        (r"^[--/]$", ".", ","),
        (r"^[+--]$", ",", "."),
        (r"^[a-z-9]$", "-", "8"),
        (r"^[1-\x39]$", "5", "-"),
        (r"^[[:digit:]-z]$", "-", "y"),
        (r"^[[:^digit:]]$", "a", "1"),
        (r"^[\b\1\]]$", "\u{8}", "b"),
    ] {
        assert!(is_found(pattern, yes), "{pattern}");
        assert!(!is_found(pattern, no), "{pattern}");
    }
}

#[test]
fn a_brace_is_a_repeat_only_with_numbers() {
    assert!(is_found("^a{,2}$", "aa") && !is_found("^a{,2}$", "aaa"));
    assert!(is_found("^a{2,}b{1}$", "aaab") && !is_found("^a{2,}b{1}$", "ab"));
    assert!(is_found("^a{x}{,}{$", "a{x}{,}{"));
}

#[test]
fn a_possessive_repeat_gives_nothing_back() {
    assert!(is_found("^a+?a$", "aa"));
    assert!(!is_found("^a++a$", "aa") && !is_found("^a{1,2}+a$", "aa"));
    assert!(is_found("^(?>a|ab)c", "ac") && !is_found("^(?>a|ab)c", "abc"));
}

#[test]
fn what_cannot_be_translated_is_refused() {
    for bad in [
        "\\",
        "[a",
        "[",
        "[^]",
        "[a\\",
        "[[:foo:]]",
        "a**",
        "a*?+",
        "a{3,2}",
        "a{99999}",
        "\\p{L}",
        "\\x{100}",
        "\\x{61",
        "[\\777]",
        "\\g",
        "\\k<a",
        "\\k<>",
        "[\\R]",
    ] {
        assert!(translate(bad.as_bytes()).is_err(), "{bad}");
    }
}
