//! Accounts: who may log in, how, and what each may keep and do. In SQLite, so that `recv user` changes
//! them while receivers run.
//!
//! Knows nothing of connections, sessions and addresses.

mod account;
mod acts;
mod database;
mod gate;
mod name;
mod password;
mod rights;

use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

pub use account::{Account, Denied, Quota};
use account::{COLUMNS, account_of, as_stored, seconds};
pub use acts::AdminAct;
pub use database::AccountsError;
pub use name::{NameError, UserName};
use password::{HashError, Hashes};
pub use rights::{Rights, RightsError};
use rusqlite::{Connection, OptionalExtension as _, Params, Row, TransactionBehavior, params};

use crate::limits::{ACCOUNT_KEYS_MAX, ACCOUNTS_BUSY_MAX};
use crate::login_key::PublicKey;

/// The file's usual name, in the state folder.
pub const ACCOUNTS_FILE: &str = "accounts.db";

/// The accounts of a receiver. All of it may be used by many threads at once, and by other processes.
pub struct Accounts {
    file: PathBuf,
    hashes: Hashes,
    /// It waits for nobody: neither for a writer here nor for one elsewhere.
    reading: Mutex<Reading>,
    writing: Mutex<Connection>,
}

struct Reading {
    connection: Connection,
    /// The state of the file when it was last looked at, as SQLite counts what other connections changed.
    version: i64,
}

impl Accounts {
    /// The accounts in `file`, which must be there.
    ///
    /// # Errors
    /// It is not, or is of no use: see [`AccountsError`], which says what to do.
    pub fn open(file: &Path) -> Result<Self, AccountsError> {
        Self::open_within(file, ACCOUNTS_BUSY_MAX)
    }

    /// The same; the file is made if it is not there.
    ///
    /// # Errors
    /// See [`AccountsError`].
    pub fn open_or_create(file: &Path) -> Result<Self, AccountsError> {
        match Self::open(file) {
            Err(AccountsError::Missing { .. }) => {
                database::create(file)?;
                Self::open(file)
            }
            opened => opened,
        }
    }

    fn open_within(file: &Path, busy: Duration) -> Result<Self, AccountsError> {
        let (connection, writing) = (database::open(file, busy)?, database::open(file, busy)?);
        database::warn_of_folder(file);
        let version = data_version(&connection).map_err(|error| database::explain(file, &error))?;
        let reading = Mutex::new(Reading { connection, version });
        Ok(Self { file: file.to_owned(), hashes: Hashes::default(), reading, writing: Mutex::new(writing) })
    }

    /// Makes an account: with a password, or without one, to be given keys.
    ///
    /// # Errors
    /// [`AccountsError::Exists`], [`AccountsError::PasswordLength`], [`AccountsError::TooManyHashes`]; the
    /// database can't be written.
    pub fn add(&self, name: &UserName, password: Option<&[u8]>, quota: Quota) -> Result<Account, AccountsError> {
        let hash = password.map(|password| self.hash(password)).transpose()?;
        let sql = format!(
            "INSERT INTO accounts (name, password, bytes_max, files_max, rights, created) VALUES (?, ?, ?, ?, ?, ?)
             ON CONFLICT DO NOTHING RETURNING {COLUMNS}"
        );
        #[allow(clippy::disallowed_methods, reason = "for people: nothing depends on it")]
        let created = seconds(SystemTime::now());
        let (bytes_max, files_max) = (as_stored(quota.bytes_max), as_stored(quota.files_max));
        let values = params![name.as_str(), hash, bytes_max, files_max, Rights::ALL.to_string(), created];
        let added = self.written(self.writing().query_row(&sql, values, account_of).optional())?;
        added.ok_or_else(|| AccountsError::Exists(name.clone()))
    }

    /// Who logs in with this name and this password. Takes as long whatever is wrong.
    ///
    /// # Errors
    /// Nobody: see [`Denied`].
    pub fn verify(&self, name: &[u8], password: &[u8]) -> Result<Account, Denied> {
        let sql = format!("SELECT {COLUMNS}, password AS more FROM accounts WHERE name = ?");
        let stored = || {
            let found = match UserName::parse(name) {
                Ok(name) => self.find_row(&sql, [name.as_str()], |row| Ok((account_of(row)?, row.get("more")?))),
                Err(NameError) => Ok(None),
            };
            match found {
                Ok(Some((account, hash))) => Ok((Some(account), hash)),
                Ok(None) => Ok((None, None)),
                Err(AccountsError::Busy { .. }) => Err(HashError::Busy),
                Err(error) => Err(HashError::Failed(error.to_string())),
            }
        };
        match self.hashes.is_right(password, stored) {
            Ok((None, _)) => Err(Denied::Unknown),
            Ok((Some(_), false)) => Err(Denied::WrongPassword),
            Ok((Some(account), true)) => account.unlocked(),
            Err(HashError::Busy) => Err(Denied::Busy),
            Err(HashError::Failed(cause)) => Err(Denied::Database(cause)),
            Err(HashError::Length) => Err(Denied::WrongPassword),
        }
    }

    /// Who logs in with this name and this key, by which `message` was signed.
    ///
    /// # Errors
    /// Nobody: see [`Denied`].
    pub fn verify_key(&self, name: &[u8], public: &[u8; 32], message: &[u8], signature: &[u8]) -> Result<Account, Denied> {
        // Before anybody is looked for, so that it takes its time for those who are not there, too.
        let is_signed = PublicKey::has_signed(public, message, signature);
        let name = UserName::parse(name).map_err(|NameError| Denied::Unknown)?;
        let sql = format!(
            "SELECT {COLUMNS}, EXISTS (SELECT 1 FROM keys WHERE account = accounts.id AND public = ?) AS more
             FROM accounts WHERE name = ?"
        );
        let found = self.find_row(&sql, params![public, name.as_str()], |row| Ok((account_of(row)?, row.get("more")?)));
        match found {
            Ok(None) => Err(Denied::Unknown),
            Ok(Some((account, true))) if is_signed => account.unlocked(),
            Ok(Some(_)) => Err(Denied::WrongKey),
            Err(AccountsError::Busy { .. }) => Err(Denied::Busy),
            Err(error) => Err(Denied::Database(error.to_string())),
        }
    }

    /// Has anybody changed anything since this was last asked, or since the accounts were opened? True where
    /// that can't be told.
    #[must_use]
    pub fn has_changed(&self) -> bool {
        let mut reading = self.reading();
        match data_version(&reading.connection) {
            Ok(version) => std::mem::replace(&mut reading.version, version) != version,
            Err(_) => true,
        }
    }

    /// The account with this id; none where it was removed.
    ///
    /// # Errors
    /// The database can't be read, which does not mean that there is no such account.
    pub fn find(&self, id: i64) -> Result<Option<Account>, AccountsError> {
        self.find_row(&format!("SELECT {COLUMNS} FROM accounts WHERE id = ?"), [id], account_of)
    }

    /// The account of this name.
    ///
    /// # Errors
    /// [`AccountsError::Unknown`]; the database can't be read.
    pub fn find_name(&self, name: &UserName) -> Result<Account, AccountsError> {
        let found = self.find_row(&format!("SELECT {COLUMNS} FROM accounts WHERE name = ?"), [name.as_str()], account_of)?;
        found.ok_or_else(|| AccountsError::Unknown(name.clone()))
    }

    /// All of them, by name.
    ///
    /// # Errors
    /// The database can't be read.
    pub fn list(&self) -> Result<Vec<Account>, AccountsError> {
        self.rows(&format!("SELECT {COLUMNS} FROM accounts ORDER BY name"), [], account_of)
    }

    /// Sets how many bytes it may keep.
    ///
    /// # Errors
    /// [`AccountsError::Unknown`]; the database can't be written. So it is for what follows.
    pub fn set_quota(&self, name: &UserName, bytes_max: u64) -> Result<(), AccountsError> {
        self.update(name, "bytes_max = ?2", params![name.as_str(), as_stored(bytes_max)])
    }

    /// Sets how many files it may keep.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`].
    pub fn set_files(&self, name: &UserName, files_max: u64) -> Result<(), AccountsError> {
        self.update(name, "files_max = ?2", params![name.as_str(), as_stored(files_max)])
    }

    /// Sets what it may do.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`].
    pub fn set_rights(&self, name: &UserName, rights: Rights) -> Result<(), AccountsError> {
        self.update(name, "rights = ?2", params![name.as_str(), rights.to_string()])
    }

    /// Lets it in no more.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`].
    pub fn lock(&self, name: &UserName) -> Result<(), AccountsError> {
        self.update(name, "is_locked = 1, generation = generation + 1", [name.as_str()])
    }

    /// Lets it in again.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`].
    pub fn unlock(&self, name: &UserName) -> Result<(), AccountsError> {
        self.update(name, "is_locked = 0, generation = generation + 1", [name.as_str()])
    }

    /// Gives it another password.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`]; [`AccountsError::PasswordLength`], [`AccountsError::TooManyHashes`].
    pub fn set_password(&self, name: &UserName, password: &[u8]) -> Result<(), AccountsError> {
        let hash = self.hash(password)?;
        self.update(name, "password = ?2, generation = generation + 1", params![name.as_str(), hash])
    }

    /// The same for one that was found so by its password: not if anything was changed since.
    ///
    /// # Errors
    /// As [`Accounts::set_password`]; [`AccountsError::Changed`].
    pub fn change_password(&self, account: &Account, password: &[u8]) -> Result<(), AccountsError> {
        let hash = self.hash(password)?;
        let sql = "UPDATE accounts SET password = ?, generation = generation + 1 WHERE id = ? AND generation = ?";
        let changed = self.written(self.writing().execute(sql, params![hash, account.id, account.generation]))?;
        if changed == 0 { Err(AccountsError::Changed(account.name.clone())) } else { Ok(()) }
    }

    /// Lets it log in with one more key, told on a line as [`PublicKey`] writes it.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`]; the line tells no key, it has that key, or too many.
    pub fn add_key(&self, name: &UserName, line: &str) -> Result<PublicKey, AccountsError> {
        let key: PublicKey = line.parse()?;
        self.change_keys(name, false, |connection, id| {
            let sql = "SELECT COUNT(*) >= ? FROM keys WHERE account = ?";
            let is_full = connection.query_row(sql, params![ACCOUNT_KEYS_MAX as i64, id], |row| row.get(0))?;
            let sql = "INSERT INTO keys (account, public, comment) VALUES (?, ?, ?) ON CONFLICT DO NOTHING";
            let values = params![id, key.bytes, key.comment];
            Ok(match is_full {
                true => Err(AccountsError::TooManyKeys(name.clone())),
                _ if connection.execute(sql, values)? == 0 => Err(AccountsError::KeyExists(name.clone())),
                _ => Ok(()),
            })
        })?;
        Ok(key)
    }

    /// Takes a key from it: named by its line, its base64 or its comment, if only one has that.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`]; [`AccountsError::UnknownKey`].
    pub fn remove_key(&self, name: &UserName, which: &str) -> Result<PublicKey, AccountsError> {
        let is_it = |key: &PublicKey| which == key.comment || which == key.base64() || which.trim() == key.to_string();
        let mut named = self.keys(name)?.into_iter().filter(is_it);
        let (Some(key), None) = (named.next(), named.next()) else { return Err(AccountsError::UnknownKey(name.clone())) };
        self.change_keys(name, true, |connection, id| {
            let removed = connection.execute("DELETE FROM keys WHERE account = ? AND public = ?", params![id, key.bytes])?;
            Ok(if removed == 0 { Err(AccountsError::UnknownKey(name.clone())) } else { Ok(()) })
        })?;
        Ok(key)
    }

    /// Its keys.
    ///
    /// # Errors
    /// [`AccountsError::Unknown`]; the database can't be read.
    pub fn keys(&self, name: &UserName) -> Result<Vec<PublicKey>, AccountsError> {
        let id = self.find_name(name)?.id;
        let key_of = |row: &Row<'_>| Ok(PublicKey { bytes: row.get(0)?, comment: row.get(1)? });
        self.rows("SELECT public, comment FROM keys WHERE account = ? ORDER BY rowid", [id], key_of)
    }

    /// Removes it. Its home stays, and nobody gets it: ids are not used again.
    ///
    /// # Errors
    /// As [`Accounts::set_quota`].
    pub fn remove(&self, name: &UserName) -> Result<Account, AccountsError> {
        let sql = format!("DELETE FROM accounts WHERE name = ? RETURNING {COLUMNS}");
        let removed = self.written(self.writing().query_row(&sql, [name.as_str()], account_of).optional())?;
        removed.ok_or_else(|| AccountsError::Unknown(name.clone()))
    }

    /// Notes that it logged in; nothing where it was removed meanwhile.
    ///
    /// # Errors
    /// The database can't be written: it may be locked, for which this waits some seconds.
    pub fn note_login(&self, id: i64, when: SystemTime) -> Result<(), AccountsError> {
        let sql = "UPDATE accounts SET last_login = ? WHERE id = ?";
        self.written(self.writing().execute(sql, params![seconds(when), id])).map(drop)
    }

    /// Nothing that panics while it holds a connection leaves it in the middle of a transaction.
    fn reading(&self) -> MutexGuard<'_, Reading> {
        self.reading.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn writing(&self) -> MutexGuard<'_, Connection> {
        self.writing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn written<T>(&self, done: rusqlite::Result<T>) -> Result<T, AccountsError> {
        done.map_err(|error| database::explain(&self.file, &error))
    }

    fn hash(&self, password: &[u8]) -> Result<String, AccountsError> {
        self.hashes.hash(password).map_err(|error| match error {
            HashError::Busy => AccountsError::TooManyHashes,
            HashError::Length => AccountsError::PasswordLength,
            HashError::Failed(cause) => AccountsError::Hash(cause),
        })
    }

    fn find_row<T>(
        &self, sql: &str, values: impl Params, row: impl FnOnce(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Option<T>, AccountsError> {
        let reading = self.reading();
        let found = reading.connection.prepare(sql).and_then(|mut query| query.query_row(values, row).optional());
        self.written(found)
    }

    fn rows<T>(
        &self, sql: &str, values: impl Params, row: impl FnMut(&Row<'_>) -> rusqlite::Result<T>,
    ) -> Result<Vec<T>, AccountsError> {
        let reading = self.reading();
        let found = reading.connection.prepare(sql).and_then(|mut query| query.query_map(values, row)?.collect());
        self.written(found)
    }

    /// Changes the account of this name; `?1` is the name.
    fn update(&self, name: &UserName, change: &str, values: impl Params) -> Result<(), AccountsError> {
        let changed = self.writing().execute(&format!("UPDATE accounts SET {change} WHERE name = ?1"), values);
        if self.written(changed)? == 0 { Err(AccountsError::Unknown(name.clone())) } else { Ok(()) }
    }

    /// Changes the keys of the account of this name, all or nothing; its sessions end if one is taken away.
    fn change_keys(
        &self, name: &UserName, takes_away: bool,
        change: impl FnOnce(&Connection, i64) -> rusqlite::Result<Result<(), AccountsError>>,
    ) -> Result<(), AccountsError> {
        let mut writing = self.writing();
        let done = writing.transaction_with_behavior(TransactionBehavior::Immediate).and_then(|transaction| {
            let sql = "UPDATE accounts SET generation = generation + ?2 WHERE name = ?1 RETURNING id";
            let id: Option<i64> = transaction.query_row(sql, params![name.as_str(), takes_away], |row| row.get(0)).optional()?;
            let Some(id) = id else { return Ok(Err(AccountsError::Unknown(name.clone()))) };
            match change(&transaction, id)? {
                Ok(()) => transaction.commit().map(Ok),
                Err(error) => Ok(Err(error)),
            }
        });
        self.written(done)?
    }
}

impl fmt::Debug for Accounts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Accounts").field("file", &self.file).finish_non_exhaustive()
    }
}

fn data_version(connection: &Connection) -> rusqlite::Result<i64> {
    connection.pragma_query_value(None, "data_version", |row| row.get(0))
}

#[cfg(test)]
mod tests;
