//! Processes: fork, privileges, limits, and leaving the terminal.

use std::ffi::CString;
use std::fs::OpenOptions;
use std::io::{self, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::panic::{AssertUnwindSafe, catch_unwind};

use nix::sys::signal::Signal;
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::{Gid, Group, Pid, Uid, User};

/// Which side of a fork this is.
pub enum Side {
    /// The new process.
    Child,
    /// The old one, with the number of the new one.
    Parent(Pid),
}

/// Forks. Only for processes without a second thread, as servers and sessions
/// are: then the child may do anything.
pub fn fork() -> io::Result<Side> {
    // SAFETY: servers and sessions start no thread, and "postgreyctl backup" does
    // so only in the child that it has forked before; who asks Redis may have one
    // that looks up an address, and forks no more. So no lock of the child's
    // memory is held by a thread that it does not have.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(Side::Child),
        nix::unistd::ForkResult::Parent { child } => Ok(Side::Parent(child)),
    }
}

/// Runs `work` and keeps a panic in it, which has been reported, from going
/// further; `None` then. What others are owed goes on.
pub fn contain_panic<T>(work: impl FnOnce() -> T) -> Option<T> {
    // What it leaves half done is a reply, a transaction, which the unwinding
    // ends, and buffers that are cleared before they are used.
    catch_unwind(AssertUnwindSafe(work)).ok()
}

/// Ends this process by SIGALRM after so many seconds, unless it is called
/// again before.
pub fn end_unless_renewed(seconds: u32) {
    nix::unistd::alarm::set(seconds);
}

/// A child that has ended, and how, in words.
pub struct Death {
    /// Its number.
    pub pid: Pid,
    /// `status N` or `signal NAME`.
    pub how: String,
    /// It was ended by SIGKILL, which no fault of its own causes.
    pub was_killed: bool,
    /// The status it ended with; `None` if a signal ended it.
    pub status: Option<i32>,
    /// It ended itself by a signal, as a program does that meets damage.
    pub has_crashed: bool,
}

/// Reaps one child that has ended; `None` if there is none.
pub fn reap() -> Option<Death> {
    loop {
        return match waitpid(None, Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::Exited(pid, status)) => Some(Death {
                pid,
                how: format!("status {status}"),
                was_killed: false,
                status: Some(status),
                has_crashed: false,
            }),
            Ok(WaitStatus::Signaled(pid, signal, _)) => Some(Death {
                pid,
                how: format!("signal {signal}"),
                was_killed: signal == Signal::SIGKILL,
                status: None,
                has_crashed: CRASHES.contains(&signal),
            }),
            Err(nix::Error::EINTR) => continue,
            _ => None,
        };
    }
}

/// The exit status of a panic, as that of the whole program.
const PANIC_STATUS: i32 = 101;
/// The signals by which a program ends itself.
const CRASHES: [Signal; 5] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGABRT,
    Signal::SIGILL,
    Signal::SIGFPE,
];

/// How a process ended that was started by [`run_in_child`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChildResult {
    /// It came to its end, with this text.
    Ok(String),
    /// It failed, for this reason.
    Err(String),
    /// It crashed: `signal NAME`, or the `status N` of a panic.
    Crashed(String),
}

/// Waits for the end of a child: its status; an error if a signal ended it.
pub fn status_of(pid: Pid) -> io::Result<i32> {
    loop {
        match waitpid(pid, None) {
            Err(nix::Error::EINTR) => {}
            Ok(WaitStatus::Exited(_, status)) => return Ok(status),
            Ok(WaitStatus::Signaled(_, signal, _)) => {
                return Err(io::Error::other(format!("ended by signal {signal}")));
            }
            Ok(_) => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Runs `work` in a child process, which may crash without harm, and is ended
/// by SIGALRM when it takes longer than these seconds. That, or that somebody
/// else ended it, is an error.
pub fn run_in_child(
    seconds: u32,
    work: impl FnOnce() -> Result<String, String>,
) -> io::Result<ChildResult> {
    let (mut ours, mut theirs) = UnixStream::pair()?;
    match fork()? {
        Side::Child => {
            drop(ours);
            nix::unistd::alarm::set(seconds);
            // A library may print why it aborts; how it ended says enough.
            let quiet = close_stdio(false).map_err(|error| error.to_string());
            // The caller's code is the parent's: a panic does not go on there.
            let done = catch_unwind(AssertUnwindSafe(|| quiet.and_then(|()| work())));
            let (status, text) = match done {
                Ok(Ok(text)) => (0, text),
                Ok(Err(text)) => (1, text),
                Err(_) => (PANIC_STATUS, String::new()),
            };
            // If that fails the parent is gone.
            let _ = theirs.write_all(text.as_bytes());
            std::process::exit(status);
        }
        Side::Parent(pid) => {
            drop(theirs);
            let mut text = String::new();
            ours.read_to_string(&mut text)?;
            let status = loop {
                match waitpid(pid, None) {
                    Err(nix::Error::EINTR) => {}
                    status => break status?,
                }
            };
            match status {
                WaitStatus::Exited(_, 0) => Ok(ChildResult::Ok(text)),
                WaitStatus::Exited(_, 1) => Ok(ChildResult::Err(text)),
                WaitStatus::Exited(_, status) => {
                    Ok(ChildResult::Crashed(format!("status {status}")))
                }
                WaitStatus::Signaled(_, signal, _) if CRASHES.contains(&signal) => {
                    Ok(ChildResult::Crashed(format!("signal {signal}")))
                }
                WaitStatus::Signaled(_, signal, _) => {
                    Err(io::Error::other(format!("ended with signal {signal}")))
                }
                other => Err(io::Error::other(format!("{other:?}"))),
            }
        }
    }
}

/// Whom to become.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The user's name, for the supplementary groups.
    pub name: String,
    /// The user.
    pub uid: Uid,
    /// The group.
    pub gid: Gid,
}

/// Finds a user and a group by name or number. Without a group it is the
/// `usual` one if it exists, else `nogroup`, else the user's own.
pub fn find_identity(user: &str, group: Option<&str>, usual: &str) -> Result<Identity, String> {
    let found = find_user(user)?.ok_or_else(|| format!("No such user \"{user}\""))?;
    let gid = match group {
        Some(group) => find_group(group)?.ok_or_else(|| format!("No such group \"{group}\""))?,
        None => match find_group(usual)? {
            Some(gid) => gid,
            None => find_group("nogroup")?.unwrap_or(found.gid),
        },
    };
    Ok(Identity {
        name: found.name,
        uid: found.uid,
        gid,
    })
}

fn find_user(user: &str) -> Result<Option<User>, String> {
    let found = match user.parse() {
        Ok(number) => User::from_uid(Uid::from_raw(number)),
        Err(_) => User::from_name(user),
    };
    found.map_err(|error| format!("cannot look up user \"{user}\": {error}"))
}

/// The group with this name or number; `None` if there is none.
pub fn find_group(group: &str) -> Result<Option<Gid>, String> {
    if let Ok(number) = group.parse() {
        return Ok(Some(Gid::from_raw(number)));
    }
    match Group::from_name(group) {
        Ok(found) => Ok(found.map(|group| group.gid)),
        Err(error) => Err(format!("cannot look up group \"{group}\": {error}")),
    }
}

/// Who this process is.
pub fn current_identity() -> Result<Identity, String> {
    let uid = Uid::effective();
    let name = match User::from_uid(uid) {
        Ok(Some(user)) => user.name,
        _ => uid.to_string(),
    };
    Ok(Identity {
        name,
        uid,
        gid: Gid::effective(),
    })
}

/// True if this process has root's privileges.
pub fn is_root() -> bool {
    Uid::effective().is_root()
}

/// Becomes that user for good: groups, group, user, in this order, and makes
/// sure there is no way back. Whoever is not root stays what he is, if that is
/// the user asked for.
pub fn become_user(identity: &Identity) -> Result<(), String> {
    if !is_root() {
        if Uid::effective() == identity.uid {
            return Ok(());
        }
        return Err(format!(
            "cannot become user \"{}\": not started as root",
            identity.name
        ));
    }
    if identity.uid.is_root() {
        return Err("refusing to run as root".to_string());
    }
    let name = CString::new(identity.name.as_str()).map_err(|error| error.to_string())?;
    // The type of the group argument differs between systems.
    let gid = identity.gid.as_raw();
    // SAFETY: the name is a string that ends in NUL and outlives the call.
    if unsafe { libc::initgroups(name.as_ptr(), gid as _) } != 0 {
        return Err(format!("initgroups: {}", io::Error::last_os_error()));
    }
    nix::unistd::setgid(identity.gid).map_err(|error| format!("setgid: {error}"))?;
    nix::unistd::setuid(identity.uid).map_err(|error| format!("setuid: {error}"))?;
    if nix::unistd::setuid(Uid::from_raw(0)).is_ok() || Uid::effective().is_root() {
        return Err(format!(
            "root is still reachable from user \"{}\"",
            identity.name
        ));
    }
    Ok(())
}

/// Lets every other process go first, for work that nobody waits for while it
/// holds anything.
pub fn lower_priority() {
    // SAFETY: the call takes a number and touches no memory. It fails only if
    // there is no lower priority, which is as good.
    unsafe { libc::nice(10) };
}

/// Sets the mask of permissions that new files do not get; returns the old one.
pub fn set_umask(mask: u32) -> u32 {
    // The type differs between systems.
    #[allow(clippy::unnecessary_cast, clippy::useless_conversion)]
    nix::sys::stat::umask(nix::sys::stat::Mode::from_bits_truncate(mask as _))
        .bits()
        .into()
}

/// Sees to it that no core is written when a process dies: it would hold the
/// addresses of senders and recipients.
pub fn forbid_core_dumps() -> io::Result<()> {
    let limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the call gets a valid pointer to a structure of integers.
    if unsafe { libc::setrlimit(libc::RLIMIT_CORE, &raw const limit) } != 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Raises the limit of open descriptors to the hard limit and returns it.
pub fn raise_descriptor_limit() -> io::Result<u64> {
    // SAFETY: rlimit is a plain structure of integers; both calls get a valid
    // pointer to one.
    unsafe {
        let mut limit: libc::rlimit = std::mem::zeroed();
        if libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        limit.rlim_cur = limit.rlim_max;
        if libc::setrlimit(libc::RLIMIT_NOFILE, &raw const limit) != 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(limit.rlim_cur as u64)
    }
}

/// Makes standard input, output and, unless it is kept, error /dev/null.
pub fn close_stdio(keep_stderr: bool) -> io::Result<()> {
    let null = OpenOptions::new()
        .read(true)
        .write(true)
        .open("/dev/null")?;
    for descriptor in 0..if keep_stderr { 2 } else { 3 } {
        // SAFETY: dup2 onto the standard descriptors, which no object of this
        // program owns.
        if unsafe { libc::dup2(null.as_raw_fd(), descriptor) } < 0 {
            return Err(io::Error::last_os_error());
        }
    }
    Ok(())
}

/// Forgets the environment this process was started with, but for the time
/// zone: it may hold what is not for a server's memory, and nothing in it is
/// for the server.
pub fn clean_environment() {
    let names = std::env::vars_os().map(|(name, _)| name);
    // The system refuses to remove a name that holds "=".
    for name in names.filter(|name| name != "TZ" && !name.as_bytes().contains(&b'=')) {
        // SAFETY: this is the first thing a server does, before any thread
        // could be there to read the environment.
        unsafe { std::env::remove_var(name) };
    }
}

/// Leaves the controlling terminal: a new session, working directory `/`.
pub fn leave_terminal() -> io::Result<()> {
    nix::unistd::setsid()?;
    nix::unistd::chdir("/")?;
    Ok(())
}
