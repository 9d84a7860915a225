//! The flags that say who the user is.

use std::path::PathBuf;

use parallel_transfer::client::Login;
use parallel_transfer::path::Escaped;
use parallel_transfer::secret::PASSWORD_VARIABLE;

use super::secrets::{default_key, load_key, password};

/// Who the user is.
#[derive(Debug, clap::Args)]
pub(crate) struct Who {
    /// Log in to this account of the receiver: with --password_file, with --key, with the password in the
    /// environment's PTF_PASSWORD, with the key that 'send key' made, or with a password that is asked for
    #[arg(long, value_name = "NAME", requires = "server", conflicts_with = "plain")]
    user: Option<String>,

    /// The first line of this file is the password; '-' reads it from standard input
    #[arg(long = "password_file", alias = "password-file", value_name = "FILE", requires = "user")]
    pub(crate) password_file: Option<PathBuf>,

    /// Log in with the key in this file [default: ~/.config/parallel-transfer/id_ed25519, if it is there]
    #[arg(long, value_name = "FILE", requires = "user", conflicts_with = "password_file")]
    key: Option<PathBuf>,
}

impl Who {
    /// Who it is to a receiver that the user calls `host`.
    pub(crate) fn login(&self, host: &str) -> anyhow::Result<Login> {
        let Some(user) = self.user.clone() else { return Ok(Login::Nobody) };
        let is_told = self.password_file.is_some() || std::env::var_os(PASSWORD_VARIABLE).is_some();
        let key = match &self.key {
            None if is_told => None,
            None => default_key().ok().filter(|file| file.exists()),
            Some(file) => Some(file.clone()),
        };
        Ok(match key {
            Some(file) => {
                tracing::debug!("logging in with the key '{}'", Escaped::path(&file));
                Login::Key { user, key: load_key(&file)? }
            }
            None => {
                let password = password(&user, host, self.password_file.as_deref())?;
                Login::Password { user, password }
            }
        })
    }
}
