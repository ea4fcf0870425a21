//! A Postfix of its own: configuration, queue, data and mail in a directory
//! that goes away with it, on loopback ports; nothing of the system's Postfix
//! is touched. The benchmark has one, too.
#![allow(dead_code)] // each program uses its part

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// How long Postfix may take for a mail, and to end.
const PATIENCE: Duration = Duration::from_secs(20);

/// How one smtpd asks the policy server.
pub struct Service {
    pub port: u16,
    /// Settings of its own: `name=value`.
    pub settings: Vec<String>,
}

impl Service {
    /// An smtpd that asks at RCPT only.
    pub fn at_rcpt(port: u16, policy: &str) -> Service {
        Service {
            port,
            settings: vec![format!(
                "smtpd_recipient_restrictions=reject_unauth_destination,{policy},permit"
            )],
        }
    }

    /// An smtpd that asks at RCPT and DATA.
    pub fn at_rcpt_and_data(port: u16, policy: &str) -> Service {
        let mut service = Service::at_rcpt(port, policy);
        service
            .settings
            .push(format!("smtpd_data_restrictions={policy},permit"));
        service
    }
}

/// A running Postfix.
pub struct Postfix {
    home: PathBuf,
}

impl Postfix {
    /// Starts it with these smtpds, and these lines more in `master.cf`.
    pub fn start(home: &Path, services: &[&Service], master_lines: &str) -> Postfix {
        let postfix = Postfix::set_up(home, "", &(smtpd_entries(services) + master_lines));
        postfix.begin();
        postfix
    }

    /// Starts what was set up.
    pub fn begin(&self) {
        let output = self.run("start");
        assert!(
            output.status.success(),
            "{}{}",
            String::from_utf8_lossy(&output.stderr),
            self.log_text()
        );
    }

    /// Writes the configuration, with these lines more in `main.cf` and
    /// `master.cf`. What `main_lines` sets is set by them alone.
    pub fn set_up(home: &Path, main_lines: &str, master_lines: &str) -> Postfix {
        let postfix = Postfix {
            home: home.to_owned(),
        };
        for folder in ["etc", "queue", "data", "mail"] {
            fs::create_dir_all(home.join(folder)).unwrap();
        }
        chown("postfix:", &home.join("data"));
        chown("nobody:", &home.join("mail"));
        let is_set = |line: &&str| {
            let name = line.split(' ').next().unwrap_or_default();
            main_lines
                .lines()
                .any(|line| line.starts_with(&format!("{name} =")))
        };
        let own = postfix.main_cf();
        let own: Vec<&str> = own.lines().filter(|line| !is_set(line)).collect();
        fs::write(home.join("etc/main.cf"), own.join("\n") + "\n" + main_lines).unwrap();
        fs::write(
            home.join("etc/master.cf"),
            OWN_ENTRIES.to_owned() + master_lines,
        )
        .unwrap();
        postfix
    }

    fn main_cf(&self) -> String {
        let home = self.home.display();
        format!(
            "compatibility_level = 3.6\n\
             queue_directory = {home}/queue\n\
             data_directory = {home}/data\n\
             maillog_file = {home}/maillog\n\
             maillog_file_prefixes = {home}\n\
             myhostname = mx.example.org\n\
             mydestination =\n\
             mynetworks = 127.0.0.0/8\n\
             inet_interfaces = 127.0.0.1\n\
             smtpd_peername_lookup = no\n\
             smtpd_authorized_xclient_hosts = 127.0.0.1\n\
             smtpd_client_connection_count_limit = 0\n\
             smtpd_client_connection_rate_limit = 0\n\
             smtpd_error_sleep_time = 0\n\
             smtpd_soft_error_limit = 10000\n\
             smtpd_hard_error_limit = 10000\n\
             default_process_limit = 200\n\
             virtual_mailbox_domains = example.org\n\
             virtual_mailbox_base = {home}/mail\n\
             virtual_mailbox_maps = static:all/\n\
             virtual_uid_maps = static:65534\n\
             virtual_gid_maps = static:65534\n\
             alias_maps =\n\
             bounce_size_limit = 1000\n\
             smtputf8_enable = no\n\
             in_flow_delay = 0\n"
        )
    }

    /// What `postfix COMMAND` does.
    pub fn run(&self, command: &str) -> Output {
        Command::new("postfix")
            .arg("-c")
            .arg(self.home.join("etc"))
            .arg(command)
            .output()
            .unwrap()
    }

    pub fn log_text(&self) -> String {
        String::from_utf8_lossy(&fs::read(self.home.join("maillog")).unwrap_or_default())
            .into_owned()
    }

    /// The delivered mails with this subject, as soon as there are so many.
    pub fn wait_for_mail(&self, subject: &str, number: usize) -> Vec<String> {
        let wanted = format!("\nSubject: {subject}\n");
        let start = Instant::now();
        loop {
            let mails: Vec<String> = fs::read_dir(self.home.join("mail/all/new"))
                .into_iter()
                .flatten()
                .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok())
                .filter(|mail| mail.contains(&wanted))
                .collect();
            if mails.len() >= number {
                return mails;
            }
            assert!(
                start.elapsed() < PATIENCE,
                "no mail {subject}: {}",
                self.log_text()
            );
            std::thread::sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Postfix {
    fn drop(&mut self) {
        self.run("stop");
        let start = Instant::now();
        // "stop" returns when the master has the signal, or is gone.
        while self.run("status").status.success() && start.elapsed() < PATIENCE {
            std::thread::sleep(Duration::from_millis(100));
        }
    }
}

/// What a Postfix needs besides smtpd.
const OWN_ENTRIES: &str = "\
    pickup unix n - n 60 1 pickup\n\
    cleanup unix n - n - 0 cleanup\n\
    qmgr unix n - n 300 1 qmgr\n\
    rewrite unix - - n - - trivial-rewrite\n\
    bounce unix - - n - 0 bounce\n\
    defer unix - - n - 0 bounce\n\
    trace unix - - n - 0 bounce\n\
    flush unix n - n 1000? 0 flush\n\
    proxymap unix - - n - - proxymap\n\
    virtual unix - n n - - virtual\n\
    error unix - - n - - error\n\
    retry unix - - n - - error\n\
    discard unix - - n - - discard\n\
    anvil unix - - n - 1 anvil\n\
    postlog unix-dgram n - n - 1 postlogd\n";

/// These smtpds, as lines of `master.cf`.
pub fn smtpd_entries(services: &[&Service]) -> String {
    let mut text = String::new();
    for service in services {
        text.push_str(&format!(
            "127.0.0.1:{} inet n - n - - smtpd\n",
            service.port
        ));
        for setting in &service.settings {
            text.push_str(&format!("    -o {{ {setting} }}\n"));
        }
    }
    text
}

/// By name, since numbers differ between systems.
fn chown(owner: &str, path: &Path) {
    let status = Command::new("chown").arg(owner).arg(path).status().unwrap();
    assert!(status.success());
}
