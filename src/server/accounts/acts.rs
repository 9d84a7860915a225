//! What administrators did, which a receiver's audit trail tells: kept until a receiver has told it.

use std::time::SystemTime;

use rusqlite::params;

use super::account::seconds;
use super::{Accounts, AccountsError, UserName};
use crate::limits::ACTS_KEPT_MAX;

/// Something that an administrator did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AdminAct {
    id: i64,
    /// Who did it, as the system knows them.
    pub by: String,
    /// In a word.
    pub what: String,
    /// To whose account.
    pub user: String,
}

impl Accounts {
    /// Notes what was done to an account, and by whom. The oldest are forgotten where nobody takes them.
    ///
    /// # Errors
    /// The database can't be written.
    pub fn note_act(&self, what: &str, user: &UserName, by: &str) -> Result<(), AccountsError> {
        #[allow(clippy::disallowed_methods, reason = "for people: nothing depends on it")]
        let when = seconds(SystemTime::now());
        let writing = self.writing();
        let sql = "INSERT INTO acts (noted, by, what, user) VALUES (?, ?, ?, ?)";
        let noted = writing.execute(sql, params![when, by, what, user.as_str()]).and_then(|_| {
            let sql = "DELETE FROM acts WHERE id <= (SELECT MAX(id) FROM acts) - ?";
            writing.execute(sql, [ACTS_KEPT_MAX])
        });
        self.written(noted).map(drop)
    }

    /// Takes what was noted since this was asked last, by whichever receiver.
    ///
    /// # Errors
    /// The database can't be read or written: what was not taken is given the next time.
    pub fn take_acts(&self) -> Result<Vec<AdminAct>, AccountsError> {
        let acts = self.rows("SELECT id, by, what, user FROM acts ORDER BY id", [], |row| {
            Ok(AdminAct { id: row.get(0)?, by: row.get(1)?, what: row.get(2)?, user: row.get(3)? })
        })?;
        if let Some(AdminAct { id, .. }) = acts.last() {
            let taken = self.writing().execute("DELETE FROM acts WHERE id <= ?", [id]);
            self.written(taken)?;
        }
        Ok(acts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_done_is_told_once_and_the_oldest_is_forgotten() {
        let folder = tempfile::tempdir().unwrap();
        let accounts = Accounts::open_or_create(&folder.path().join("accounts.db")).unwrap();
        let alice = UserName::parse(b"alice").unwrap();
        for index in 0..ACTS_KEPT_MAX + 3 {
            accounts.note_act(&format!("act {index}"), &alice, "uid 7").unwrap();
        }
        let acts = accounts.take_acts().unwrap();
        assert_eq!((acts.len() as i64, acts[0].what.as_str(), acts[0].by.as_str()), (ACTS_KEPT_MAX, "act 3", "uid 7"));
        assert_eq!(accounts.take_acts().unwrap(), []);
    }
}
