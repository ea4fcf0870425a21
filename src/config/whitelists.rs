//! Reads the whitelists and the other lists that the settings name: all of them are
//! read at the start and again at HUP.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::paths::is_local_file;
use super::settings::Settings;
use crate::policy::decide::Whitelists;
use crate::policy::pool::Pools;
use crate::policy::s25r::Exceptions;
use crate::policy::whitelist::{ClientList, Complaint, MailAddressList};
use crate::sys::errors::describe;

/// Octets of the longest file that is read.
const MOST_OCTETS: u64 = 64 << 20;

/// What was read, and what is wrong with it. Of lists that contradict each other
/// [`Whitelists::contradictions`] tells, for those who say it.
pub struct Loaded {
    /// The lists, without the lines and files that could not be used.
    pub whitelists: Whitelists,
    /// One problem an entry.
    pub problems: Vec<Problem>,
}

/// Something wrong with a whitelist file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problem {
    /// `FILE line N: why`, or `can't open FILE: why`.
    pub text: String,
    /// At a reload it keeps the old lists in use.
    pub is_fatal: bool,
}

/// Lists without entries.
pub fn empty(settings: &Settings) -> Whitelists {
    let compat = settings.rules.compat;
    let has = |files: &[PathBuf]| !files.is_empty();
    Whitelists {
        senders: has(&settings.whitelist_senders).then(MailAddressList::of_senders),
        opted_in: has(&settings.greylist_recipients).then(MailAddressList::of_recipients),
        suspects: has(&settings.suspect_clients).then(|| ClientList::new(compat)),
        s25r: settings.s25r.then(Exceptions::default),
        pools: settings.rules.by_domain.then(Pools::default),
        ..Whitelists::new(compat)
    }
}

/// Reads all files. One that does not exist is no problem if its name ends in
/// `.local`.
pub fn load(settings: &Settings) -> Loaded {
    let mut lists = empty(settings);
    let mut problems = Vec::new();
    let all = &mut problems;
    read_clients(&settings.whitelist_clients, Some(&mut lists.clients), all);
    let recipients = Some(&mut lists.recipients);
    read_mail_addresses(&settings.whitelist_recipients, recipients, all);
    read_mail_addresses(&settings.whitelist_senders, lists.senders.as_mut(), all);
    let opted_in = lists.opted_in.as_mut();
    read_mail_addresses(&settings.greylist_recipients, opted_in, all);
    read_clients(&settings.suspect_clients, lists.suspects.as_mut(), all);
    if let Some(exceptions) = &mut lists.s25r {
        read_files(&settings.s25r_except, all, |name, text| {
            exceptions.add_file(name, text)
        });
    }
    if let Some(pools) = &mut lists.pools {
        let add = |name: &str, text: &[u8]| pools.add_file(name, text);
        read_files(&settings.pool_domains, all, add);
    }
    Loaded {
        whitelists: lists,
        problems,
    }
}

fn read_clients(files: &[PathBuf], list: Option<&mut ClientList>, problems: &mut Vec<Problem>) {
    if let Some(list) = list {
        read_files(files, problems, |name, text| list.add_file(name, text));
        problems.extend(list.finish().into_iter().map(Problem::from));
    }
}

fn read_mail_addresses(
    files: &[PathBuf],
    list: Option<&mut MailAddressList>,
    problems: &mut Vec<Problem>,
) {
    if let Some(list) = list {
        read_files(files, problems, |name, text| list.add_file(name, text));
        problems.extend(list.finish().into_iter().map(Problem::from));
    }
}

fn read_files(
    files: &[PathBuf],
    problems: &mut Vec<Problem>,
    mut add: impl FnMut(&str, &[u8]) -> Vec<Complaint>,
) {
    for file in files {
        read_file(file, problems, &mut add);
    }
}

fn read_file(
    file: &Path,
    problems: &mut Vec<Problem>,
    add: impl FnOnce(&str, &[u8]) -> Vec<Complaint>,
) {
    match read_text(file) {
        Ok(text) => {
            let complaints = add(&file.display().to_string(), &text);
            problems.extend(complaints.into_iter().map(Problem::from));
        }
        Err(error)
            if error.kind() == io::ErrorKind::NotFound && is_local_file(file.as_os_str()) => {}
        Err(error) => problems.push(Problem {
            text: format!("can't open {}: {}", file.display(), describe(&error)),
            is_fatal: true,
        }),
    }
}

/// A regular file, or a device such as /dev/null: a FIFO would hold up whoever reads
/// it for ever.
fn read_text(file: &Path) -> io::Result<Vec<u8>> {
    let mut options = OpenOptions::new();
    let file = options
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open(file)?;
    let kind = file.metadata()?.file_type();
    if kind.is_fifo() || kind.is_socket() {
        return Err(io::Error::other("not a regular file"));
    }
    let mut text = Vec::new();
    file.take(MOST_OCTETS + 1).read_to_end(&mut text)?;
    match text.len() as u64 > MOST_OCTETS {
        true => Err(io::Error::other("longer than 64 MiB")),
        false => Ok(text),
    }
}

impl From<Complaint> for Problem {
    fn from(complaint: Complaint) -> Self {
        Problem {
            text: complaint.to_string(),
            is_fatal: complaint.fatal,
        }
    }
}
