//! A server's part of the tests: the same policy on the same environment.

use std::ffi::OsString;
use std::path::Path;
use std::sync::atomic::AtomicU64;

use postgrey::config::{self, Invocation, whitelists};
use postgrey::policy::decide::Policy;
use postgrey::policy::held::Held;
use postgrey::policy::instances::Instances;
use postgrey::policy::request::{Attribute, Request};
use postgrey::store::Store;

use super::answer::answer;
pub use super::answer::no_mails;
use super::store;

/// A policy as these options of the server make it.
pub fn policy(options: &[&str]) -> Policy {
    let mut words = vec![OsString::from("--print-config")];
    words.extend(options.iter().map(OsString::from));
    let settings = match config::parse(&words) {
        Ok(Invocation::PrintConfig(settings)) => *settings,
        other => panic!("{other:?}"),
    };
    Policy {
        whitelists: whitelists::load(&settings).whitelists,
        rules: settings.rules,
        texts: settings.texts,
        is_dry_run: false,
    }
}

pub fn request(attributes: &[(Attribute, &str)]) -> Request {
    let mut request = Request::default();
    request.set(Attribute::Request, b"smtpd_access_policy");
    for (attribute, value) in attributes {
        request.set(*attribute, value.as_bytes());
    }
    request
}

/// What a server would answer at this time, and do, that has held no mail yet.
pub fn ask(policy: &Policy, store: &mut dyn Store, request: &Request, now: f64) -> String {
    ask_again(policy, store, request, now, Held::new(&no_mails()))
}

/// The same, of one that remembers these.
pub fn ask_again(
    policy: &Policy,
    store: &mut dyn Store,
    request: &Request,
    now: f64,
    held: Held,
) -> String {
    let ring = std::array::from_fn(|_| AtomicU64::new(0));
    answer(
        policy,
        store,
        request,
        now,
        held,
        Instances::new(&ring),
        None,
    )
    .0
}

/// The answer to a mail from `a@b` to `c@d`, as a server with these options
/// gives it now.
pub fn ask_now(dir: &Path, options: &[&str], address: &str) -> String {
    let request = request(&[
        (Attribute::ClientAddress, address),
        (Attribute::ClientName, "mail.example"),
        (Attribute::Sender, "a@b"),
        (Attribute::Recipient, "c@d"),
    ]);
    let now = postgrey::sys::clock::seconds();
    ask(&policy(options), &mut store(dir), &request, now)
}
