//! The runbooks of README, "When something happens": each command as it stands,
//! but for the places, with the init script and a server in the background. The same
//! for what README.ja.md says of records, and for the way from 1.34 with taRgrey.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use postgrey::policy::record::Database;

use super::common_server::{
    common_options, give_to_server, make_dbdir, program_for_all, skip, test_dir,
};
use super::docs::write_wrapper;
use super::{ctl, import, keys_of};

/// A machine with the server, the tool and the init script.
struct Machine {
    dir: tempfile::TempDir,
    search: String,
}

impl Machine {
    fn new() -> Machine {
        let dir = test_dir();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir(path("backups")).unwrap();
        fs::create_dir(path("tmp")).unwrap();
        let words = common_options(dir.path()).into_iter();
        let options: Vec<String> = words.map(|word| word.into_string().unwrap()).collect();
        let settings = format!(
            "POSTGREY={}\nPIDFILE={}\nSVCS=/nonexistent\nPOSTGREY_OPTS=\"--unix={} {}\"\n",
            program_for_all(dir.path()).display(),
            path("run/pid").display(),
            path("run/s").display(),
            options.join(" ")
        );
        fs::write(path("defaults"), settings).unwrap();
        let search = write_wrapper(dir.path(), &dir.path().join("db"));
        Machine { dir, search }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn db(&self) -> PathBuf {
        self.path("db")
    }

    fn try_run(&self, script: &str) -> Output {
        let at = |name: &str| self.path(name).to_str().unwrap().to_owned();
        let init = Path::new(env!("CARGO_MANIFEST_DIR")).join("rc/postgrey");
        let script = script
            .replace("/etc/init.d/postgrey", &format!("sh {}", init.display()))
            .replace("/var/spool/postfix/postgrey", &at("db"))
            .replace("/var/backups", &at("backups"))
            .replace("/var/lib/postgrey", &at("old"))
            .replace("/var/tmp", &at("tmp"))
            .replace("/var/log/syslog", &at("log"))
            .replace("20261124", "`date +%Y%m%d`");
        assert!(!script.contains("/var/"), "{script}");
        Command::new("sh")
            .args(["-ec", &script])
            .env("PATH", &self.search)
            .env("POSTGREY_DEFAULTS", self.path("defaults"))
            .output()
            .unwrap()
    }

    /// Runs a script that goes well; what it prints.
    fn run(&self, script: &str) -> String {
        let output = self.try_run(script);
        assert!(output.status.success(), "{script}: {output:?}");
        String::from_utf8(output.stdout).unwrap()
    }

    fn clients(&self) -> Vec<String> {
        let keys = keys_of(&self.db(), Database::Clients).into_iter();
        keys.map(|key| String::from_utf8(key).unwrap()).collect()
    }

    fn add(&self, client: &str) {
        ctl(&self.db(), &["add", "client", client]).ok();
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let _ = self.try_run("/etc/init.d/postgrey stop");
    }
}

/// The scripts of a runbook, or of the text in front of them.
fn scripts(title: &str) -> Vec<String> {
    scripts_of("README.md", "When something", title)
}

/// Those of a part of a chapter, or of the text in front of its parts.
fn scripts_of(name: &str, chapter: &str, title: &str) -> Vec<String> {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    let text = fs::read_to_string(file).unwrap();
    let chapter = text.split("\n## ").find(|c| c.starts_with(chapter));
    let parts = chapter.unwrap().split("\n### ");
    let part = parts.into_iter().find(|part| part.starts_with(title));
    let mut found = vec![String::new()];
    for line in part.unwrap().lines() {
        match line.strip_prefix("    ") {
            Some(command) => *found.last_mut().unwrap() += &format!("{command}\n"),
            None if found.last().unwrap().is_empty() => {}
            None => found.push(String::new()),
        }
    }
    found.retain(|script| !script.is_empty());
    found
}

const START: &str = "/etc/init.d/postgrey start";

#[test]
fn a_backup_is_made_gone_back_to_and_helps_after_damage() {
    let machine = Machine::new();
    machine.run(START);
    machine.add("192.0.2.1");
    let [first] = &scripts("When something")[..] else {
        panic!("one script");
    };
    let said = machine.run(first);
    assert!(said.starts_with("POSTGREY OK - "), "{said}");
    assert!(said.contains("\n--whitelist-clients=/dev/null\n"), "{said}");
    assert!(said.contains("\nServer: process "), "{said}");

    let [nightly] = &scripts("A backup each night")[..] else {
        panic!("one script");
    };
    let said = machine.run(nightly);
    assert!(
        said.contains("postgrey_clients.db: 1 records, 0 bad"),
        "{said}"
    );

    machine.add("192.0.2.2");
    let [back] = &scripts("Going back to a backup")[..] else {
        panic!("one script");
    };
    let said = machine.run(back);
    assert!(said.contains("\nPOSTGREY OK - "), "{said}");
    assert_eq!(machine.clients(), ["192.0.2.1"]);
    assert!(machine.path("db/data.mdb.replaced").exists());

    machine.run("/etc/init.d/postgrey stop");
    fs::write(machine.path("db/data.mdb"), "no database").unwrap();
    machine.run(START);
    super::common_server::wait_until("an empty one", || ctl(&machine.db(), &["ping"]).status == 0);
    assert!(machine.path("db/data.mdb.damaged").exists());
    machine.add("192.0.2.3");
    let [mend] = &scripts("The database is damaged")[..] else {
        panic!("one script");
    };
    machine.run(mend);
    assert_eq!(machine.clients(), ["192.0.2.1", "192.0.2.3"]);
    assert!(!machine.path("db/data.mdb.damaged").exists());
    ctl(&machine.db(), &["ping"]).ok();
}

#[test]
fn what_is_not_needed_goes_from_a_full_disk() {
    let machine = Machine::new();
    machine.run(START);
    machine.add("192.0.2.1");
    for name in [
        "data.mdb.damaged",
        "data.mdb.damaged.last",
        "data.mdb.replaced",
    ] {
        fs::write(machine.db().join(name), "old").unwrap();
    }
    let [remove, compact] = &scripts("The disk is full")[..] else {
        panic!("two scripts");
    };
    let said = machine.run(remove);
    assert!(said.contains("\nPOSTGREY OK - "), "{said}");
    let mut left: Vec<_> = fs::read_dir(machine.db())
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    left.sort();
    let expected = ["data.mdb", "lock.mdb", "postgrey.lock", "postgrey.options"];
    assert_eq!(left, expected);
    let said = machine.run(compact);
    assert!(said.contains(" octets before, "), "{said}");
    assert_eq!(machine.clients(), ["192.0.2.1"]);
    ctl(&machine.db(), &["ping"]).ok();
}

#[test]
fn records_move_to_another_machine() {
    let (old, new) = (Machine::new(), Machine::new());
    let [export, import] = &scripts("Moving to another machine")[..] else {
        panic!("two scripts");
    };
    old.run(START);
    new.run(START);
    for clients in [&["192.0.2.1"][..], &["192.0.2.1", "192.0.2.2"]] {
        old.add(clients.last().unwrap());
        old.run(export);
        let text = "tmp/postgrey.txt";
        fs::copy(old.path(text), new.path(text)).unwrap();
        let said = new.run(import);
        assert!(said.contains("\nServer: process "), "{said}");
        assert_eq!(new.clients(), clients);
    }
}

/// What the package does is in tests/deb.sh.
#[test]
fn records_of_the_original_can_be_imported_later() {
    if Command::new("db_dump").arg("-V").output().is_err() {
        skip("db_dump", "the import of a runbook");
        return;
    }
    let machine = Machine::new();
    let [look, later] = &scripts("Moving in from Debian's")[..] else {
        panic!("two scripts");
    };
    machine.run(START);
    let said = machine.run(look);
    assert!(said.contains("\nPOSTGREY OK - "), "{said}");
    make_dbdir(&machine.path("old"));
    import::unpack_berkeley(&import::samples()[1], &machine.path("old"));
    for entry in fs::read_dir(machine.path("old")).unwrap() {
        give_to_server(&entry.unwrap().path());
    }
    let said = machine.run(later);
    assert!(said.contains(" taken, "), "{said}");
    assert!(!machine.clients().is_empty());
}

/// In the order of README.ja.md: a triplet that waits, how the server explains it, what
/// the file holds, and what is changed.
#[test]
fn records_are_read_as_the_japanese_readme_says() {
    let chapter = "レコードを読む";
    let all = scripts_of("README.ja.md", chapter, chapter);
    let [look, list, explain, dump, shown, change] = &all[..] else {
        panic!("six scripts: {all:#?}");
    };
    let machine = Machine::new();
    machine.run(START);
    let (triplet, record) = ("192.0.2.0/alice@example.com/bob@example.org", "2,91");
    let record = format!("{0},{0},{record}", seconds_now());
    fs::write(
        machine.path("records"),
        format!(
            "postgrey.db\t{triplet}\t{record}\ntarpit_clients.db\t192.0.2.91\t{}\n",
            seconds_now()
        ),
    )
    .unwrap();
    let records = machine.path("records");
    ctl(&machine.db(), &["import", records.to_str().unwrap()]).ok();

    let said = machine.run(look);
    assert!(said.starts_with("POSTGREY OK - "), "{said}");
    let said = machine.run(list);
    assert!(
        said.contains("<alice@example.com> <bob@example.org>"),
        "{said}"
    );
    fs::write(
        machine.path("log"),
        "Nov 24 02:27:10 mx postgrey[7]: action=greylist, reason=new, client_name=unknown, \
         client_address=192.0.2.91, sender=alice@example.com, recipient=bob@example.org\n",
    )
    .unwrap();
    let said = machine.run(explain);
    assert_eq!(said.matches(&format!("{triplet}: ")).count(), 2, "{said}");
    assert_eq!(said.matches("\nanswer ").count(), 2, "{said}");

    let (ours, theirs) = dump.split_once('\n').unwrap();
    let said = machine.run(ours);
    assert_eq!(said, format!("{triplet}\t{record}\n"));
    if Command::new("mdb_dump").arg("-V").output().is_ok() {
        let said = machine.run(theirs);
        assert!(
            said.contains(&format!("\n {triplet}\n {record}\n")),
            "{said}"
        );
        // What README shows has this form.
        let form = |text: &str| {
            let lines = text.lines().map(|line| line.split_whitespace().next());
            lines.flatten().map(String::from).collect::<Vec<_>>()
        };
        assert_eq!(form(shown)[0], triplet);
        assert_eq!(form(shown)[1].split(',').count(), record.split(',').count());
    } else {
        skip("mdb_dump", "how README.ja.md reads the file");
    }

    machine.run(change);
    assert!(machine.clients().is_empty());
    let left = ctl(&machine.db(), &["dump", "tarpit"]);
    assert_eq!(left.text(), "");
}

fn seconds_now() -> u64 {
    let now = std::time::SystemTime::now();
    now.duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}

/// Both READMEs say it in the same commands, which are run as root's would be; `make
/// install` aside.
#[test]
fn records_of_1_34_with_targrey_move_in() {
    if Command::new("db_dump").arg("-V").output().is_err() {
        skip("db_dump", "moving in from 1.34");
        return;
    }
    let chapter = "taRgrey を組み込んだ postgrey 1.34 からの移行";
    let [japanese] = &scripts_of("README.ja.md", chapter, chapter)[..] else {
        panic!("one script");
    };
    let [english] = &scripts_of("README.md", "Solaris 11", "Moving in from postgrey 1.34")[..]
    else {
        panic!("one script");
    };
    assert_eq!(japanese, english);
    let script: String = english
        .lines()
        .map(|line| line.strip_prefix("# ").unwrap())
        .filter(|line| !line.starts_with("make install "))
        .map(|line| line.replace("/usr/local/sbin/", "") + "\n")
        .collect();
    let machine = Machine::new();
    machine.run(START);
    import::unpack_berkeley(&import::samples()[0], &machine.db());
    for entry in fs::read_dir(machine.db()).unwrap() {
        give_to_server(&entry.unwrap().path());
    }
    let said = machine.run(&script);
    assert!(said.contains(" taken, "), "{said}");
    assert!(machine.path("tmp/postgrey-1.34/postgrey.db").exists());
    assert!(!keys_of(&machine.db(), Database::Greylist).is_empty());
    ctl(&machine.db(), &["ping"]).ok();
}
