//! From options as typed to settings as meant: defaults, what beats what, and
//! every refusal.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;

use super::error::ConfigError;
use super::options::{Id, OPTIONS};
use super::paths::with_local_files;
use super::settings::{LISTEN_QUEUE_SIZE, Settings, Sync};
use super::typed::Typed;
use super::values;
use crate::log::Level;
use crate::policy::rules::{Compat, Lookup};

/// What was made of the options.
pub struct Built {
    /// The settings.
    pub settings: Settings,
    /// What is wrong.
    pub wrong: Vec<ConfigError>,
    /// Which values do not mean what they seem to.
    pub notes: Vec<String>,
}

/// Makes settings of the options, and says all that is wrong with them. What
/// is wrong keeps its default, so that `--check` can go on to the rest.
pub fn settings_of(typed: &Typed) -> Built {
    let mut builder = SettingsBuilder {
        typed,
        wrong: Vec::new(),
    };
    let mut settings = Settings {
        ignored_words: typed.ignored(),
        ..Settings::default()
    };
    builder.read_sockets(&mut settings);
    builder.read_process(&mut settings);
    builder.read_storage(&mut settings);
    builder.read_store(&mut settings);
    builder.read_log(&mut settings);
    builder.read_rules(&mut settings);
    settings.rules.clock_difference = settings.store.clock_difference();
    builder.read_whitelists(&mut settings);
    builder.read_s25r(&mut settings);
    builder.read_texts(&mut settings);
    builder.check_combinations(&settings);
    Built {
        settings,
        notes: builder.notes_of_zeros(),
        wrong: builder.wrong,
    }
}

struct SettingsBuilder<'a> {
    typed: &'a Typed,
    wrong: Vec<ConfigError>,
}

impl SettingsBuilder<'_> {
    fn read_sockets(&mut self, settings: &mut Settings) {
        for value in self.given_all(Id::Unix) {
            if let Some(path) = self.checked(values::path(name(Id::Unix), &value), 2) {
                settings.listen.push(super::settings::Listen::Unix(path));
            }
        }
        for value in self.given_all(Id::Inet) {
            let address = values::text(name(Id::Inet), &value).and_then(|text| values::inet(&text));
            if let Some(listen) = self.checked(address, 255) {
                settings.listen.push(listen);
            }
        }
        self.set(
            &mut settings.socket_mode,
            Id::SocketMode,
            values::socket_mode,
        );
        self.set(
            &mut settings.listen_queue_size,
            Id::ListenQueueSize,
            |value| Ok(values::listen_queue_size(value, LISTEN_QUEUE_SIZE)),
        );
        settings.exim = self.typed.has(Id::Exim);
        settings.spawn = self.typed.has(Id::Spawn);
    }

    fn read_process(&mut self, settings: &mut Settings) {
        settings.daemonize = self.typed.has(Id::Daemonize);
        self.set(&mut settings.pidfile, Id::PidFile, |value| {
            values::path(name(Id::PidFile), value).map(Some)
        });
        self.set(&mut settings.user, Id::User, |value| {
            values::text(name(Id::User), value).and_then(values::user)
        });
        self.set(&mut settings.group, Id::Group, |value| {
            values::text(name(Id::Group), value).map(Some)
        });
        self.set(&mut settings.workers, Id::Workers, values::workers);
    }

    fn read_storage(&mut self, settings: &mut Settings) {
        self.set(&mut settings.dbdir, Id::DbDir, |value| {
            values::path(name(Id::DbDir), value)
        });
        self.set(&mut settings.db_size, Id::DbSize, values::db_size);
        self.set(&mut settings.sync, Id::Sync, |value| {
            match value.as_bytes() {
                b"commit" => Ok(Sync::Commit),
                b"none" => Ok(Sync::None),
                _ => Err("ERROR: --sync must be commit or none".into()),
            }
        });
    }

    fn read_store(&mut self, settings: &mut Settings) {
        let store = &mut settings.store;
        self.set(&mut store.redis, Id::Store, |value| {
            values::text(name(Id::Store), value).and_then(|text| values::store(&text))
        });
        for (file, id) in [
            (&mut store.password_file, Id::StorePasswordFile),
            (&mut store.ca_file, Id::StoreCaFile),
            (&mut store.certificate_file, Id::StoreCertificateFile),
        ] {
            self.set(file, id, |value| values::path(name(id), value).map(Some));
        }
        self.set(&mut store.prefix, Id::StorePrefix, values::store_prefix);
        self.set(&mut store.timeout, Id::StoreTimeout, values::store_timeout);
    }

    fn read_log(&mut self, settings: &mut Settings) {
        settings.verbosity = match (self.typed.has(Id::Quiet), self.typed.has(Id::Verbose)) {
            (true, _) => Level::One,
            (false, true) => Level::Three,
            (false, false) => Level::Two,
        };
        self.set(&mut settings.syslog_facility, Id::SyslogFacility, |value| {
            values::text(name(Id::SyslogFacility), value)
                .and_then(|text| values::syslog_facility(&text))
        });
        settings.log_stderr = self.typed.has(Id::LogStderr);
        settings.log_time = self.typed.has(Id::LogTime);
        settings.rules.log_tarpit = self.typed.has(Id::LogTarpit);
        self.set(&mut settings.stats_file, Id::StatsFile, |value| {
            values::path(name(Id::StatsFile), value).map(Some)
        });
    }

    fn read_rules(&mut self, settings: &mut Settings) {
        let rules = &mut settings.rules;
        self.set(&mut rules.compat, Id::Compat, |value| {
            let known = || Compat::ALL.map(Compat::name).join(", ");
            Compat::ALL
                .into_iter()
                .find(|compat| value == compat.name())
                .ok_or_else(|| format!("ERROR: --compat must be one of {}", known()))
        });
        for (number, id, unit) in [
            (&mut rules.delay, Id::Delay, 1.0),
            (&mut rules.max_age, Id::MaxAge, 86400.0),
            (&mut rules.retry_count, Id::RetryCount, 1.0),
            (&mut rules.auto_whitelist_delay, Id::AutoWhitelistDelay, 1.0),
        ] {
            if let Some(value) = self.given_number(id) {
                *number = value * unit;
            }
        }
        for (bits, id, longest) in [
            (&mut rules.ipv4_prefix, Id::Ipv4Cidr, 32),
            (&mut rules.ipv6_prefix, Id::Ipv6Cidr, 128),
        ] {
            if self.given_number(id).is_some() {
                self.set(bits, id, |value| values::prefix(name(id), value, longest));
            }
        }
        self.set(&mut rules.retry_window, Id::RetryWindow, |value| {
            values::retry_window(&value.to_string_lossy())
        });
        if self.typed.has(Id::LookupByHost) {
            rules.lookup = Lookup::Host;
        }
        self.set(&mut rules.max_new, Id::MaxNew, values::max_new);
        rules.by_domain = self.typed.has(Id::LookupByDomain);
        rules.privacy = self.typed.has(Id::Privacy);
        self.set(
            &mut rules.auto_whitelist,
            Id::AutoWhitelistClients,
            |value| {
                values::text(name(Id::AutoWhitelistClients), value)
                    .map(|text| values::auto_whitelist(&text))
            },
        );
        rules.targrey = self.typed.has(Id::Targrey);
        rules.tarpit = self.tarpit(rules.targrey);
        rules.tarpit_per_message = self.typed.has(Id::TarpitPerMessage);
    }

    /// The text after SLEEP. It is not checked here since the original takes
    /// any; `--check` warns of what Postfix does not understand.
    fn tarpit(&mut self, is_targrey: bool) -> Option<String> {
        let given = self.typed.last(Id::Tarpit).cloned();
        match given.map(|value| values::text(name(Id::Tarpit), &value)) {
            None if is_targrey => Some("125".into()),
            None => None,
            Some(value) => match self.checked(value, 2)?.as_str() {
                "" => Some("65".into()),
                "0" if !is_targrey => None,
                text => Some(text.into()),
            },
        }
    }

    fn read_whitelists(&mut self, settings: &mut Settings) {
        for (files, id) in [
            (&mut settings.whitelist_clients, Id::WhitelistClients),
            (&mut settings.whitelist_recipients, Id::WhitelistRecipients),
            (&mut settings.whitelist_senders, Id::WhitelistSenders),
            (&mut settings.greylist_recipients, Id::GreylistRecipients),
            (&mut settings.suspect_clients, Id::SuspectClients),
            (&mut settings.pool_domains, Id::PoolDomains),
        ] {
            let given = self.given_all(id);
            let paths: Vec<PathBuf> = given
                .iter()
                .filter_map(|value| self.checked(values::path(name(id), value), 2))
                .collect();
            if !paths.is_empty() {
                *files = with_local_files(paths);
            }
        }
    }

    fn read_s25r(&mut self, settings: &mut Settings) {
        settings.s25r = self.typed.has(Id::S25r);
        for value in self.given_all(Id::S25rExcept) {
            if let Some(path) = self.checked(values::path(name(Id::S25rExcept), &value), 2) {
                settings.s25r_except.push(path);
            }
        }
    }

    fn read_texts(&mut self, settings: &mut Settings) {
        let texts = &mut settings.texts;
        for (text, id) in [
            (&mut texts.greylist_action, Id::GreylistAction),
            (&mut texts.greylist_text, Id::GreylistText),
            (&mut texts.x_greylist_header, Id::XGreylistHeader),
        ] {
            // `0` is false in Perl, so the original takes its default.
            if self.given(id).is_some_and(|value| value != "0") {
                self.set(text, id, |value| values::text(name(id), value));
            }
        }
        self.set(&mut texts.hostname, Id::Hostname, |value| {
            values::text(name(Id::Hostname), value)
        });
        settings.noaction = self.typed.has(Id::NoAction);
    }

    fn check_combinations(&mut self, settings: &Settings) {
        // Addresses that were refused have their own message.
        let has_socket =
            settings.spawn || self.given(Id::Unix).is_some() || self.given(Id::Inet).is_some();
        if !has_socket && !self.typed.has(Id::PrintConfig) {
            self.refuse("ERROR: --unix or --inet must be specified");
        }
        if settings.spawn && settings.daemonize {
            self.refuse("ERROR: --spawn and --daemonize exclude each other");
        }
        if settings.spawn && settings.log_stderr {
            // The standard error of a program that spawn(8) runs is the
            // connection: a line of the log would be taken for a reply.
            self.refuse("ERROR: --spawn and --log-stderr exclude each other");
        }
    }

    /// Of each option that was given as 0 what that stands for.
    fn notes_of_zeros(&self) -> Vec<String> {
        let numbers = [
            Id::Delay,
            Id::MaxAge,
            Id::RetryCount,
            Id::AutoWhitelistDelay,
            Id::Ipv4Cidr,
            Id::Ipv6Cidr,
        ];
        let note = |id: &Id| {
            let value = self
                .given(*id)
                .filter(|value| values::integer(value) == 0.0)?;
            let spec = OPTIONS.iter().find(|spec| spec.id == *id)?;
            let (name, default) = (spec.name, spec.default_text()?);
            let value = value.to_string_lossy().into_owned();
            Some(format!(
                "--{name}={value} stands for the default, {default}"
            ))
        };
        numbers.iter().filter_map(note).collect()
    }

    fn refuse(&mut self, message: &str) {
        self.wrong.push(ConfigError {
            message: message.into(),
            exit_code: 2,
        });
    }

    /// The value that counts. An empty one (a word of its own, as in
    /// `--greylist-text ""`) stands for the default.
    fn given(&self, id: Id) -> Option<OsString> {
        self.typed
            .last(id)
            .filter(|value| !value.is_empty())
            .cloned()
    }

    fn given_all(&self, id: Id) -> Vec<OsString> {
        self.typed
            .all(id)
            .filter(|value| !value.is_empty())
            .cloned()
            .collect()
    }

    /// A number whose 0 stands for the default.
    fn given_number(&self, id: Id) -> Option<f64> {
        self.given(id)
            .map(|value| values::integer(&value))
            .filter(|&number| number != 0.0)
    }

    /// Sets what was given and is right.
    fn set<T>(&mut self, setting: &mut T, id: Id, read: impl Fn(&OsStr) -> Result<T, String>) {
        if let Some(value) = self.given(id)
            && let Some(value) = self.checked(read(&value), 2)
        {
            *setting = value;
        }
    }

    fn checked<T>(&mut self, value: Result<T, String>, exit_code: i32) -> Option<T> {
        value
            .map_err(|message| self.wrong.push(ConfigError { message, exit_code }))
            .ok()
    }
}

/// An option's name for messages.
fn name(id: Id) -> &'static str {
    OPTIONS
        .iter()
        .find(|spec| spec.id == id)
        .map_or("", |spec| spec.name)
}
