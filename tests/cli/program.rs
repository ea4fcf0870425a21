//! The program itself: exit statuses, and what goes to which stream.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

fn run(words: &[&str]) -> (i32, String, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_postgrey"))
        .args(words)
        .env("PATH", "/nonexistent")
        .output()
        .expect("the program runs");
    let text = |bytes: Vec<u8>| String::from_utf8(bytes).expect("UTF-8");
    (
        output.status.code().expect("it exits"),
        text(output.stdout),
        text(output.stderr),
    )
}

#[test]
fn information_goes_to_standard_output() {
    assert_eq!(
        run(&["--version"]),
        (0, "postgrey 2.0.0\n".into(), String::new())
    );
    for word in ["--help", "-h"] {
        let (status, stdout, stderr) = run(&[word]);
        assert_eq!((status, stderr.as_str()), (0, ""));
        assert!(stdout.starts_with("Usage: postgrey "), "{stdout}");
    }
    let (status, stdout, stderr) = run(&["--print-config", "--delay=7", "-i", ":60000"]);
    assert_eq!(
        (status, stdout.as_str(), stderr.as_str()),
        (0, "--inet=*:60000\n--delay=7\n", "")
    );
}

#[test]
fn mistakes_go_to_standard_error() {
    for (words, status, message) in [
        (&["--bogus"][..], 1, "Unknown option: bogus\n"),
        (
            &["--delay=abc"],
            1,
            "Value \"abc\" invalid for option delay (number expected)\n",
        ),
        (&["--delay"], 1, "Option delay requires an argument\n"),
        (
            &["--targrey=1"],
            1,
            "Option targrey does not take an argument\n",
        ),
        (&[], 2, "ERROR: --unix or --inet must be specified\n"),
        (
            &["--inet=abc"],
            255,
            "ERROR: Could not determine port number from host [*]:abc\n",
        ),
    ] {
        assert_eq!(
            run(words),
            (status, String::new(), message.into()),
            "{words:?}"
        );
    }
    let (status, stdout, stderr) = run(&["--man"]);
    assert_eq!((status, stdout.as_str()), (2, ""));
    assert!(stderr.starts_with("can't run man: "), "{stderr}");
}

#[test]
fn check_is_content_with_a_good_setup() {
    let directory = tempfile::tempdir().expect("a directory");
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let dbdir = directory.path().join("db");
    fs::create_dir(&dbdir).expect("a directory");
    let nobody = nix::unistd::User::from_name("nobody")
        .expect("users")
        .expect("nobody");
    if nix::unistd::Uid::effective().is_root() {
        nix::unistd::chown(&dbdir, Some(nobody.uid), None).expect("chown");
    }
    fs::set_permissions(&dbdir, fs::Permissions::from_mode(0o700)).expect("chmod");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("list"), "example.com\n").expect("a file");
    let words = [
        format!("--whitelist-clients={}", path("list")),
        format!("--whitelist-recipients={}", path("list")),
        format!("--dbdir={}", dbdir.display()),
        format!("--unix={}", path("socket")),
        format!("--pidfile={}", path("pid")),
        "--inet=127.0.0.1:0".into(),
        "--user=nobody".into(),
        "--check".into(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    assert_eq!(run(&words), (0, String::new(), String::new()));
    let left: Vec<_> = fs::read_dir(directory.path())
        .expect("a directory")
        .collect();
    assert_eq!(left.len(), 2, "nothing was created");
    assert_eq!(fs::read_dir(&dbdir).expect("a directory").count(), 0);
}

#[test]
fn check_says_everything() {
    let directory = tempfile::tempdir().expect("a directory");
    let path = |name: &str| directory.path().join(name).display().to_string();
    fs::write(path("file"), "").expect("a file");
    let (missing, file) = (path("missing"), path("file"));
    let words = [
        format!("--whitelist-clients={missing}"),
        format!("--whitelist-recipients={file}"),
        format!("--dbdir={missing}"),
        format!("--unix={file}"),
        format!("--unix={missing}/socket"),
        format!("--unix=/tmp/{}", "x".repeat(120)),
        format!("--stats-file={missing}/statistics"),
        "--inet=host.invalid:1".into(),
        "--inet=192.0.2.1:1".into(),
        "--inet=:1".into(),
        "--inet=:1".into(),
        "--user=no-such-user".into(),
        "--group=no-such-group".into(),
        "--tarpit=1m30s".into(),
        format!("--s25r-except={file}"),
        "--greylist-action=DUNNO".into(),
        "--workers=0".into(),
        "--check".into(),
    ];
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let (status, stdout, stderr) = run(&words);
    assert_eq!((status, stdout.as_str()), (1, ""));
    for problem in [
        "ERROR: --workers must be a number from 1 to 64".to_owned(),
        format!("note: can't open {missing}: No such file or directory"),
        "ERROR: No such user \"no-such-user\"".into(),
        "ERROR: No such group \"no-such-group\"".into(),
        format!("--dbdir: {missing}: No such file or directory"),
        format!(
            "note: --stats-file: {missing}: No such file or directory: no statistics are written"
        ),
        format!("--unix: {file}: exists and is not a socket"),
        format!("--unix: {missing}: No such file or directory"),
        "--inet: *:1 is given twice".into(),
        "--inet: 192.0.2.1:1: Can't assign requested address".into(),
        "--tarpit: Postfix refuses SLEEP 1m30s: give digits only".into(),
        "note: --s25r-except: of no use without --s25r".into(),
    ] {
        let is_said = stderr
            .lines()
            .any(|line| line.replace("Cannot", "Can't").starts_with(&problem));
        assert!(is_said, "{problem}\n--\n{stderr}");
    }
    assert!(
        stderr.contains("--inet: host.invalid:1: ") && stderr.contains("refuses \"DUNNO\""),
        "{stderr}"
    );
    assert!(stderr.contains("File name too long"), "{stderr}");
    assert!(!stderr.contains(".local"), "{stderr}");
    assert!(!Path::new(&missing).exists());
}
