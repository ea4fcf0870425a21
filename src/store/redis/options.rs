//! What the client has to know.

use std::path::PathBuf;

use crate::config::settings::StoreSettings;

pub use crate::config::redis_address::{HostPort, Place, RedisAddress};

/// Where Redis is and how to come in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RedisOptions {
    /// The server or servers.
    pub address: RedisAddress,
    /// The file with the password, which is read at each connect. One line end
    /// after the password is no part of it.
    pub password_file: Option<PathBuf>,
    /// The certificates (PEM) of those who may have signed that of a server;
    /// `None`: those the system trusts.
    pub ca_file: Option<PathBuf>,
    /// The certificate and the key (PEM, one file) to show to a server that asks.
    pub certificate_file: Option<PathBuf>,
}

impl RedisOptions {
    /// What `--store` and its companions say; `None`: nothing of Redis.
    pub fn of(settings: &StoreSettings) -> Option<Self> {
        Some(RedisOptions {
            address: settings.redis.clone()?,
            password_file: settings.password_file.clone(),
            ca_file: settings.ca_file.clone(),
            certificate_file: settings.certificate_file.clone(),
        })
    }

    /// The options for an address, with nothing else set.
    pub fn new(address: RedisAddress) -> Self {
        RedisOptions {
            address,
            password_file: None,
            ca_file: None,
            certificate_file: None,
        }
    }
}
