//! Tables as people have them, and what they mean.

use super::{Exceptions, Reason, Verdict};
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

/// The exceptions of a file, and what is said about it.
pub(super) fn read(text: &str) -> (Exceptions, Vec<String>) {
    let mut exceptions = Exceptions::default();
    let complaints = exceptions.add_file("F", text.as_bytes());
    let said = complaints.iter().map(|c| {
        let mark = if c.fatal { "fatal " } else { "" };
        format!("{mark}{c}")
    });
    (exceptions, said.collect())
}

/// The verdict, and the line of the exception or else the rule.
fn judged(exceptions: &Exceptions, name: &str, address: &str) -> String {
    let (verdict, reason) = exceptions.judge(name.as_bytes(), address.as_bytes());
    let verdict = match verdict {
        Verdict::Ok => "ok",
        Verdict::Suspicious => "suspicious",
    };
    match reason {
        Reason::Exception(source) => format!("{verdict} {}", source.line),
        Reason::KeptOut(source) => format!("{verdict} but for {}", source.line),
        Reason::Rule(rule) => format!("{verdict} by rule {rule}"),
        Reason::NoRule => format!("{verdict} by no rule"),
    }
}

fn check(text: &str, cases: &[(&str, &str)]) {
    let (exceptions, said) = read(text);
    assert_eq!(said, [""; 0], "{text}");
    for (name, wanted) in cases {
        let judged = judged(&exceptions, name, "192.0.2.7");
        assert_eq!(&judged, wanted, "{text} {name}");
    }
}

#[test]
fn actions_of_postfix_are_words() {
    for (action, wanted) in [
        ("OK", "ok 1"),
        ("OK they have digits", "ok 1"),
        ("permit", "ok 1"),
        ("RELAY", "ok 1"),
        ("WARN", "suspicious 1"),
        ("WARN S25R #1", "suspicious 1"),
        ("INFO x", "suspicious 1"),
        ("450", "suspicious 1"),
        ("450 S25R check, be patient", "suspicious 1"),
        ("451 4.7.1 later", "suspicious 1"),
        ("421 x", "suspicious 1"),
        ("DEFER be patient", "suspicious 1"),
        ("DEFER_IF_PERMIT 4.7.1 x", "suspicious 1"),
        ("defer_if_reject", "suspicious 1"),
        ("greylist", "suspicious 1"),
        ("check_policy_service inet:127.0.0.1:10023", "suspicious 1"),
        ("suspicious", "suspicious 1"),
        ("suspicious # why", "suspicious 1"),
        ("ok#why", "ok 1"),
        ("DUNNO", "suspicious by rule 1"),
        ("dunno ask the rules", "suspicious by rule 1"),
    ] {
        check(
            &format!("/^a1b2/ {action}"),
            &[("a1b2.example.com", wanted)],
        );
    }
}

#[test]
fn what_cannot_be_done_here_is_refused_by_line() {
    for (action, why) in [
        (
            "PREPEND X-S25R: yes",
            "'PREPEND' is neither 'suspicious' nor 'ok'",
        ),
        ("FILTER smtp:x", "'FILTER' is neither 'suspicious' nor 'ok'"),
        ("HOLD", "'HOLD' is neither 'suspicious' nor 'ok'"),
        (
            "REDIRECT a@example.com",
            "'REDIRECT' is neither 'suspicious' nor 'ok'",
        ),
        ("DISCARD", "'DISCARD' is neither 'suspicious' nor 'ok'"),
        (
            "BCC a@example.com",
            "'BCC' is neither 'suspicious' nor 'ok'",
        ),
        ("my_class", "'my_class' is neither 'suspicious' nor 'ok'"),
        ("1234", "'1234' is neither 'suspicious' nor 'ok'"),
        ("4500", "'4500' is neither 'suspicious' nor 'ok'"),
        (
            "REJECT no",
            "'REJECT' is neither 'suspicious' nor 'ok': to reject is left to Postfix",
        ),
        (
            "550 no",
            "'550' is neither 'suspicious' nor 'ok': to reject is left to Postfix",
        ),
        ("", "'suspicious' or 'ok' is missing after the pattern"),
    ] {
        let (exceptions, said) = read(&format!("# a table\n/^a/ OK\n/^b/ {action}\n"));
        assert_eq!(said, [format!("fatal F line 3: {why}")]);
        assert_eq!(exceptions.len(), 1);
    }
}

#[test]
fn dunno_ends_its_table_alone() {
    let (mut e, said) = read("/^a/ DUNNO\n/^a/ OK\n/^b1c2/ OK\n");
    assert_eq!(said, [""; 0]);
    assert_eq!(
        judged(&e, "a1b2.example", "192.0.2.7"),
        "suspicious by rule 1"
    );
    assert_eq!(judged(&e, "abc.example", "192.0.2.7"), "ok by no rule");
    // As in Postfix, the next table is asked.
    assert_eq!(e.add_file("G", b"\n\n\n/^a1/ OK\n"), []);
    assert_eq!(judged(&e, "a1b2.example", "192.0.2.7"), "ok 4");
}

#[test]
fn conditions_nest_and_may_be_negated() {
    let text = "\
        if /\\.example\\.net$/\n\
        /^mx/ OK\n\
        if !/^gw/\n\
        /./ WARN\n\
        ENDIF\n\
        endif\n\
        IF!/[0-9]/\n\
        /^q/ 450 be patient\n\
        endif\n\
        /^d[0-9]/ OK\n";
    check(
        text,
        &[
            ("mx1-2.example.net", "ok 2"),
            ("mail.example.net", "suspicious 4"),
            ("gw.example.net", "ok by no rule"),
            ("gw1-2.example.net", "suspicious by rule 1"),
            ("mail.example.org", "ok by no rule"),
            ("q.example.org", "suspicious 8"),
            ("q1.example.org", "ok by no rule"),
            ("d1-2.example.org", "ok 10"),
        ],
    );
}

#[test]
fn lines_go_on_after_a_blank() {
    let text = "\
        # a table\r\n\
        /^[^.]*dyn\r\n\
        \t# in the middle\r\n\
        \r\n\
        # and one more\r\n\
        \x20.*x/\r\n\
        \tWARN\r\n\
        if /^a/\r\n\
        /^ab/ 450 be\r\n\
        \x20 patient\r\n\
        endif\r\n\
        unknown ok\r\n";
    check(
        text,
        &[
            // The blank is part of the expression, as in Postfix.
            ("a-dyn .x", "suspicious 2"),
            ("a-dyn.x", "ok by no rule"),
            ("ab.example", "suspicious 9"),
            ("unknown", "ok 12"),
        ],
    );
}

#[test]
fn a_line_that_was_meant_to_be_one_is_told() {
    for (inner, told) in [
        ("/^b/ OK", true),
        ("!/^b/ WARN", true),
        ("endif", true),
        ("b.example ok", true),
        ("be patient ok", false),
        ("please ok", false),
        ("|(/x/) OK", false),
    ] {
        let (e, said) = read(&format!("/^a/ 450 x\n   {inner}\n"));
        let why = "F line 2: begins with a blank and so goes on with line 1: it is no line of its \
                   own";
        assert_eq!(said, [why].repeat(usize::from(told)), "{inner}");
        assert_eq!(
            judged(&e, "b1c2.example", "192.0.2.7"),
            "suspicious by rule 1"
        );
    }
    let (e, said) = read("if /^a/\n  /^ab/ OK\n/^ac/ OK\nendif\n");
    assert_eq!(
        said[1],
        "F line 1: what follows on the line of if or endif is ignored"
    );
    assert_eq!(judged(&e, "ac1b2.example", "192.0.2.7"), "ok 3");
}

#[test]
fn flags_and_delimiters_are_those_of_postfix() {
    check(
        "/^A/i OK\n|^b\\|x|m OK\n%^c/%x WARN\n  be patient\n! !/^[a-z]/ WARN\n!!/^e/ OK\n\
         \"^f1g2\" OK\n",
        &[
            ("A1b2.example", "ok 1"),
            ("a1b2.example", "suspicious 5"),
            ("B|x1y2", "ok 2"),
            ("c/1a2", "suspicious 3"),
        ],
    );
    for (line, why) in [
        (
            "/a/k OK",
            "'k' after the regular expression is none of the flags i, m and x",
        ),
        (
            "/a/!/b/ OK",
            "'!' after the regular expression is none of the flags i, m and x",
        ),
        (
            "!example.com OK",
            "a regular expression stands between two slashes",
        ),
        ("! OK", "a regular expression stands between two slashes"),
        ("!", "the regular expression is missing"),
        ("|a/ OK", "the regular expression does not end with '|'"),
    ] {
        assert_eq!(read(line).1, [format!("fatal F line 1: {why}")]);
    }
}

#[test]
fn a_condition_that_cannot_be_used_takes_its_lines_along() {
    let (e, said) = read("if /(/\n/^a/ OK\nif /b/\n/^b/ OK\nendif\nendif\n/^c/ OK\n");
    let why = "bad regular expression: unclosed group; the lines up to its endif are left out";
    assert_eq!(said, [format!("fatal F line 1: {why}")]);
    assert_eq!(
        judged(&e, "a1b2.example", "192.0.2.7"),
        "suspicious by rule 1"
    );
    assert_eq!(
        judged(&e, "b1b2.example", "192.0.2.7"),
        "suspicious by rule 1"
    );
    assert_eq!(judged(&e, "c1b2.example", "192.0.2.7"), "ok 7");
    let (e, said) = read("endif\nif /^a/\nif /^ab/\n/1/ OK\n");
    assert_eq!(
        said,
        [
            "fatal F line 1: endif without an if",
            "fatal F line 3: the endif of this if is missing",
            "fatal F line 2: the endif of this if is missing",
        ]
    );
    assert_eq!(judged(&e, "ab1c2.example", "192.0.2.7"), "ok 4");
    assert_eq!(
        judged(&e, "a1c2.example", "192.0.2.7"),
        "suspicious by rule 1"
    );
}

#[test]
fn an_address_is_looked_up_where_the_name_gives_nothing() {
    let text = "/^192\\.0\\.2\\.7$/ OK\n/^198\\.51\\.100\\./ 450 x\n/^2001:db8::7$/ OK\n\
                /^203\\.0\\.113\\.1$/ DUNNO\n/^203\\.0\\.113\\./ OK\n/^known/ WARN\n\
                192.0.2.example ok\n";
    let (mut e, said) = read(text);
    assert_eq!(said, [""; 0]);
    for (name, address, wanted) in [
        ("a1b2.example", "192.0.2.7", "ok 1"),
        ("unknown", "192.0.2.7", "ok 1"),
        ("192.0.2.7", "192.0.2.7", "ok 1"),
        ("known1b2.example", "192.0.2.7", "suspicious 6"),
        ("a1b2.example", "192.0.2.77", "suspicious by rule 1"),
        ("mail.example", "198.51.100.4", "suspicious 2"),
        ("unknown", "2001:db8::7", "ok 3"),
        ("unknown", "203.0.113.1", "suspicious by rule 0"),
        ("unknown", "203.0.113.2", "ok 5"),
        ("unknown", "", "suspicious by rule 0"),
    ] {
        assert_eq!(judged(&e, name, address), wanted, "{name} {address}");
    }
    // File by file, as Postfix asks its tables.
    assert_eq!(e.add_file("G", b"/^a1b2/ 450 x\n"), []);
    assert_eq!(judged(&e, "a1b2.example", "192.0.2.7"), "ok 1");
    assert_eq!(judged(&e, "a1b2.example", "192.0.2.8"), "suspicious 1");
}

#[test]
fn a_name_that_is_an_address_is_unknown() {
    for name in [
        "192.0.2.7",
        "[192.0.2.7]",
        "2001:db8::7",
        "[2001:db8::7]",
        "",
    ] {
        check("", &[(name, "suspicious by rule 0")]);
        check("/^unknown$/ OK\n", &[(name, "ok 1")]);
        check("unknown ok\n", &[(name, "ok 1")]);
        check(
            "if /^unknown$/\n!/x/ WARN\nendif\n",
            &[(name, "suspicious 2")],
        );
    }
}

/// The rules, as many write them in one line.
const IN_PLACE: &str = "!/(^unknown$)|(^[^.]*[0-9][^0-9.]+[0-9].*\\.)|(dyn)/ OK\n";

#[test]
fn a_negated_ok_takes_the_place_of_the_rules() {
    let (e, said) = read(&format!(
        "/^ok1b2/ OK\n/^warn/ WARN\n/^dunno/ DUNNO\n{IN_PLACE}/^mx-dyn/ OK\n"
    ));
    assert_eq!(
        said,
        [
            "F line 4: takes the place of the rules of s25r(7): names that do not match pass, all \
             other clients are suspicious; it is asked for names alone, never for addresses"
        ]
    );
    for (name, wanted) in [
        ("mail.example.com", "ok 4"),
        // Only the built-in rules know this name.
        ("host12345.example.com", "ok 4"),
        ("ok1b2.example.com", "ok 1"),
        ("warn.example.com", "suspicious 2"),
        ("dunno.example.com", "suspicious but for 4"),
        ("dunno1b2.example.com", "suspicious but for 4"),
        ("a1b2.example.com", "suspicious but for 4"),
        // Only this table knows that one.
        ("dyn.example.com", "suspicious but for 4"),
        ("unknown", "suspicious but for 4"),
        ("192.0.2.7", "suspicious but for 4"),
        ("mx-dyn.example.com", "ok 5"),
    ] {
        assert_eq!(judged(&e, name, "192.0.2.7"), wanted, "{name}");
        assert_eq!(judged(&e, name, "2001:db8::7"), wanted, "{name}");
    }
}

#[test]
fn the_place_of_the_rules_is_for_those_who_are_asked() {
    let (mut e, said) = read(&format!(
        "if /\\.example\\.net$/\n{IN_PLACE}endif\n/^192\\.0\\.2\\.9$/ OK\n"
    ));
    assert_eq!(said.len(), 1);
    for (name, address, wanted) in [
        ("host12345.example.net", "192.0.2.7", "ok 2"),
        ("dyn.example.net", "192.0.2.7", "suspicious but for 2"),
        ("dyn.example.net", "192.0.2.9", "ok 4"),
        ("dyn.example.org", "192.0.2.7", "ok by no rule"),
        ("host12345.example.org", "192.0.2.7", "suspicious by rule 2"),
        ("unknown", "192.0.2.7", "suspicious by rule 0"),
    ] {
        assert_eq!(judged(&e, name, address), wanted, "{name} {address}");
    }
    // A later table may let in whom the first one did not.
    assert_eq!(e.add_file("G", b"/^dyn/ OK\n"), []);
    assert_eq!(judged(&e, "dyn.example.net", "192.0.2.7"), "ok 1");
}

#[test]
fn what_is_negated_never_decides_about_an_address() {
    check(
        "!/\\.example$/ WARN\n",
        &[
            ("mail.example", "ok by no rule"),
            ("mail.test", "suspicious 1"),
        ],
    );
    check(
        "if !/\\.example$/\n/./ WARN\nendif\n",
        &[
            ("mail.example", "ok by no rule"),
            ("mail.test", "suspicious 2"),
        ],
    );
}

proptest! {
    #[test]
    fn any_text_is_read_and_asked(
        pieces in vec(select(vec![
            "if ", "endif", "!", "/", "|", "^a", "[0-9]", "[", "(", ")", "\\", "\n", " ", "\r\n ",
            "#", "ok", " OK\n", " WARN\n", " 450 x\n", " DUNNO\n", "/i", "example.com", "192.0.2.7",
            "{2}", "*", "\u{feff}", "\u{e9}", "/a/ OK\n", "if /1/\n", "endif\n",
        ]), 0..40),
        name in "[a-z0-9.-]{0,20}",
    ) {
        let text = pieces.concat();
        let mut exceptions = Exceptions::default();
        let lines = text.split('\n').count();
        for complaint in exceptions.add_file("F", text.as_bytes()) {
            prop_assert!((1..=lines).contains(&complaint.source.line), "{complaint}");
            prop_assert!(!complaint.why.contains('\n'), "{complaint}");
        }
        exceptions.judge(name.as_bytes(), b"192.0.2.7");
    }
}
