//! The flags of `recv` that say who may come in, and how much of everything they get.

use std::path::PathBuf;
use std::time::Duration;

use parallel_transfer::flags::{parse_duration, parse_size};
use parallel_transfer::limits::{
    ACCOUNT_BYTES_DEFAULT, ACCOUNT_FILES_DEFAULT, CONNECTIONS_MAX, CONNECTIONS_PER_ACCOUNT_MAX, CONNECTIONS_PER_ADDRESS_MAX,
    IDLE_DEFAULT, LOGIN_TIMEOUT, LOGIN_TRIES_DEFAULT, SESSIONS_MAX, SESSIONS_PER_ACCOUNT_MAX,
};
use parallel_transfer::net::host::HostPort;
use parallel_transfer::server::Config;
use parallel_transfer::server::accounts::Rights;
use parallel_transfer::store::Limits;

/// Who may come in, and how much they get.
#[derive(Debug, clap::Args)]
pub(crate) struct Access {
    /// Serve only those who log in to an account of this file ('recv user add' makes it), each in a
    /// home below the root. Then addresses are not looked at, unless --allow names some
    #[arg(long, value_name = "FILE", conflicts_with = "once")]
    pub(crate) accounts: Option<PathBuf>,

    /// Let others list and read what is below the root, and bring nothing (of accounts, 'recv user rights' says
    /// what each may do)
    #[arg(long = "read_only", alias = "read-only", conflicts_with_all = ["write_only", "accounts"])]
    read_only: bool,

    /// Take files, and let nobody list or read what is there
    #[arg(long = "write_only", alias = "write-only", conflicts_with = "accounts")]
    write_only: bool,

    /// Let others pass connections on through this receiver, to this one and to no other ('send --via')
    #[arg(long = "relay_to", alias = "relay-to", value_name = "HOST:PORT", value_parser = parse_target)]
    pub(crate) relay_to: Vec<HostPort>,

    /// Serve no files, but pass connections on
    #[arg(long = "relay_only", alias = "relay-only", requires = "relay_to", conflicts_with_all = ["read_only", "write_only"])]
    relay_only: bool,

    /// Let anyone make an account ('send signup')
    #[arg(long, requires = "accounts")]
    signup: bool,

    /// Bytes that an account made so may hold [default: 500M]
    #[arg(long = "signup_quota", alias = "signup-quota", value_name = "BYTES", value_parser = parse_size, requires = "signup")]
    signup_quota: Option<u64>,

    /// Files that an account made so may hold [default: 100000]
    #[arg(long = "signup_files", alias = "signup-files", value_name = "N", requires = "signup")]
    signup_files: Option<u64>,

    /// Connections served at once; further ones wait
    #[arg(long = "max_connections", alias = "max-connections", value_name = "N", default_value_t = CONNECTIONS_MAX)]
    max_connections: usize,

    /// Connections from one address (of IPv6 a /64 network); further ones are closed
    #[arg(long = "max_per_address", alias = "max-per-address", value_name = "N", default_value_t = CONNECTIONS_PER_ADDRESS_MAX)]
    max_per_address: usize,

    /// Connections of one account; further ones hear that it is busy
    #[arg(long = "max_per_account", alias = "max-per-account", value_name = "N", default_value_t = CONNECTIONS_PER_ACCOUNT_MAX)]
    max_per_account: usize,

    /// Jobs served at once; whoever wants another hears that the receiver is busy
    #[arg(long = "max_sessions", alias = "max-sessions", value_name = "N", default_value_t = SESSIONS_MAX)]
    max_sessions: usize,

    /// Jobs of one account served at once
    #[arg(long = "max_account_sessions", alias = "max-account-sessions", value_name = "N", default_value_t = SESSIONS_PER_ACCOUNT_MAX)]
    max_account_sessions: usize,

    /// How long a connection may take to log in and join a job, in all [default: 10s]
    #[arg(long = "login_timeout", alias = "login-timeout", value_name = "TIME", value_parser = parse_duration)]
    login_timeout: Option<Duration>,

    /// Wrong logins from one address (of IPv6 a /64 network) in 15 minutes; then nobody there is listened to
    #[arg(long = "login_tries", alias = "login-tries", value_name = "N", default_value_t = LOGIN_TRIES_DEFAULT)]
    login_tries: u32,

    /// How long a job may do nothing before it ends [default: 30m]
    #[arg(long = "idle_timeout", alias = "idle-timeout", value_name = "TIME", value_parser = parse_duration)]
    idle_timeout: Option<Duration>,

    /// Bytes a second to take in and to send at the most, over all connections together
    #[arg(long, value_name = "BYTES", value_parser = parse_size)]
    bwlimit: Option<u64>,

    /// Bytes a second that all connections of an account together may bring and take
    #[arg(long = "bwlimit_account", alias = "bwlimit-account", value_name = "BYTES", value_parser = parse_size, requires = "accounts")]
    pub(crate) bwlimit_account: Option<u64>,
}

impl Access {
    /// Adds what the flags say.
    pub(crate) fn set_up(&self, config: &mut Config) {
        config.connections_max = self.max_connections.clamp(1, CONNECTIONS_MAX * 16);
        config.per_address_max = self.max_per_address;
        config.per_account_max = self.max_per_account;
        config.sessions_max = self.max_sessions;
        config.login = self.login_timeout.unwrap_or(LOGIN_TIMEOUT);
        config.login_tries = self.login_tries;
        config.idle = Some(self.idle_timeout.unwrap_or(IDLE_DEFAULT));
        config.rate = self.bwlimit;
        config.account_sessions_max = self.max_account_sessions;
        if self.accounts.is_some() {
            config.wants_login = true;
            // A login is for encrypted connections.
            (config.serves_v1, config.serves_plain) = (false, false);
        }
        // It knows nothing but to bring files.
        config.serves_v1 &= !self.read_only && !self.relay_only;
        config.relay_to.clone_from(&self.relay_to);
        config.relays_only = self.relay_only;
    }

    /// What may be done by whoever needs no account.
    pub(crate) fn rights(&self) -> Rights {
        match (self.read_only, self.write_only) {
            _ if self.relay_only => Rights::NONE,
            (true, _) => Rights { read: true, list: true, ..Rights::NONE },
            (_, true) => Rights { write: true, ..Rights::NONE },
            _ => Rights::ALL,
        }
    }

    /// What those get who make an account themselves, if anyone can.
    pub(crate) fn sign_up(&self) -> Option<Limits> {
        self.signup.then(|| Limits {
            bytes: self.signup_quota.unwrap_or(ACCOUNT_BYTES_DEFAULT),
            files: self.signup_files.unwrap_or(ACCOUNT_FILES_DEFAULT),
        })
    }
}

/// Where connections may be passed on to.
fn parse_target(text: &str) -> Result<HostPort, String> {
    HostPort::parse(text, None).map_err(|error| error.to_string())
}
