//! Who the user says to be, and how that is shown to a receiver.

use std::fmt;

use anyhow::Context as _;

use crate::login_key::PrivateKey;
use crate::net::tls::Fingerprint;
use crate::protocol::{Credential, Secret, Token, to_sign};

/// Who the user says to be.
#[derive(Clone)]
pub enum Login {
    /// Nobody: all may come in.
    Nobody,
    /// Whoever has this ticket of a receiver that serves one job.
    Ticket(Token),
    /// The owner of an account, who knows its password.
    Password {
        /// The account's name.
        user: String,
        /// Its password.
        password: Secret,
    },
    /// The owner of an account, who has one of its keys.
    Key {
        /// The account's name.
        user: String,
        /// The key.
        key: PrivateKey,
    },
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Nobody => f.write_str("Nobody"),
            Self::Ticket(_) => f.write_str("Ticket(..)"),
            Self::Password { user, .. } => write!(f, "Password({user:?}, ..)"),
            Self::Key { user, .. } => write!(f, "Key({user:?}, ..)"),
        }
    }
}

impl Login {
    /// What is shown to open the session of `token` to the receiver that has this host key; it has none
    /// where nothing is encrypted.
    ///
    /// # Errors
    /// What would be shown is for encrypted connections only.
    pub(super) fn credential(&self, host_key: Option<Fingerprint>, token: &Token) -> anyhow::Result<Credential> {
        let host_key = || host_key.context("logging in needs an encrypted connection: leave --plain out");
        Ok(match self {
            Self::Nobody => Credential::None,
            Self::Ticket(ticket) => Credential::Ticket(*ticket),
            Self::Password { user, password } => {
                host_key()?;
                Credential::Password { user: user.as_bytes().to_vec(), password: password.clone() }
            }
            Self::Key { user, key } => {
                let signature = key.sign(&to_sign(host_key()?.as_bytes(), token, user.as_bytes()))?;
                Credential::Key { user: user.as_bytes().to_vec(), public: key.public(), signature }
            }
        })
    }
}
