//! The settings as meant: what the options, once checked, tell the program to
//! do.

use std::fmt;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

use super::paths::{self, with_local_files};
use super::redis_address::RedisAddress;
use crate::log::Level;
use crate::policy::rules::{Rules, Texts};

/// Default of `--db-size`: far more than a busy site needs, since the file
/// grows only as it fills; 32-bit systems have no addresses for it.
const DB_SIZE: usize = if usize::BITS >= 64 { 4 << 30 } else { 1 << 30 };

/// Seconds by which the clocks of several MX hosts may differ: with NTP they do by
/// milliseconds.
const CLOCK_DIFFERENCE: f64 = 10.0;

/// Default of `--listen-queue-size`; the system cuts it to its own maximum.
pub const LISTEN_QUEUE_SIZE: i32 = 999;

/// Where the server listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Listen {
    /// `--inet`: a host (`None`: every address of the machine) and a port.
    Inet {
        /// Host name or address without brackets.
        host: Option<String>,
        /// Port, 0 to 65535; 0 lets the system choose.
        port: u16,
    },
    /// `--unix`: the path of a UNIX socket.
    Unix(PathBuf),
}

/// The form `--inet` and `--unix` take.
impl fmt::Display for Listen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Listen::Inet { host: None, port } => write!(f, "*:{port}"),
            Listen::Inet {
                host: Some(host),
                port,
            } if host.contains(':') => write!(f, "[{host}]:{port}"),
            Listen::Inet {
                host: Some(host),
                port,
            } => write!(f, "{host}:{port}"),
            Listen::Unix(path) => write!(f, "{}", path.display()),
        }
    }
}

/// How safe a commit is (`--sync`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sync {
    /// What has changed is flushed before the reply is sent. A power cut may undo
    /// the last commit, and never damages the file.
    Commit,
    /// The system flushes when it likes; a power cut may damage the file.
    None,
}

/// Where the records are, and how to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoreSettings {
    /// Redis or Valkey (`--store`); `None`: LMDB, in the directory of `--dbdir`.
    pub redis: Option<RedisAddress>,
    /// The file with the password (`--store-password-file`).
    pub password_file: Option<PathBuf>,
    /// Who may have signed the server's certificate (`--store-ca-file`); `None`:
    /// whom the system trusts.
    pub ca_file: Option<PathBuf>,
    /// What is shown to a server that asks for a certificate
    /// (`--store-certificate-file`).
    pub certificate_file: Option<PathBuf>,
    /// What all keys begin with (`--store-prefix`, postgrey).
    pub prefix: String,
    /// How long one exchange may take (`--store-timeout`, 500 ms), 50 to 900 ms.
    pub timeout: Duration,
}

impl StoreSettings {
    /// True if the records are in `--dbdir`, in files of this host.
    pub fn is_lmdb(&self) -> bool {
        self.redis.is_none()
    }

    /// Seconds by which the clocks of the hosts that share the store may differ.
    pub fn clock_difference(&self) -> f64 {
        if self.is_lmdb() {
            0.0
        } else {
            CLOCK_DIFFERENCE
        }
    }
}

impl Default for StoreSettings {
    fn default() -> Self {
        StoreSettings {
            redis: None,
            password_file: None,
            ca_file: None,
            certificate_file: None,
            prefix: "postgrey".into(),
            timeout: Duration::from_millis(500),
        }
    }
}

/// Everything the server needs to know.
#[derive(Clone, Debug, PartialEq)]
pub struct Settings {
    /// Sockets to listen on: first those of `--unix`, then those of `--inet`,
    /// each in the order given.
    pub listen: Vec<Listen>,
    /// Mode of UNIX sockets (`--socketmode`, 0666).
    pub socket_mode: u32,
    /// Length of the listen queue (`--listen-queue-size`), 1 to 999.
    pub listen_queue_size: i32,
    /// Name or number of the user to become (`--user`, postgrey); never root
    /// by name or number, though another name may still stand for user 0.
    pub user: String,
    /// Name or number of the group to become (`--group`); `None`: postgrey if
    /// there is one, else nogroup, else the user's own.
    pub group: Option<String>,
    /// Directory of the environment (`--dbdir`).
    pub dbdir: PathBuf,
    /// File for the master's process number (`--pidfile`).
    pub pidfile: Option<PathBuf>,
    /// Go to the background (`-d`).
    pub daemonize: bool,
    /// The least important level that is logged.
    pub verbosity: Level,
    /// Facility of syslog(3) (`--syslog-facility`, mail), one of
    /// [`super::values::SYSLOG_FACILITIES`].
    pub syslog_facility: String,
    /// Log to standard error as well, also with `-d` (`--log-stderr`).
    pub log_stderr: bool,
    /// Each line on standard error begins with the time (`--log-time`).
    pub log_time: bool,
    /// Whitelists of clients, in the order read: those given or the default,
    /// each followed by its `.local` file.
    pub whitelist_clients: Vec<PathBuf>,
    /// Whitelists of recipients, likewise.
    pub whitelist_recipients: Vec<PathBuf>,
    /// Whitelists of senders (`--whitelist-senders`), likewise; none without the option.
    pub whitelist_senders: Vec<PathBuf>,
    /// The recipients that are greylisted (`--greylist-recipients`), likewise; all
    /// without the option.
    pub greylist_recipients: Vec<PathBuf>,
    /// Clients that are never on the auto-whitelist (`--suspect-clients`), likewise.
    pub suspect_clients: Vec<PathBuf>,
    /// Let clients pass whose name does not look like a dial-up line
    /// (`--s25r`).
    pub s25r: bool,
    /// Names that the rules of S25R judge wrongly (`--s25r-except`), in the
    /// order read; without [`Settings::s25r`] they are of no use.
    pub s25r_except: Vec<PathBuf>,
    /// Domains that are pools, or not (`--pool-domains`), like the whitelists; without
    /// `--lookup-by-domain` they are of no use.
    pub pool_domains: Vec<PathBuf>,
    /// Decide, log and record, but always answer DUNNO (`--noaction`).
    pub noaction: bool,
    /// Close the connection after every answer (`--exim`).
    pub exim: bool,
    /// Serve standard input and output (`--spawn`).
    pub spawn: bool,
    /// Number of worker processes (`--workers`), 1 to 64.
    pub workers: usize,
    /// How safe a commit is (`--sync`).
    pub sync: Sync,
    /// Size of the memory map in octets (`--db-size`), 1 MiB or more.
    pub db_size: usize,
    /// Where the records are (`--store`).
    pub store: StoreSettings,
    /// File for the statistics in Prometheus text format (`--stats-file`).
    pub stats_file: Option<PathBuf>,
    /// The numbers and switches that decide.
    pub rules: Rules,
    /// The texts of replies.
    pub texts: Texts,
    /// Which words of the command line are ignored, as by the original, in a
    /// sentence for the log; `None`: all count.
    pub ignored_words: Option<String>,
}

impl Settings {
    /// The same with paths that do not depend on the working directory.
    ///
    /// # Errors
    ///
    /// The working directory cannot be found.
    pub fn with_absolute_paths(&self) -> io::Result<Settings> {
        let mut settings = self.clone();
        let whitelists = settings
            .whitelist_clients
            .iter_mut()
            .chain(&mut settings.whitelist_recipients)
            .chain(&mut settings.whitelist_senders)
            .chain(&mut settings.greylist_recipients)
            .chain(&mut settings.suspect_clients)
            .chain(&mut settings.s25r_except)
            .chain(&mut settings.pool_domains);
        let store = &mut settings.store;
        let files = (settings.pidfile.iter_mut())
            .chain(&mut settings.stats_file)
            .chain(&mut store.password_file)
            .chain(&mut store.ca_file)
            .chain(&mut store.certificate_file);
        for path in whitelists.chain(files).chain([&mut settings.dbdir]) {
            *path = std::path::absolute(&*path)?;
        }
        for listen in &mut settings.listen {
            if let Listen::Unix(path) = listen {
                *path = std::path::absolute(&*path)?;
            }
        }
        Ok(settings)
    }
}

impl Default for Settings {
    /// The settings of a command line without options.
    fn default() -> Self {
        Settings {
            listen: Vec::new(),
            socket_mode: 0o666,
            listen_queue_size: LISTEN_QUEUE_SIZE,
            user: paths::USER.into(),
            group: None,
            dbdir: paths::DBDIR.into(),
            pidfile: None,
            daemonize: false,
            verbosity: Level::Two,
            syslog_facility: "mail".into(),
            log_stderr: false,
            log_time: false,
            whitelist_clients: with_local_files([paths::whitelist_clients()]),
            whitelist_recipients: with_local_files([paths::whitelist_recipients()]),
            whitelist_senders: Vec::new(),
            greylist_recipients: Vec::new(),
            suspect_clients: Vec::new(),
            s25r: false,
            s25r_except: Vec::new(),
            pool_domains: with_local_files([paths::pool_domains()]),
            noaction: false,
            exim: false,
            spawn: false,
            workers: 2,
            sync: Sync::Commit,
            db_size: DB_SIZE,
            store: StoreSettings::default(),
            stats_file: None,
            rules: Rules::default(),
            texts: Texts {
                hostname: host_name(),
                ..Texts::default()
            },
            ignored_words: None,
        }
    }
}

/// The name of this host; `localhost` should the system not tell.
fn host_name() -> String {
    nix::unistd::gethostname().map_or("localhost".into(), |name| {
        name.to_string_lossy().into_owned()
    })
}
