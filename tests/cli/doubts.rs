//! `--check` names the entries of lists and tables that match nobody, each
//! with file and line, as notes: a start survives them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use crate::machine::skip;

/// Checks these lists: the exit status, and the notes about them.
fn check(lists: &[String]) -> (i32, Vec<String>) {
    let dbdir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dbdir.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let output = Command::new(env!("CARGO_BIN_EXE_postgrey"))
        .args(["--check", "--inet=127.0.0.1:0", "--user=nobody", "--s25r"])
        .arg(format!("--dbdir={}", dbdir.path().display()))
        .args(lists)
        .output()
        .expect("the program runs");
    let said = String::from_utf8(output.stderr).expect("UTF-8");
    let files = lists
        .iter()
        .filter_map(|list| Some(list.split_once('=')?.1));
    let mut files: Vec<&str> = files.collect();
    files.push("note: --greylist-recipients: ");
    let notes = said
        .lines()
        .filter(|line| files.iter().any(|file| line.contains(file)))
        .map(str::to_owned);
    (output.status.code().expect("it exits"), notes.collect())
}

#[test]
fn entries_that_match_nothing_are_notes() {
    let dir = tempfile::tempdir().expect("a directory");
    fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let list = |option: &str, text: &str| {
        let path = dir.path().join(option);
        fs::write(&path, text).expect("a file");
        (
            format!("--{option}={}", path.display()),
            path.display().to_string(),
        )
    };
    let (clients, clients_file) = list(
        "whitelist-clients",
        "# twenty years old\nexample.com\nuser@example.com\n192.0.2.1-192.0.2.9\n\
         192.0.2.0/255.255.255.0\n[192.0.2.7]\n192.0.2.\na.example,b.example\n\
         http://example.com/\nexample.org/\n192.0.2.0/24\n",
    );
    let (recipients, recipients_file) = list(
        "whitelist-recipients",
        "\u{feff}postmaster@\r\n192.0.2.0/24\r\n.example.com\r\n",
    );
    let (table, table_file) = list(
        "s25r-except",
        "192.0.2.7 ok\n/^192\\.0\\.2\\.7$/ OK\n!/(^unknown$)|(^[^.]*[0-9]{5})/ OK\n",
    );
    let (status, notes) = check(&[clients, recipients, table]);
    let told = (3..=10).map(|line| format!("{clients_file} line {line}: matches nothing: "));
    let told = told.chain([
        format!("{recipients_file} line 1: the byte order mark"),
        format!("{recipients_file} line 2: matches nothing: "),
        format!("{recipients_file} line 3: matches nothing: "),
        format!("{table_file} line 1: matches nothing: "),
        format!("{table_file} line 3: takes the place of the rules"),
    ]);
    let told: Vec<String> = told.map(|text| format!("note: {text}")).collect();
    assert_eq!(notes.len(), told.len(), "{notes:#?}");
    for (note, told) in notes.iter().zip(&told) {
        assert!(note.starts_with(told.as_str()), "{note}\n{told}");
    }
    assert_eq!(status, 0);
}

/// Of lists that options name: mistakes, what is missing, and who stands in two.
#[test]
fn lists_that_options_name_are_checked() {
    let folder = tempfile::tempdir().expect("a folder");
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    let list = |option: &str, text: &str| {
        let path = folder.path().join(option);
        fs::write(&path, text).expect("a list");
        (
            format!("--{option}={}", path.display()),
            path.display().to_string(),
        )
    };
    let (clients, clients_file) = list(
        "whitelist-clients",
        "good.bulk.example\nwhite.example\n198.51.100.0/24\n192.0.2.7\n/^mx-/\n",
    );
    let (senders, senders_file) = list(
        "whitelist-senders",
        "<>\n192.0.2.7\n<a@b.example>\npostmaster\n/[/\n",
    );
    let (opted_in, opted_in_file) = list("greylist-recipients", ".example.com\na@b.example\n");
    let (suspects, suspects_file) = list(
        "suspect-clients",
        "bulk.example\nuser@bulk.example\nmx.white.example\n198.51.100.9\n192.0.2.0/24\n\
         /^mx-/\n/^mx/\nother.example\n",
    );
    let (status, notes) = check(&[clients.clone(), senders, opted_in, suspects.clone()]);
    let wins = |suspect: usize, line: usize, how: &str| {
        format!(
            "{suspects_file} line {suspect}: {clients_file} line {line} whitelists {how}, and wins"
        )
    };
    let expected = [
        format!("{senders_file} line 2: matches nothing: a sender has no network"),
        format!("{senders_file} line 3: matches nothing: write the address without < and >"),
        format!("{senders_file} line 4: a word without @ is a domain; write postmaster@"),
        format!("{senders_file} line 5: bad pattern: "),
        format!("{opted_in_file} line 1: matches nothing: no domain begins with a dot"),
        format!("{suspects_file} line 2: matches nothing: a client has no mail address"),
        wins(3, 2, "it"),
        wins(4, 3, "it"),
        wins(6, 5, "it"),
        wins(1, 1, "a part of it"),
        wins(5, 4, "a part of it"),
    ];
    assert_eq!(notes.len(), expected.len(), "{notes:#?}");
    for (note, told) in notes.iter().zip(&expected) {
        assert!(note.starts_with(&format!("note: {told}")), "{note}\n{told}");
    }
    assert_eq!(status, 0);
    // A pool that a line excludes.
    let (pools, pools_file) = list("pool-domains", "!amazonaws.com\nmx.com\namazonaws.com\n");
    let (status, notes) = check(&["--lookup-by-domain".into(), pools]);
    let told = format!("note: {pools_file} line 3: {pools_file} line 1 excludes it, and wins");
    assert_eq!((status, notes), (0, vec![told]));
    // A list of its own says nothing of the other.
    let (status, notes) = check(&[suspects]);
    assert_eq!((status, notes.len()), (0, 1), "{notes:#?}");
    // What is missing, and what has nothing in it.
    let nobody = "note: --greylist-recipients: no recipient is listed: no mail is greylisted";
    let (empty, _) = list("empty", "# nobody yet\n");
    let (status, notes) = check(&[empty.replace("--empty", "--greylist-recipients")]);
    assert_eq!((status, notes), (0, vec![nobody.to_owned()]));
    for option in [
        "whitelist-senders",
        "greylist-recipients",
        "suspect-clients",
    ] {
        let (status, mut notes) = check(&[format!("--{option}=/nonexistent/list")]);
        if option == "greylist-recipients" {
            assert_eq!(notes.pop().as_deref(), Some(nobody));
        }
        let told = "note: can't open /nonexistent/list: No such file or directory";
        assert_eq!((status, notes), (0, vec![told.to_owned()]), "{option}");
    }
}

#[test]
fn nothing_is_said_of_the_lists_that_are_shipped() {
    let conf = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf");
    let option = |option: &str, file: &str| format!("--{option}={}", conf.join(file).display());
    let (status, notes) = check(&[
        option("whitelist-clients", "postgrey_whitelist_clients"),
        option("whitelist-recipients", "postgrey_whitelist_recipients"),
    ]);
    assert_eq!((status, notes), (0, Vec::new()));
}

#[test]
fn nothing_is_said_of_the_lists_of_the_original() {
    let folder = Path::new("/usr/share/postgrey");
    let file = |name: &str| folder.join(name).display().to_string();
    if !folder.join("whitelist_clients").exists() {
        skip("postgrey", "lists of the original");
        return;
    }
    for compat in ["postgrey-1.37", "targrey-1.34"] {
        let (status, mut notes) = check(&[
            format!("--compat={compat}"),
            format!("--whitelist-clients={}", file("whitelist_clients")),
            format!("--whitelist-recipients={}", file("whitelist_recipients")),
        ]);
        // 1.34 had no networks of IPv6, which the list of 1.37 has.
        if compat == "targrey-1.34" {
            notes.retain(|note| !note.contains("an IPv6 address is compared as text"));
        }
        assert_eq!((status, notes), (0, Vec::new()), "{compat}");
    }
}
