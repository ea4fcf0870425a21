//! `conf/main.cf.example` and `conf/master.cf.example`, whole and word for word
//! but for places, user and seconds of the tarpit, in a real Postfix: each way
//! to name the server that they show, with smtpd chrooted and not. Then what
//! README, page and `make install` show.
//!
//! They name ports (25, 60000) and a list in DNS, so the test runs in a network
//! of its own that has nothing but a loopback interface: it starts itself again
//! by unshare(1).
#![allow(clippy::unwrap_used, clippy::expect_used)]

#[path = "../postfix/instance.rs"]
mod instance;
#[path = "../common/server.rs"]
mod server;
#[path = "../postfix/smtp.rs"]
mod smtp;
mod texts;

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use instance::Postfix;
use server::{Server, is_root, program_for_all, skip, test_dir, wait_until};
use smtp::{Reply, Smtp};

/// Set in the process that is in the network of its own.
const INSIDE: &str = "POSTGREY_TEST_NETWORK";
/// Of the tarpit, in the place of 125 seconds.
const SLEEP: Duration = Duration::from_secs(2);
const AT_ONCE: Duration = Duration::from_millis(1500);
const COMMENT: &str = "#   check_policy_service ";

fn main() {
    let mut words = std::env::args().skip(1);
    let is_listing = std::env::args().any(|arg| arg == "--list");
    let is_filtered_out = words
        .find(|arg| !arg.starts_with('-'))
        .is_some_and(|name| !"examples".contains(&name));
    if is_listing || is_filtered_out {
        return;
    }
    if !Path::new("/usr/sbin/postfix").exists() || !is_root() {
        skip("postfix, or root,", "the examples in a real Postfix");
    } else if std::env::var_os(INSIDE).is_none() {
        start_inside();
    } else {
        let raised = Command::new("ip")
            .args(["link", "set", "lo", "up"])
            .status();
        if raised.is_ok_and(|status| status.success()) {
            take_each_form();
            texts::take_each();
        } else {
            skip("ip (iproute2)", "the examples in a real Postfix");
        }
    }
}

fn start_inside() {
    let unshare = |program: &Path| {
        let mut command = Command::new("unshare");
        command.args(["--net", "--"]).arg(program).env(INSIDE, "1");
        command
    };
    let possible = unshare(Path::new("true"))
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if !possible {
        skip("unshare --net", "the examples in a real Postfix");
        return;
    }
    let status = unshare(&std::env::current_exe().unwrap()).status().unwrap();
    std::process::exit(status.code().unwrap_or(1));
}

/// An example with the places of a test, its user, and a tarpit of 2 seconds.
fn example(name: &str, home: &Path) -> String {
    placed(&file(&format!("conf/{name}")), home)
}

/// A file of the project.
fn file(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

/// A text with the places of a test, its user, and a tarpit of 2 seconds.
fn placed(text: &str, home: &Path) -> String {
    let home = home.display().to_string();
    let mut text = text.to_owned();
    for (ours, theirs) in [
        ("/etc/postfix", "HOME/etc"),
        ("/var/spool/postfix/postgrey", "HOME/db"),
        ("/var/spool/postfix", "HOME/queue"),
        ("/usr/local/sbin/postgrey", "HOME/run/postgrey"),
        ("user=postgrey ", "user=nobody "),
        ("postgrey:postgrey", "nobody:"),
        ("--tarpit=125", "--tarpit=2"),
    ] {
        text = text.replace(ours, &theirs.replace("HOME", &home));
    }
    text
}

/// The ways to name the server: those of the comments of main.cf.example, and
/// the one of master.cf.example.
fn forms(main: &str, master: &str) -> Vec<String> {
    let of_main = main.lines().filter_map(|line| line.strip_prefix(COMMENT));
    let mut forms: Vec<String> = of_main.map(String::from).collect();
    let of_master = master
        .split("check_policy_service ")
        .skip(2)
        .map(|rest| rest.split_whitespace().next().unwrap());
    forms.extend(of_master.map(|form| form.trim_end_matches('.').to_owned()));
    forms
}

fn take_each_form() {
    let nowhere = Path::new("/nowhere");
    let main = example("main.cf.example", nowhere);
    let forms = forms(&main, &example("master.cf.example", nowhere));
    println!("forms: {forms:#?}");
    assert_eq!(forms.len(), 5);
    // A port is the same from inside and outside of a chroot.
    for (form, is_chrooted) in forms
        .iter()
        .map(|form| (form, true))
        .chain(forms.iter().map(|form| (form, false)))
        .filter(|(form, is_chrooted)| *is_chrooted || form.contains("unix:"))
    {
        take(form, is_chrooted);
        println!("check: chrooted={is_chrooted}: {form}");
    }
    println!("examples: {} forms, chrooted and not", forms.len());
}

/// Has Postfix ask the server under this name.
fn take(form: &str, is_chrooted: bool) {
    let folder = test_dir();
    let home = folder.path();
    let main = example("main.cf.example", home);
    let shown = "check_policy_service { inet:127.0.0.1:60000, timeout=10s, default_action=DUNNO },";
    let lists = main.lines().filter(|line| line.trim() == shown).count();
    assert_eq!(lists, 2, "{main}");
    let named = main.replace(shown, &format!("check_policy_service {form},"));
    let master = entries(&example("master.cf.example", home), is_chrooted);
    let postfix = Postfix::set_up(home, &named, &master);
    for table in [
        "permit_client_nots25r",
        "whitelist_client",
        "whitelist_recipient",
    ] {
        fs::write(home.join("etc").join(table), example(table, home)).unwrap();
    }
    program_for_all(home);
    let commands = commands(&main);
    for command in &commands {
        let output = Command::new("sh")
            .args(["-c", command])
            .env("MAIL_CONFIG", home.join("etc"))
            .output()
            .unwrap();
        assert!(
            output.status.success() && output.stderr.is_empty(),
            "{output:?}"
        );
    }
    assert_eq!(commands.len(), 5, "{commands:?}");
    expect_silent_check(&postfix);
    let is_spawned = form.contains("private/") || form.contains("60001");
    let server = (!is_spawned).then(|| Server::start(home, &options(&main)));
    begin(&postfix);
    mail(&postfix);
    drop(server);
    // The list of DNSWL was looked up, in a network without a name server.
    let log = postfix.log_text();
    let trouble = |line: &&str| {
        ["warning:", "error:", "fatal:"]
            .iter()
            .any(|w| line.contains(w))
    };
    let (of_dnswl, other): (Vec<&str>, Vec<&str>) = log
        .lines()
        .filter(trouble)
        .partition(|line| line.contains(".list.dnswl.org: RBL lookup error: "));
    assert!(other.is_empty(), "{form}: {other:#?}\n{log}");
    assert!(!of_dnswl.is_empty(), "{log}");
}

/// `postfix check` has nothing to say.
fn expect_silent_check(postfix: &Postfix) {
    let checked = postfix.run("check");
    let said = format!(
        "{}{}",
        String::from_utf8_lossy(&checked.stderr),
        postfix.log_text()
    );
    assert!(
        checked.status.success() && !said.contains("warning"),
        "{said}"
    );
}

/// Starts it, and waits until it serves.
fn begin(postfix: &Postfix) {
    postfix.begin();
    wait_until("smtpd to listen", || {
        TcpStream::connect(("127.0.0.1", 25)).is_ok()
    });
}

/// The entries, with `y` in the column chroot of smtpd or not.
fn entries(master: &str, is_chrooted: bool) -> String {
    let chroot = |line: &str| {
        let mut fields: Vec<&str> = line.split_whitespace().collect();
        if fields.last() != Some(&"smtpd") || line.starts_with('#') {
            return line.to_owned();
        }
        assert_eq!(fields[4], "n", "{line}");
        if is_chrooted {
            fields[4] = "y";
        }
        fields.join(" ")
    };
    let lines: Vec<String> = master.lines().map(chroot).collect();
    lines.join("\n") + "\n"
}

/// The commands in the comments: tables are made, and the directory of the
/// socket.
fn commands(main: &str) -> Vec<String> {
    main.lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(str::trim)
        .filter(|line| {
            ["postmap ", "mkdir ", "chown ", "chmod "]
                .iter()
                .any(|c| line.starts_with(c))
        })
        .map(String::from)
        .collect()
}

/// The options in the comments, in the foreground and on the UNIX socket as
/// well; the directory of the database is given by the test.
fn options(main: &str) -> Vec<&'static str> {
    let words = main
        .split_once("postgrey -d --dbdir=")
        .unwrap()
        .1
        .split_once("\n#\n")
        .unwrap()
        .0
        .split_whitespace()
        .skip(1)
        .filter(|word| !["\\", "#"].contains(word));
    let socket = main.split_once("--unix=").unwrap().1;
    let socket = socket.split_once(".\n").unwrap().0;
    let options = words.map(String::from).chain([format!("--unix={socket}")]);
    let options: Vec<&str> = options.map(|o| &*Box::leak(o.into_boxed_str())).collect();
    assert_eq!(options.len(), 8, "{options:?}");
    options
}

fn has_slept(reply: &Reply) -> bool {
    reply.code == 250 && (SLEEP..SLEEP + Duration::from_secs(8)).contains(&reply.time)
}

/// What the set-up promises to a mail server, to one that waits, and to one
/// that does not.
fn mail(postfix: &Postfix) {
    let mut known = Smtp::appear_as(25, "192.0.2.1", "mail.example.com");
    let reply = known.offer("a@sender.example", "known@example.org");
    assert!(reply.code == 250 && reply.time < AT_ONCE, "{reply}");
    tarpit(postfix);
}

/// A client whose name looks like a dial-up line.
fn caught(address: u8) -> Smtp {
    let name = format!("adsl-198-51-100-{address}.tokyo.example.net");
    Smtp::appear_as(25, &format!("198.51.100.{address}"), &name)
}

/// Who waits is let in and leaves the tarpit, who does not is greylisted.
fn tarpit(postfix: &Postfix) {
    let mut patient = caught(5);
    let reply = patient.offer("a@sender.example", "patient@example.org");
    assert!(has_slept(&reply), "{reply}");
    let reply = patient.deliver("patient");
    assert_eq!(reply.code, 250, "{reply}");
    // DATA was asked about: the client has left the tarpit.
    let reply = patient.offer("b@sender.example", "again@example.org");
    assert_eq!(reply.code, 250, "{reply}");
    let mails = postfix.wait_for_mail("patient", 1);
    assert_eq!(mails.len(), 1);

    let mut impatient = caught(6);
    let reply = impatient.offer("a@sender.example", "impatient@example.org");
    assert!(has_slept(&reply), "{reply}");
    drop(impatient);
    let reply = caught(6).offer("a@sender.example", "impatient@example.org");
    assert_eq!(reply.code, 450, "{reply}");
    assert!(reply.text.contains("Greylisted, see "), "{reply}");
}
