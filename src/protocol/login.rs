//! Why a client may open a session: what it knows, or has.

use std::ffi::OsString;
use std::fmt;
use std::os::unix::ffi::OsStringExt as _;

use zeroize::Zeroizing;

/// A secret that a client made, for what it opens.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Token(pub [u8; 32]);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(..)")
    }
}

/// Bytes that nobody else may see. They are wiped when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// What a variable of the environment holds.
    #[must_use]
    pub fn of(value: OsString) -> Self {
        Self::from(value.into_vec())
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl From<Vec<u8>> for Secret {
    fn from(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }
}

impl From<Zeroizing<Vec<u8>>> for Secret {
    fn from(bytes: Zeroizing<Vec<u8>>) -> Self {
        Self(bytes)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

/// Why a client may open a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Credential {
    /// It says nothing.
    None,
    /// It has the ticket of a receiver that serves one job.
    Ticket(Token),
    /// It knows the password of an account.
    Password {
        /// The account's name, as it came.
        user: Vec<u8>,
        /// The password.
        password: Secret,
    },
    /// It has a key of an account.
    Key {
        /// The account's name, as it came.
        user: Vec<u8>,
        /// The key's public half (Ed25519, RFC 8032).
        public: [u8; 32],
        /// Its signature of [`to_sign`].
        signature: [u8; 64],
    },
}

impl Credential {
    /// The account's name, as it came; empty where none is named.
    #[must_use]
    pub fn user(&self) -> &[u8] {
        match self {
            Self::None | Self::Ticket(_) => &[],
            Self::Password { user, .. } | Self::Key { user, .. } => user,
        }
    }
}

/// What a key signs to log `user` in and open the session of `token` at the receiver whose host key has
/// this fingerprint. Whoever is in between has another host key, and nobody but the receiver sees the
/// signature, which is worth nothing for another session, or at another receiver.
#[must_use]
pub fn to_sign(fingerprint: &[u8; 32], token: &Token, user: &[u8]) -> Vec<u8> {
    [b"parallel-transfer v2 login\0".as_slice(), fingerprint, &token.0, user].concat()
}
