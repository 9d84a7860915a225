//! The database's file: made whole or not at all, opened if it is ours and sound, refused with advice
//! otherwise.

use std::fs::{DirBuilder, File, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt as _, MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::{Connection, ErrorCode, OpenFlags};

use super::name::UserName;
use crate::limits::{ACCOUNT_KEYS_MAX, PASSWORD_LEN_MAX};
use crate::login_key::KeyError;
use crate::path::Escaped;

/// Marks the file as ours: `PTFa`.
const APPLICATION_ID: i32 = 0x5054_4661;

/// The version of the schema below.
const VERSION: i32 = 1;

/// An id is never used again, so that nobody gets the home of one who was removed.
const SCHEMA: &str = "
CREATE TABLE accounts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    name TEXT NOT NULL UNIQUE,
    password TEXT,
    bytes_max INTEGER NOT NULL,
    files_max INTEGER NOT NULL,
    rights TEXT NOT NULL,
    is_locked INTEGER NOT NULL DEFAULT 0,
    generation INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    last_login INTEGER
) STRICT;
CREATE TABLE keys (
    account INTEGER NOT NULL REFERENCES accounts (id) ON DELETE CASCADE,
    public BLOB NOT NULL,
    comment TEXT NOT NULL,
    PRIMARY KEY (account, public)
) STRICT;
CREATE TABLE acts (
    id INTEGER PRIMARY KEY AUTOINCREMENT,
    noted INTEGER NOT NULL,
    by TEXT NOT NULL,
    what TEXT NOT NULL,
    user TEXT NOT NULL
) STRICT;
";

/// Why the accounts are of no use, or what was asked of them can't be done.
#[derive(Debug, thiserror::Error)]
pub enum AccountsError {
    /// There is no such file.
    #[error("there are no accounts in '{}'; 'recv user add NAME --accounts FILE' makes them", Escaped::path(.file))]
    Missing {
        /// The file.
        file: PathBuf,
    },
    /// Others could have read or changed it.
    #[error("the accounts '{}' may be read or written by others (mode {mode:03o}): chmod 600 them; if somebody may have done so, set all passwords anew", Escaped::path(.file))]
    Exposed {
        /// The file.
        file: PathBuf,
        /// Its mode.
        mode: u32,
    },
    /// It is a database of something else.
    #[error("'{}' is a database, but not one of accounts; name another file with --accounts", Escaped::path(.file))]
    Foreign {
        /// The file.
        file: PathBuf,
    },
    /// A later version of this program made it.
    #[error("the accounts '{}' have format {version}, and this program knows {VERSION}: use the program that wrote them, or a copy of before", Escaped::path(.file))]
    Newer {
        /// The file.
        file: PathBuf,
        /// The version of its schema.
        version: i32,
    },
    /// It is damaged, or no database at all.
    #[error("the accounts '{}' are damaged: {cause}; put back a copy of them, or try \"sqlite3 FILE .recover\"", Escaped::path(.file))]
    Damaged {
        /// The file.
        file: PathBuf,
        /// What is wrong.
        cause: String,
    },
    /// Another program keeps it locked.
    #[error("the accounts '{}' are busy: another program has locked them; end it, or try again", Escaped::path(.file))]
    Busy {
        /// The file.
        file: PathBuf,
    },
    /// It can't be read or written.
    #[error("can't use the accounts '{}': {cause}; the file and its folder must be this user's to write", Escaped::path(.file))]
    Unusable {
        /// The file.
        file: PathBuf,
        /// What the system said.
        cause: String,
    },
    /// There is one of that name.
    #[error("there is an account '{0}' already")]
    Exists(UserName),
    /// There is none of that name.
    #[error("there is no account '{0}'; 'recv user list' shows all")]
    Unknown(UserName),
    /// Somebody else changed it.
    #[error("the account '{0}' was changed meanwhile: log in again")]
    Changed(UserName),
    /// No password has so many bytes.
    #[error("a password has 1 to {PASSWORD_LEN_MAX} bytes")]
    PasswordLength,
    /// Too many passwords are hashed at once.
    #[error("too many logins at once; try again")]
    TooManyHashes,
    /// No password can be hashed.
    #[error("{0}")]
    Hash(String),
    /// The line tells no key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The account has that key.
    #[error("'{0}' has that key already")]
    KeyExists(UserName),
    /// The account has no such key, or several.
    #[error("'{0}' has not exactly one key of that text or comment; 'recv user key list {0}' shows all")]
    UnknownKey(UserName),
    /// The account has as many keys as there may be.
    #[error("'{0}' has {ACCOUNT_KEYS_MAX} keys already; remove one with 'recv user key remove'")]
    TooManyKeys(UserName),
}

/// Opens the file, which must be there.
pub(super) fn open(file: &Path, busy: Duration) -> Result<Connection, AccountsError> {
    let unusable = |cause: String| AccountsError::Unusable { file: file.to_owned(), cause };
    let about = match file.metadata() {
        Ok(about) if about.is_file() => about,
        Ok(_) => return Err(unusable("it is not a regular file".to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Err(AccountsError::Missing { file: file.to_owned() }),
        Err(error) => return Err(unusable(error.to_string())),
    };
    if about.mode() & 0o077 != 0 {
        return Err(AccountsError::Exposed { file: file.to_owned(), mode: about.mode() & 0o777 });
    }
    let connection = connect(file, busy).map_err(|error| explain(file, &error))?;
    check(file, &connection)?;
    use_log(&connection).map_err(|error| explain(file, &error))?;
    Ok(connection)
}

/// Warns where others could put another file in this one's place.
pub(super) fn warn_of_folder(file: &Path) {
    let folder = folder_of(file);
    if folder.metadata().is_ok_and(|about| about.mode() & 0o002 != 0) {
        let shown = Escaped::path(folder);
        tracing::warn!("anyone may write to '{shown}', where the accounts are: chmod o-w it, or keep them elsewhere");
    }
}

/// Makes the file, without any account, unless there is one by now.
pub(super) fn create(file: &Path) -> Result<(), AccountsError> {
    let unusable = |error: io::Error| AccountsError::Unusable { file: file.to_owned(), cause: error.to_string() };
    let folder = folder_of(file);
    DirBuilder::new().recursive(true).mode(0o700).create(folder).map_err(unusable)?;
    let new = tempfile::Builder::new().prefix(".accounts.").permissions(Permissions::from_mode(0o600)).tempfile_in(folder);
    // Under another name first: nobody ever opens half a database. SQLite's locks go with any descriptor
    // of the file that is closed, so ours goes before it comes.
    let new = new.map_err(unusable)?.into_temp_path();
    let made = connect(&new, Duration::ZERO).and_then(|connection| {
        use_log(&connection)?;
        connection.execute_batch(SCHEMA)?;
        connection.pragma_update(None, "user_version", VERSION)?;
        connection.pragma_update(None, "application_id", APPLICATION_ID)?;
        connection.close().map_err(|(_, error)| error)
    });
    made.map_err(|error| explain(file, &error))?;
    match new.persist_noclobber(file) {
        Ok(()) => sync_folder(folder).map_err(unusable),
        Err(error) if error.error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        Err(error) => Err(unusable(error.error)),
    }
}

/// What an error of SQLite means for whoever uses the file.
pub(super) fn explain(file: &Path, error: &rusqlite::Error) -> AccountsError {
    let (file, cause) = (file.to_owned(), error.to_string());
    match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked) => AccountsError::Busy { file },
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) => AccountsError::Damaged { file, cause },
        Some(_) => AccountsError::Unusable { file, cause },
        // What is in it is not what we wrote.
        None => AccountsError::Damaged { file, cause },
    }
}

fn connect(file: &Path, busy: Duration) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(file, flags)?;
    connection.busy_timeout(busy)?;
    connection.pragma_update(None, "foreign_keys", true)?;
    connection.pragma_update(None, "trusted_schema", false)?;
    // Hashes that were replaced don't stay in the file.
    connection.pragma_update(None, "secure_delete", true)?;
    Ok(connection)
}

/// With a log, logins go on while another program writes or has locked the accounts.
fn use_log(connection: &Connection) -> rusqlite::Result<()> {
    connection.query_row("PRAGMA journal_mode = WAL", [], |_| Ok(()))
}

fn check(file: &Path, connection: &Connection) -> Result<(), AccountsError> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get::<_, i32>(0));
    let explain = |error: rusqlite::Error| explain(file, &error);
    let (application_id, version) = (number("application_id").map_err(explain)?, number("user_version").map_err(explain)?);
    if application_id != APPLICATION_ID {
        return Err(AccountsError::Foreign { file: file.to_owned() });
    }
    if version > VERSION {
        return Err(AccountsError::Newer { file: file.to_owned(), version });
    }
    let verdict: String = connection.query_row("PRAGMA quick_check(1)", [], |row| row.get(0)).map_err(explain)?;
    if verdict != "ok" {
        return Err(AccountsError::Damaged { file: file.to_owned(), cause: verdict });
    }
    Ok(())
}

fn folder_of(file: &Path) -> &Path {
    file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or_else(|| Path::new("."))
}

#[allow(clippy::disallowed_methods, reason = "a folder is opened to be flushed")]
fn sync_folder(folder: &Path) -> io::Result<()> {
    File::open(folder)?.sync_all()
}
