//! The way back to the original, as the manual has it.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;
use std::process::Command;

use nix::sys::signal::{Signal, kill};
use nix::unistd::{Gid, Pid, Uid, User};
use postgrey::policy::record::Database;
use postgrey::sys::clock;

use super::common_original::ORIGINAL;
use super::common_server::{self, Client, make_dbdir, skip};
use super::docs::manual;
use super::manual::{scripts_of, write_script};
use super::original::{all, is_there};
use super::{ctl, fill};

/// The original as the recipe leaves it: in the background.
struct InBackground(Pid);

impl InBackground {
    /// Starts it as postgrey, which its package has made; `None` if it refuses.
    fn start(dbdir: &Path, socket: &Path, pid_file: &Path) -> Option<InBackground> {
        let output = Command::new(ORIGINAL)
            .arg("-d")
            .arg(format!("--unix={}", socket.display()))
            .arg(format!("--dbdir={}", dbdir.display()))
            .arg(format!("--pidfile={}", pid_file.display()))
            .output()
            .unwrap();
        if !output.status.success() {
            return None;
        }
        common_server::wait_until("its pid file", || pid_of(pid_file).is_some());
        let original = InBackground(pid_of(pid_file)?);
        common_server::wait_until("its socket", || Client::unix(socket).is_ok());
        Some(original)
    }
}

impl Drop for InBackground {
    fn drop(&mut self) {
        let _ = kill(self.0, Signal::SIGKILL);
        common_server::wait_until("its end", || !common_server::is_alive(self.0));
    }
}

fn pid_of(file: &Path) -> Option<Pid> {
    let number = fs::read_to_string(file).ok()?.trim().parse().ok()?;
    Some(Pid::from_raw(number))
}

#[test]
fn the_way_back_of_the_manual_leads_to_the_original() {
    if !is_there() {
        return;
    }
    let Ok(Some(user)) = User::from_name("postgrey") else {
        skip("user postgrey", "the way back to the original");
        return;
    };
    let folder = common_server::test_dir();
    let now = clock::seconds() as u64;
    let long = [
        b"192.0.2.0/",
        &[b's'; 500][..],
        b"@x.example/",
        &[b'r'; 500],
    ]
    .concat();
    let passed = format!("{},{},1,7", now - 5000, now - 4000).into_bytes();
    let waiting = format!("{0},{0},0,7", now - 400).into_bytes();
    let known = format!("5,{}", now - 100).into_bytes();
    let kept: &[(Database, &[u8], &[u8])] = &[
        (
            Database::Greylist,
            b"192.0.2.0/passed@x.example/user@example.org",
            &passed,
        ),
        (
            Database::Greylist,
            b"192.0.2.0/waiting@x.example/user@example.org",
            &waiting,
        ),
        (Database::Greylist, b"192.0.2.0//user@example.org", &passed),
        (
            Database::Greylist,
            b"192.0.2.0/\\x\xfc@x.example/user@example.org",
            &passed,
        ),
        (Database::Greylist, &long, &passed),
        (Database::Clients, b"203.0.113.9", &known),
        (Database::Clients, b"2001:DB8:0:0:0:0:0:7", &known),
        (Database::Tarpit, b"192.0.2.7", b"1700000000"),
    ];
    let own = folder.path().join("db");
    make_dbdir(&own);
    fill(&own, kept);
    for entry in fs::read_dir(&own).unwrap() {
        common_server::give_to_server(&entry.unwrap().path());
    }
    let back = folder.path().join("postgrey.original");
    let socket = folder.path().join("socket");
    let pid_file = folder.path().join("postgrey.pid");
    fs::write(&pid_file, "").unwrap();
    let wrapper = format!(
        "#!/bin/sh\nexec {} --dbdir={} \"$@\"\n",
        env!("CARGO_BIN_EXE_postgreyctl"),
        own.display()
    );
    write_script(&folder.path().join("postgreyctl"), &wrapper);
    let scripts = scripts_of(&manual(), "GOING BACK");
    assert_eq!(scripts.len(), 1);
    let script = scripts[0]
        .replace("/var/lib/postgrey.original", back.to_str().unwrap())
        .replace("/var/run/postgrey.pid", pid_file.to_str().unwrap());
    assert!(!script.contains("/var"), "{script}");
    let path = format!(
        "{}:{}",
        folder.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new("sh")
        .args(["-ec", &script])
        .env("PATH", path)
        .output()
        .unwrap();
    assert!(
        output.status.success() && output.stderr.is_empty(),
        "{output:?}"
    );
    let (uid, gid) = (user.uid, user.gid);
    let mode_of = |path: &Path, mode| {
        let found = fs::metadata(path).unwrap();
        assert_eq!(
            found.permissions().mode() & 0o7777,
            mode,
            "{}",
            path.display()
        );
        assert_eq!(
            (Uid::from_raw(found.uid()), Gid::from_raw(found.gid())),
            (uid, gid)
        );
    };
    mode_of(&back, 0o700);
    for name in ["postgrey.db", "postgrey_clients.db", "tarpit_clients.db"] {
        mode_of(&back.join(name), 0o600);
    }
    assert!(!pid_file.exists());
    // What makes the last line of the recipe necessary.
    fs::write(&pid_file, "").unwrap();
    assert!(InBackground::start(&back, &socket, &pid_file).is_none());
    fs::remove_file(&pid_file).unwrap();
    let original = InBackground::start(&back, &socket, &pid_file).expect("it starts");
    let mut client = Client::unix(&socket).unwrap();
    let mut ask = |address: &str, sender: &str| {
        let reply = client.ask(&[("client_address", address), ("sender", sender)]);
        reply.split(' ').next().unwrap().to_owned()
    };
    assert_eq!(ask("192.0.2.200", "passed@x.example"), "DUNNO");
    assert_eq!(ask("192.0.2.200", "waiting@x.example"), "PREPEND");
    assert_eq!(ask("192.0.2.200", ""), "DUNNO");
    assert_eq!(ask("192.0.2.200", "other@x.example"), "DEFER_IF_PERMIT");
    assert_eq!(ask("203.0.113.9", "other@x.example"), "DUNNO");
    assert_eq!(ask("2001:db8::7", "other@x.example"), "DUNNO");
    drop(original);
    // It has lost nothing: killed, it gives back what it was given.
    let again = tempfile::tempdir().unwrap();
    ctl(again.path(), &["import", back.to_str().unwrap()]).ok();
    for (database, key, _) in kept {
        let has_key = all(again.path(), *database).contains_key(*key);
        assert!(has_key, "{}", String::from_utf8_lossy(key));
    }
}
