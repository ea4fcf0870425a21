//! Reads the whitelist files that the settings name, and the exceptions of
//! S25R with them: all of it is read at the start and again at HUP.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;

use super::paths::is_local_file;
use super::settings::Settings;
use crate::policy::decide::Whitelists;
use crate::policy::pool::Pools;
use crate::policy::s25r::Exceptions;
use crate::policy::whitelist::{ClientWhitelist, Complaint, RecipientWhitelist};
use crate::sys::errors::describe;

/// Octets of the longest file that is read.
const MOST_OCTETS: u64 = 64 << 20;

/// What was read, and what is wrong with it.
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
    Whitelists {
        clients: ClientWhitelist::new(settings.rules.compat),
        recipients: RecipientWhitelist::new(),
        s25r: settings.s25r.then(Exceptions::default),
        pools: settings.rules.by_domain.then(Pools::default),
    }
}

/// Reads all files. One that does not exist is no problem if its name ends in
/// `.local`.
pub fn load(settings: &Settings) -> Loaded {
    let Whitelists {
        mut clients,
        mut recipients,
        mut s25r,
        mut pools,
    } = empty(settings);
    let mut problems = Vec::new();
    for file in &settings.whitelist_clients {
        read_file(file, &mut problems, |name, text| {
            clients.add_file(name, text)
        });
    }
    for file in &settings.whitelist_recipients {
        read_file(file, &mut problems, |name, text| {
            recipients.add_file(name, text)
        });
    }
    for file in &settings.s25r_except {
        if let Some(exceptions) = &mut s25r {
            read_file(file, &mut problems, |name, text| {
                exceptions.add_file(name, text)
            });
        }
    }
    for file in &settings.pool_domains {
        if let Some(pools) = &mut pools {
            read_file(file, &mut problems, |name, text| pools.add_file(name, text));
        }
    }
    let late = clients.finish().into_iter().chain(recipients.finish());
    problems.extend(late.map(Problem::from));
    Loaded {
        whitelists: Whitelists {
            clients,
            recipients,
            s25r,
            pools,
        },
        problems,
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
