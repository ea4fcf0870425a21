//! The grammar of the command line: each row was tried with Perl's
//! Getopt::Long, and each message and exit status was seen there.

use postgrey::config::options::{Group, OPTIONS};
use postgrey::config::settings::Settings;
use postgrey::config::{Invocation, help_text};
use postgrey::log::Level;

use crate::{inet, parse_words, refused, rules, settings, unix};

#[test]
fn forms_of_an_option() {
    for words in [
        &["--delay=5"][..],
        &["--delay", "5"],
        &["-delay", "5"],
        &["--delay=+5"],
        &["--delay=_5_"],
    ] {
        assert_eq!(rules(words).delay, 5.0, "{words:?}");
    }
    for words in [
        &["-i", "0:10023"][..],
        &["--i", "0:10023"],
        &["--i=0:10023"],
        &["-inet", "0:10023", "-targrey"],
    ] {
        assert_eq!(settings(words).listen, inet(Some("0"), 10023), "{words:?}");
    }
    for words in [
        &["--u", "/x"][..],
        &["-u", "/x"],
        &["--unix", "/x"],
        &["--unix=/x"],
        &["-unix", "/x"],
    ] {
        assert_eq!(settings(words).listen, unix("/x"), "{words:?}");
    }
    assert_eq!(settings(&["--unix==a=b"]).listen, unix("=a=b"));
    assert!(rules(&["-inet", "10023", "-targrey"]).targrey);
    assert_eq!(settings(&["--v"]).verbosity, Level::Three);
    assert!(settings(&["--d"]).daemonize);
}

#[test]
fn unknown_options() {
    for (word, name) in [
        ("--bogus", "bogus"),
        ("--bogus=1", "bogus"),
        ("-bogus=1", "bogus=1"),
        ("-delay=5", "delay=5"),
        ("-tarpit=5", "tarpit=5"),
        ("-u=x", "u=x"),
        ("-u=", "u="),
        ("-h=3", "h=3"),
        ("-i=10023", "i=10023"),
        ("-i10023", "i10023"),
        ("-dv", "dv"),
        ("-vq", "vq"),
        ("--del=7", "del"),
        ("--verb", "verb"),
        ("--white", "white"),
        ("--tar", "tar"),
        ("--Delay=3", "Delay"),
        ("--nodaemonize", "nodaemonize"),
        ("--=x", "=x"),
        ("-=x", "=x"),
        ("---delay=5", "-delay"),
        ("--un ix=5", "un ix"),
        ("--targrey extra", "targrey extra"),
        ("-ü", "ü"),
        ("--tarpit -5", "tarpit -5"),
    ] {
        refused(&[word], &format!("Unknown option: {name}"), 1);
    }
    refused(&["--tarpit", "-5"], "Unknown option: 5", 1);
    refused(&["--auto-whitelist-clients", "-3"], "Unknown option: 3", 1);
}

#[test]
fn optional_values() {
    let tarpit = |words: &[&str]| rules(words).tarpit;
    for words in [
        &["--tarpit"][..],
        &["--tarpit="],
        &["-tarpit"],
        &["--tarpit", "-q"],
        &["--tarpit", ""],
    ] {
        assert_eq!(tarpit(words).as_deref(), Some("65"), "{words:?}");
    }
    for words in [
        &["--tarpit=70"][..],
        &["--tarpit", "70"],
        &["-tarpit", "70"],
        &["--tarpit=1", "--tarpit=70"],
    ] {
        assert_eq!(tarpit(words).as_deref(), Some("70"), "{words:?}");
    }
    assert_eq!(settings(&["--tarpit", "-q"]).verbosity, Level::One);
    assert_eq!(tarpit(&["--tarpit=5", "--tarpit"]).as_deref(), Some("65"));
    assert_eq!(tarpit(&["--tarpit", "-"]).as_deref(), Some("-"));
    assert_eq!(tarpit(&["--tarpit=--"]).as_deref(), Some("--"));
    assert_eq!(tarpit(&["--tarpit=1m30s"]).as_deref(), Some("1m30s"));
    assert_eq!(
        tarpit(&["--tarpit", "--", "--targrey"]).as_deref(),
        Some("65")
    );
    assert_eq!(tarpit(&[]), None);
    assert_eq!(tarpit(&["--tarpit=0"]), None);
    assert_eq!(tarpit(&["--tarpit=0", "--targrey"]).as_deref(), Some("0"));
    assert_eq!(tarpit(&["--targrey"]).as_deref(), Some("125"));
    assert_eq!(tarpit(&["--targrey", "--tarpit"]).as_deref(), Some("65"));
}

#[test]
fn required_values() {
    // The value may look like an option.
    refused(
        &["--inet", "-d"],
        "ERROR: Could not determine port number from host [*]:-d",
        255,
    );
    refused(
        &["-i", "--delay=3"],
        "ERROR: Could not determine port number from host [*]:--delay=3",
        255,
    );
    assert_eq!(settings(&["--unix", "--", "-d"]).listen, unix("--"));
    assert_eq!(settings(&["--unix", "-"]).listen, unix("-"));
    for (words, name) in [
        (&["--inet="][..], "inet"),
        (&["--inet"], "inet"),
        (&["--u="], "u"),
        (&["-u"], "u"),
        (&["--delay"], "delay"),
        (&["--delay="], "delay"),
        (&["--facility="], "facility"),
        (&["--hostname="], "hostname"),
        (&["--greylist-text="], "greylist-text"),
    ] {
        refused(words, &format!("Option {name} requires an argument"), 1);
    }
    // As a word of its own it may be empty; then it means the default.
    assert_eq!(
        settings(&["--hostname", "", "--greylist-text", "", "--dbdir", ""]),
        Settings::default()
    );
    refused(
        &["--unix", ""],
        "ERROR: --unix or --inet must be specified",
        2,
    );
}

#[test]
fn flags_take_no_value() {
    for (word, name) in [
        ("--targrey=1", "targrey"),
        ("--help=", "help"),
        ("--h=3", "h"),
        ("--d=3", "d"),
        ("--v=", "v"),
        ("--no-action=1", "no-action"),
    ] {
        refused(
            &[word],
            &format!("Option {name} does not take an argument"),
            1,
        );
    }
}

#[test]
fn numbers() {
    for words in [&["--delay=abc"][..], &["--delay", "abc"]] {
        refused(
            words,
            "Value \"abc\" invalid for option delay (number expected)",
            1,
        );
    }
    for value in ["1.5", "0x10", " 7", "7x", "a\"b", "+", "_", "1-"] {
        let message = format!("Value \"{value}\" invalid for option delay (number expected)");
        refused(&[&format!("--delay={value}")], &message, 1);
    }
    for value in ["", "--", "--targrey"] {
        let message = format!("Value \"{value}\" invalid for option delay (number expected)");
        refused(&["--delay", value], &message, 1);
    }
    assert_eq!(rules(&["--delay", "-5"]).delay, -5.0);
    assert_eq!(rules(&["--retry-count=-1"]).retry_count, -1.0);
    assert_eq!(rules(&["--max-age=7"]).max_age, 7.0 * 86400.0);
    assert_eq!(rules(&["--delay=1_000"]).delay, 1000.0);
}

#[test]
fn zero_means_the_default() {
    for name in [
        "delay",
        "max-age",
        "ipv4cidr",
        "ipv6cidr",
        "max-new",
        "retry-count",
        "auto-whitelist-delay",
    ] {
        for zero in ["0", "00", "-0", "+0"] {
            assert_eq!(
                settings(&[&format!("--{name}={zero}")]),
                Settings::default(),
                "{name}={zero}"
            );
        }
    }
    for name in ["greylist-action", "greylist-text", "x-greylist-header"] {
        assert_eq!(
            settings(&[&format!("--{name}=0")]),
            Settings::default(),
            "{name}"
        );
    }
    assert_eq!(settings(&["--hostname=0"]).texts.hostname, "0");
    assert_eq!(rules(&["--retry-window=0"]).retry_window, 0.0);
}

#[test]
fn other_words_end_the_options() {
    for end in ["foo", "--", "-", "", "+delay=5"] {
        assert_eq!(
            rules(&["--delay=4", end, "--delay=3", "--bogus"]).delay,
            4.0,
            "{end}"
        );
    }
    refused(
        &["stray", "--unix=/x"],
        "ERROR: --unix or --inet must be specified\n\
         \"stray\" is no option: it is ignored, and so is what follows: --unix=/x",
        2,
    );
    for (words, ignored) in [
        (&["--unix=/x"][..], None),
        (&["--unix=/x", "--"], None),
        (
            &["--unix=/x", "trailing"],
            Some("\"trailing\" is no option: it is ignored"),
        ),
        (
            &["--unix=/x", "-"],
            Some("\"-\" is no option: it is ignored"),
        ),
        (
            &["--inet=10023", "delay=5", "--max-age=90"],
            Some("\"delay=5\" is no option: it is ignored, and so is what follows: --max-age=90"),
        ),
        (
            &[
                "--inet=10023",
                "--greylist-text=Try",
                "again",
                "later",
                "--privacy",
            ],
            Some("\"again\" is no option: it is ignored, and so is what follows: later --privacy"),
        ),
        (
            &["--inet=10023", "--", "--privacy"],
            Some("ignored after \"--\": --privacy"),
        ),
    ] {
        let Ok(Invocation::Serve(settings)) = parse_words(words) else {
            panic!("{words:?}")
        };
        assert_eq!(settings.ignored_words.as_deref(), ignored);
        assert!(!settings.rules.privacy && settings.rules.delay == 300.0);
        let with_check = [&["--check"], words].concat();
        let Ok(Invocation::Check { problems, .. }) = parse_words(&with_check) else {
            panic!("{words:?}")
        };
        assert_eq!(problems, Vec::from_iter(ignored));
    }
}

#[test]
fn aliases_and_letters() {
    for word in [
        "--syslog-facility=local0",
        "--syslogfacility=local0",
        "--facility=LOG_LOCAL0",
    ] {
        assert_eq!(settings(&[word]).syslog_facility, "local0", "{word}");
    }
    for word in ["--noaction", "--no-action", "-n", "--n", "-noaction"] {
        assert!(settings(&[word]).noaction, "{word}");
    }
    for (words, verbosity) in [
        (&["-q"][..], Level::One),
        (&["-v"], Level::Three),
        (&["-q", "-v"], Level::One),
    ] {
        assert_eq!(settings(words).verbosity, verbosity, "{words:?}");
    }
    for (word, invocation) in [
        ("-h", Invocation::Help),
        ("--help", Invocation::Help),
        ("--version", Invocation::Version),
        ("--man", Invocation::Man),
    ] {
        assert_eq!(parse_words(&[word]), Ok(invocation), "{word}");
    }
}

#[test]
fn every_mistake_is_said() {
    refused(
        &["--delay=abc", "--bogus", "-q"],
        "Value \"abc\" invalid for option delay (number expected)\nUnknown option: bogus",
        1,
    );
    refused(
        &["--sync=x", "--ipv4cidr=33"],
        "ERROR: --sync must be commit or none\n\
         ERROR: --ipv4cidr must be a number from 1 to 32, or 0 for the default\n\
         ERROR: --unix or --inet must be specified",
        2,
    );
}

#[test]
fn help_names_every_option() {
    let help = help_text();
    for spec in OPTIONS {
        for name in spec.names() {
            let dashed = if name.len() == 1 {
                format!(" -{name},")
            } else {
                format!("--{name}")
            };
            assert!(help.contains(&dashed), "{dashed}");
        }
        assert!(help.contains(spec.help), "{}", spec.name);
    }
    for group in Group::ALL {
        assert!(
            help.contains(group.title()) && OPTIONS.iter().any(|spec| spec.group == group),
            "{group:?}"
        );
    }
}

#[test]
fn names_are_unique() {
    let mut names: Vec<_> = OPTIONS.iter().flat_map(|spec| spec.names()).collect();
    let before = names.len();
    names.sort();
    names.dedup();
    assert_eq!(names.len(), before);
}

#[test]
fn check_goes_on_after_a_mistake() {
    let Ok(Invocation::Check {
        settings,
        problems,
        notes,
    }) = parse_words(&[
        "--check",
        "--bogus",
        "--inet=abc",
        "--workers=9999",
        "--delay=7",
        "--max-age=0",
    ])
    else {
        panic!("no check")
    };
    assert_eq!(settings.rules.delay, 7.0);
    assert_eq!(notes, ["--max-age=0 stands for the default, 35"]);
    assert_eq!(
        problems,
        [
            "Unknown option: bogus",
            "ERROR: Could not determine port number from host [*]:abc",
            "ERROR: --workers must be a number from 1 to 64",
        ]
    );
}
