//! What an account is, why somebody is not let into one, and how a row of the table becomes one.

use std::time::{Duration, SystemTime};

use rusqlite::Row;
use rusqlite::types::Type;

use super::name::UserName;
use super::rights::Rights;
use crate::limits::{ACCOUNT_BYTES_DEFAULT, ACCOUNT_FILES_DEFAULT};

/// One account. Its home is `id` below the root.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Account {
    /// Never used again, not after a removal either.
    pub id: i64,
    /// Unique, but free again after a removal.
    pub name: UserName,
    /// Bytes that it may keep.
    pub bytes_max: u64,
    /// Files that it may keep.
    pub files_max: u64,
    /// What it may do.
    pub rights: Rights,
    /// It can't log in.
    pub is_locked: bool,
    /// Grows with each change of the password, of the keys and of `is_locked`: who logged in before such a
    /// change has to do so again.
    pub generation: i64,
    /// It can log in with a password.
    pub has_password: bool,
    /// It can log in with so many keys.
    pub keys: u32,
    /// When it was made.
    pub created: SystemTime,
    /// When it last logged in.
    pub last_login: Option<SystemTime>,
}

/// How much an account may keep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Quota {
    /// Bytes; what SQLite can't count is as much as it can, 2^63 - 1.
    pub bytes_max: u64,
    /// Files, likewise.
    pub files_max: u64,
}

impl Default for Quota {
    fn default() -> Self {
        Self { bytes_max: ACCOUNT_BYTES_DEFAULT, files_max: ACCOUNT_FILES_DEFAULT }
    }
}

/// Why somebody was not let in: for the log. The peer hears [`Denied::told`], which does not tell the first
/// four apart.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Denied {
    /// There is no such account, or it can't have that name.
    #[error("no such account")]
    Unknown,
    /// Not that password, or none at all.
    #[error("wrong password")]
    WrongPassword,
    /// Not one of its keys, or the signature is not by that key.
    #[error("wrong key")]
    WrongKey,
    /// Password or key were right, but the account is locked.
    #[error("the account is locked")]
    Locked,
    /// Too many passwords to hash at once, or the database is locked.
    #[error("too many logins at once, or the accounts are locked by another program")]
    Busy,
    /// The database can't be read.
    #[error("{0}")]
    Database(String),
}

impl Denied {
    /// What the peer hears.
    #[must_use]
    pub fn told(&self) -> &'static str {
        match self {
            Self::Unknown | Self::WrongPassword | Self::WrongKey | Self::Locked => "wrong name, password or key",
            Self::Busy => "busy: too many are logging in; try again later",
            Self::Database(_) => "the receiver can't read its accounts",
        }
    }
}

impl Account {
    pub(super) fn unlocked(self) -> Result<Self, Denied> {
        if self.is_locked { Err(Denied::Locked) } else { Ok(self) }
    }
}

/// What [`account_of`] wants to see.
pub(super) const COLUMNS: &str =
    "id, name, bytes_max, files_max, rights, is_locked, generation, password IS NOT NULL, created, last_login,
    (SELECT COUNT(*) FROM keys WHERE account = accounts.id)";

/// An account out of [`COLUMNS`].
pub(super) fn account_of(row: &Row<'_>) -> rusqlite::Result<Account> {
    let text = |index: usize| row.get_ref(index).and_then(|value| Ok(value.as_str()?));
    let unreadable = |index| rusqlite::Error::InvalidColumnType(index, "text of ours".to_owned(), Type::Text);
    Ok(Account {
        id: row.get(0)?,
        name: UserName::parse(text(1)?.as_bytes()).map_err(|_| unreadable(1))?,
        bytes_max: row.get::<_, i64>(2)?.max(0).cast_unsigned(),
        files_max: row.get::<_, i64>(3)?.max(0).cast_unsigned(),
        rights: text(4)?.parse().map_err(|_| unreadable(4))?,
        is_locked: row.get(5)?,
        generation: row.get(6)?,
        has_password: row.get(7)?,
        created: time_of(row.get(8)?),
        keys: row.get(10)?,
        last_login: row.get::<_, Option<i64>>(9)?.map(time_of),
    })
}

pub(super) fn as_stored(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Whole seconds since 1970; none before it.
pub(super) fn seconds(time: SystemTime) -> i64 {
    time.duration_since(SystemTime::UNIX_EPOCH).map_or(0, |since| as_stored(since.as_secs()))
}

fn time_of(seconds: i64) -> SystemTime {
    let since = Duration::from_secs(seconds.max(0).cast_unsigned());
    SystemTime::UNIX_EPOCH.checked_add(since).unwrap_or(SystemTime::UNIX_EPOCH)
}
