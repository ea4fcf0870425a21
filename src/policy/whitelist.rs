//! whitelist
