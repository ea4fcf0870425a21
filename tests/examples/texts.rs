//! The settings of Postfix that README, the page and `make install` show, each
//! as it stands.

use std::path::Path;

use crate::instance::Postfix;
use crate::server::{Server, make_dbdir, program_for_all, test_dir};
use crate::{begin, caught, expect_silent_check, file, options, placed, tarpit};

const SMTPD: &str = "smtp inet n - y - - smtpd\n";

pub fn take_each() {
    for (name, lists) in [
        ("README.md", of_readme("README.md")),
        ("README.ja.md", of_readme("README.ja.md")),
        ("make install", of_make_install()),
        ("postgrey.8", of_page()),
    ] {
        take(&lists);
        println!("check: {name}:\n{lists}");
    }
    take_spawned();
}

fn of_readme(name: &str) -> String {
    let text = file(name);
    let block = lines_from(&text, "    smtpd_recipient_restrictions =", |line| {
        !line.starts_with("    ")
    });
    block.replace("\n    ", "\n").trim_start().to_owned()
}

fn of_make_install() -> String {
    let text = file("Makefile");
    let block = lines_from(&text, "\t@echo '    smtpd_recipient_restrictions", |line| {
        !line.starts_with("\t@echo '    ")
    });
    let block = block.replace("\t@echo '    ", "").replace("'\n", "\n");
    let address = text.lines().find_map(|line| line.strip_prefix("INET = "));
    block.replace("$(INET)", address.unwrap())
}

/// It says in words that the second list is the same entry.
fn of_page() -> String {
    let text = file("man/postgrey.8");
    assert!(text.contains("the same entry belongs into\n.B smtpd_data_restrictions\n"));
    let block = lines_from(&text, "smtpd_recipient_restrictions =", |line| {
        line.starts_with('.')
    });
    let entry = block.split_once("check_policy_service").unwrap().1;
    format!("{block}smtpd_data_restrictions = check_policy_service{entry}")
}

/// The lines from the one that begins so to the one in front of the end.
fn lines_from(text: &str, first: &str, is_end: impl Fn(&str) -> bool) -> String {
    text.lines()
        .skip_while(|line| !line.starts_with(first))
        .take_while(|line| !is_end(line))
        .flat_map(|line| [line, "\n"])
        .collect()
}

fn take(lists: &str) {
    for name in [
        "smtpd_recipient_restrictions =",
        "smtpd_data_restrictions =",
    ] {
        assert_eq!(lists.matches(name).count(), 1, "{lists}");
    }
    let folder = test_dir();
    let home = folder.path();
    let postfix = Postfix::set_up(home, lists, SMTPD);
    expect_silent_check(&postfix);
    let example = placed(&file("conf/main.cf.example"), home);
    let options = options(&example);
    let options: Vec<&str> = options
        .into_iter()
        .filter(|o| !o.starts_with("--unix"))
        .collect();
    let server = Server::start(home, &options);
    begin(&postfix);
    tarpit(&postfix);
    drop(server);
    expect_no_trouble(&postfix);
}

fn expect_no_trouble(postfix: &Postfix) {
    let log = postfix.log_text();
    let is_trouble = |word: &&str| log.contains(*word);
    assert_eq!(
        ["warning:", "error:", "fatal:"]
            .iter()
            .find(|w| is_trouble(w)),
        None,
        "{log}"
    );
}

/// The entry of the page for spawn(8), which has no tarpit; `--dbdir` is that
/// of the test.
fn take_spawned() {
    let folder = test_dir();
    let home = folder.path();
    let page = file("man/postgrey.8").replace("\\-", "-");
    let entry = lines_from(&page, "postgrey unix - n n", |line| line.starts_with('.'));
    let entry = placed(&entry, home);
    let entry = format!(
        "{} --dbdir={}\n",
        entry.trim_end(),
        home.join("db").display()
    );
    let name = "check_policy_service unix:private/postgrey";
    assert!(page.contains(&format!(".B {name}\n")));
    make_dbdir(&home.join("db"));
    program_for_all(home);
    let lists = format!("smtpd_recipient_restrictions = reject_unauth_destination, {name}\n");
    let postfix = Postfix::set_up(home, &lists, &format!("{SMTPD}{entry}"));
    expect_silent_check(&postfix);
    begin(&postfix);
    let reply = caught(7).offer("a@sender.example", "spawned@example.org");
    assert!(
        reply.code == 450 && reply.text.contains("Greylisted, see "),
        "{reply}"
    );
    expect_no_trouble(&postfix);
    assert!(Path::new(&home.join("db/data.mdb")).exists());
    println!("check: postgrey.8:\n{entry}");
}
