//! What `--print-config` prints, read again, gives the same settings.

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;

use postgrey::config::settings::Settings;
use postgrey::config::{Invocation, parse, print_config};
use proptest::prelude::*;

fn settings(words: &[OsString]) -> Settings {
    let mut all = vec!["--print-config".into()];
    all.extend_from_slice(words);
    match parse(&all) {
        Ok(Invocation::PrintConfig(settings)) => *settings,
        other => panic!("{words:?}: {other:?}"),
    }
}

fn lines(printed: &[u8]) -> Vec<OsString> {
    printed
        .split_inclusive(|&byte| byte == b'\n')
        .map(|line| OsString::from_vec(line[..line.len() - 1].into()))
        .collect()
}

fn printed(words: &[&str]) -> String {
    let words: Vec<OsString> = words.iter().map(OsString::from).collect();
    String::from_utf8(print_config(&settings(&words))).expect("UTF-8")
}

#[test]
fn only_differences_are_printed() {
    assert_eq!(printed(&[]), "");
    assert_eq!(
        printed(&[
            "--delay=300",
            "--greylist-action=DEFER_IF_PERMIT",
            "--lookup-by-subnet"
        ]),
        ""
    );
    assert_eq!(
        printed(&[
            "-i",
            "60000",
            "--targrey",
            "-d",
            "--retry-window=6h",
            "--db-size=1024M",
            "--auto-whitelist-clients=0"
        ]),
        "--inet=localhost:60000\n--daemonize\n--db-size=1G\n--retry-window=6h\n--tarpit=125\n--targrey\n\
         --auto-whitelist-clients=0\n"
    );
    assert_eq!(
        printed(&["--whitelist-clients=/a", "--unix=/b c", "--unix=/d"]),
        "--unix=/b c\n--unix=/d\n--whitelist-clients=/a\n--whitelist-clients=/a.local\n"
    );
}

fn integers() -> impl Strategy<Value = String> {
    prop_oneof![
        "-?[0-9]{1,4}",
        "[0-9]{1,25}",
        any::<i64>().prop_map(|number| number.to_string())
    ]
}

fn word() -> impl Strategy<Value = OsString> {
    let flags = [
        "-d",
        "-v",
        "-q",
        "-n",
        "--exim",
        "--privacy",
        "--s25r",
        "--targrey",
        "--tarpit-per-message",
        "--tarpit",
        "--lookup-by-host",
        "--auto-whitelist-clients",
        "--sync=none",
        "--store=lmdb",
        "--store=redis://db",
        "--store=rediss://u@[::1]:7/3",
        "--store=redis+unix:///s?db=1",
        "--store=redis-cluster://a,b:1",
        "--compat=targrey-1.34",
        "--compat=postgrey-1.37",
        "--facility=local3",
    ];
    let numbers = [
        "delay",
        "max-age",
        "retry-count",
        "auto-whitelist-delay",
        "listen-queue-size",
    ];
    let texts = [
        "greylist-action",
        "greylist-text",
        "x-greylist-header",
        "hostname",
        "auto-whitelist-clients",
        "tarpit",
    ];
    let files = [
        "unix",
        "pidfile",
        "dbdir",
        "stats-file",
        "whitelist-clients",
        "whitelist-recipients",
        "whitelist-senders",
        "greylist-recipients",
        "suspect-clients",
        "s25r-except",
        "store-password-file",
        "store-ca-file",
        "store-certificate-file",
    ];
    let addresses = ["1", ":2", "*:3", "a:4", "[::1]:5", "::1:6", "0:7"];
    let with = |name: &str, value: &str| OsString::from(format!("--{name}={value}"));
    prop_oneof![
        prop::sample::select(flags.to_vec()).prop_map(OsString::from),
        (prop::sample::select(numbers.to_vec()), integers())
            .prop_map(move |(name, value)| with(name, &value)),
        (
            prop::sample::select(texts.to_vec()),
            "[0-9.%\\-]{1,3}|\\PC{1,12}"
        )
            .prop_map(move |(name, value)| with(name, &value)),
        (
            prop::sample::select(files.to_vec()),
            prop::collection::vec(any::<u8>(), 1..9)
        )
            .prop_map(|(name, bytes)| {
                let path = bytes.iter().map(|&byte| {
                    if matches!(byte, 0 | b'\n') {
                        b'x'
                    } else {
                        byte
                    }
                });
                OsString::from_vec(
                    format!("--{name}=")
                        .into_bytes()
                        .into_iter()
                        .chain(path)
                        .collect(),
                )
            }),
        prop::sample::select(addresses.to_vec()).prop_map(move |value| with("inet", value)),
        (1..=32_u8).prop_map(move |bits| with("ipv4cidr", &bits.to_string())),
        (1..=128_u8).prop_map(move |bits| with("ipv6cidr", &bits.to_string())),
        any::<u32>().prop_map(move |number| with("max-new", &number.to_string())),
        (50..=900_u16).prop_map(move |time| with("store-timeout", &time.to_string())),
        "[a-z:.-]{1,9}".prop_map(move |prefix| with("store-prefix", &prefix)),
        (1..=64_u8).prop_map(move |count| with("workers", &count.to_string())),
        (0..=0o777_u32).prop_map(move |mode| with("socketmode", &format!("{mode:o}"))),
        (1_u64 << 20..1 << 30).prop_map(move |size| with("db-size", &size.to_string())),
        "[0-9]{1,12}[hH]?".prop_map(move |value| with("retry-window", &value)),
    ]
}

proptest! {
    #[test]
    fn printed_settings_read_the_same(words in prop::collection::vec(word(), 0..12)) {
        let meant = settings(&words);
        let printed = print_config(&meant);
        let again = settings(&lines(&printed));
        prop_assert_eq!(&again, &meant);
        prop_assert_eq!(print_config(&again), printed);
    }

    #[test]
    fn no_words_panic(words in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..6)) {
        // A word of a command line cannot contain a zero.
        let words: Vec<OsString> = words
            .into_iter()
            .map(|bytes| OsString::from_vec(bytes.into_iter().map(|byte| byte.max(1)).collect()))
            .collect();
        let _ = parse(&words);
    }
}
