//! The options of `--store`, and the servers that they name.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use nix::unistd::{AccessFlags, access};

use super::Findings;
use crate::config::redis_address::Place;
use crate::config::settings::{Settings, StoreSettings};
use crate::store::redis;
use crate::sys::errors::describe;
use crate::sys::process;

/// How long the servers may take to answer everything.
const LONGEST_LOOK: Duration = Duration::from_secs(5);

/// Looks at these options. This process is the server's user.
pub fn check(settings: &Settings, findings: &mut Findings) {
    let store = &settings.store;
    let Some(servers) = &store.redis else {
        for option in given(store) {
            findings.note(format!("--{option}: of no use with --store=lmdb"));
        }
        return;
    };
    for (option, file) in [
        ("store-ca-file", &store.ca_file),
        ("store-certificate-file", &store.certificate_file),
    ] {
        if file.is_some() && !servers.tls {
            findings.note(format!("--{option}: of no use without TLS (rediss://)"));
        }
    }
    for (option, file, is_secret) in [
        ("store-password-file", &store.password_file, true),
        ("store-ca-file", &store.ca_file, false),
        ("store-certificate-file", &store.certificate_file, true),
    ] {
        if let Some(file) = file {
            check_file(option, file, is_secret, findings);
        }
    }
    if !servers.tls && store.password_file.is_some() && !is_local(&servers.place) {
        findings
            .note("--store: password and records go over the network in the clear: see rediss://");
    }
    if findings.problems.is_empty() {
        ask(settings, findings);
    }
}

/// Asks the servers for everything that is needed of them.
fn ask(settings: &Settings, findings: &mut Findings) {
    match redis::probe(settings, LONGEST_LOOK) {
        Some(Ok(notes)) => notes
            .iter()
            .for_each(|note| findings.note(format!("--store: {note}"))),
        Some(Err(error)) => findings.problem(format!("--store: {error}")),
        None => {}
    }
}

/// The companions of `--store` that were given.
fn given(store: &StoreSettings) -> Vec<&'static str> {
    let default = StoreSettings::default();
    [
        ("store-password-file", store.password_file.is_some()),
        ("store-ca-file", store.ca_file.is_some()),
        ("store-certificate-file", store.certificate_file.is_some()),
        ("store-prefix", store.prefix != default.prefix),
        ("store-timeout", store.timeout != default.timeout),
    ]
    .into_iter()
    .filter_map(|(option, is_given)| is_given.then_some(option))
    .collect()
}

fn check_file(option: &str, file: &Path, is_secret: bool, findings: &mut Findings) {
    let shown = file.display();
    let found = match fs::metadata(file) {
        Ok(found) => found,
        Err(error) => {
            return findings.problem(format!("--{option}: {shown}: {}", describe(&error)));
        }
    };
    if !found.is_file() {
        return findings.problem(format!("--{option}: {shown}: not a regular file"));
    }
    if access(file, AccessFlags::R_OK).is_err() {
        let user = process::current_identity().map_or_else(|_| "?".into(), |who| who.name);
        return findings.problem(format!(
            "--{option}: {shown}: user \"{user}\" may not read it"
        ));
    }
    let mode = found.mode();
    if is_secret && mode & 0o007 != 0 {
        let mode = mode & 0o7777;
        findings.note(format!(
            "--{option}: {shown}: others may read it (mode {mode:04o}): chmod o= {shown}"
        ));
    }
}

fn is_local(place: &Place) -> bool {
    let hosts = match place {
        Place::Unix(_) => return true,
        Place::Inet(host) => std::slice::from_ref(host),
        Place::Cluster(hosts) => hosts,
    };
    hosts.iter().all(|host| {
        host.host == "localhost"
            || (host.host.parse()).is_ok_and(|address: std::net::IpAddr| address.is_loopback())
    })
}
