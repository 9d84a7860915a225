//! Accounts as a receiver sees them, and as another process changes them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt as _;

use tempfile::TempDir;

use super::*;
use crate::limits::{ACCOUNT_BYTES_DEFAULT, HASHES_MAX, HASHES_WAITING_MAX, PASSWORD_LEN_MAX};
use crate::login_key::PrivateKey;

fn name(text: &str) -> UserName {
    UserName::parse(text.as_bytes()).unwrap()
}

/// Accounts with `alice`, whose password is `secret`.
fn with_alice() -> (TempDir, PathBuf, Accounts) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/accounts.db");
    let accounts = Accounts::open_or_create(&file).unwrap();
    accounts.add(&name("alice"), Some(b"secret"), Quota::default()).unwrap();
    (folder, file, accounts)
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

/// Another program's view of the file.
fn other(file: &Path) -> Connection {
    Connection::open(file).unwrap()
}

#[test]
fn the_file_is_made_by_the_first_account_and_is_its_owners_alone() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/accounts.db");
    let error = Accounts::open(&file).unwrap_err().to_string();
    assert!(error.contains("recv user add") && error.contains("accounts.db"), "{error}");
    assert!(!file.parent().unwrap().exists());
    let accounts = Accounts::open_or_create(&file).unwrap();
    accounts.add(&name("alice"), None, Quota::default()).unwrap();
    assert_eq!((mode(file.parent().unwrap()), mode(&file)), (0o700, 0o600));
    for entry in fs::read_dir(file.parent().unwrap()).unwrap() {
        let path = entry.unwrap().path();
        assert!(path.to_str().unwrap().contains("/accounts.db") && mode(&path) == 0o600, "{path:?}");
    }
    drop(accounts);
    let kept = Accounts::open(&file).unwrap().list().unwrap();
    assert_eq!(kept.len(), 1);
    let alice = &kept[0];
    assert_eq!((alice.bytes_max, alice.rights, alice.is_locked), (ACCOUNT_BYTES_DEFAULT, Rights::ALL, false));
    assert!(!alice.has_password && alice.last_login.is_none());
}

#[test]
fn ids_are_never_used_again() {
    let (_folder, file, accounts) = with_alice();
    let mut ids = vec![accounts.find_name(&name("alice")).unwrap().id];
    for _ in 0..3 {
        assert_eq!(accounts.remove(&name("alice")).unwrap().id, *ids.last().unwrap());
        assert!(matches!(accounts.remove(&name("alice")), Err(AccountsError::Unknown(_))));
        let again = Accounts::open(&file).unwrap();
        ids.push(again.add(&name("alice"), None, Quota::default()).unwrap().id);
    }
    assert!(ids.is_sorted_by(|one, two| one < two), "{ids:?}");
    assert!(matches!(accounts.add(&name("alice"), None, Quota::default()), Err(AccountsError::Exists(_))));
    assert_eq!(accounts.find(ids[0]).unwrap(), None);
    assert_eq!(accounts.find(*ids.last().unwrap()).unwrap().unwrap().name, name("alice"));
}

// B14, B15, B16
#[test]
fn whatever_is_wrong_one_hash_is_computed_and_the_peer_hears_the_same() {
    let (_folder, _, accounts) = with_alice();
    accounts.add(&name("keyed"), None, Quota::default()).unwrap();
    accounts.add(&name("locked"), Some(b"secret"), Quota::default()).unwrap();
    accounts.add(&name("gone"), Some(b"secret"), Quota::default()).unwrap();
    accounts.lock(&name("locked")).unwrap();
    accounts.remove(&name("gone")).unwrap();
    let (huge, long) = ([b'a'; 1 << 20], [b'x'; PASSWORD_LEN_MAX + 1]);
    for (user, password, denied) in [
        (&b"alice"[..], &b"Secret"[..], Denied::WrongPassword),
        (b"alice", b"secret\0", Denied::WrongPassword),
        (b"alice", b"", Denied::WrongPassword),
        (b"alice", &long, Denied::WrongPassword),
        (b"alice", &huge, Denied::WrongPassword),
        (b"alice", b"\xff\xfe", Denied::WrongPassword),
        (b"keyed", b"secret", Denied::WrongPassword),
        (b"keyed", b"", Denied::WrongPassword),
        (b"locked", b"wrong", Denied::WrongPassword),
        (b"locked", b"secret", Denied::Locked),
        (b"gone", b"secret", Denied::Unknown),
        (b"nobody", b"secret", Denied::Unknown),
        (b"nobody", &long, Denied::Unknown),
        (b"", b"secret", Denied::Unknown),
        (b"../alice", b"secret", Denied::Unknown),
        (b"alice\0", b"secret", Denied::Unknown),
        (b"alice' OR '1'='1", b"secret", Denied::Unknown),
        ("аlice".as_bytes(), b"secret", Denied::Unknown),
        (&huge, b"secret", Denied::Unknown),
    ] {
        let before = accounts.hashes.gate.entered();
        assert_eq!(accounts.verify(user, password), Err(denied.clone()), "{}", user[..user.len().min(20)].escape_ascii());
        assert_eq!(accounts.hashes.gate.entered(), before + 1);
        assert_eq!(denied.told(), Denied::Unknown.told());
    }
    assert_ne!(Denied::Busy.told(), Denied::Unknown.told());
    for user in ["alice", "Alice", "ALICE"] {
        assert_eq!(accounts.verify(user.as_bytes(), b"secret").unwrap().name, name("alice"));
    }
}

// B14
#[test]
fn a_key_lets_in_whose_key_it_is_and_who_signed_with_it() {
    let (_folder, _, accounts) = with_alice();
    accounts.add(&name("bob"), None, Quota::default()).unwrap();
    let (key, _) = PrivateKey::make().unwrap();
    let line = PublicKey { bytes: key.public(), comment: "laptop".to_owned() }.to_string();
    accounts.add_key(&name("alice"), &line).unwrap();
    let signature = key.sign(b"message").unwrap();
    let verify = |user: &str, message: &[u8]| accounts.verify_key(user.as_bytes(), &key.public(), message, &signature);
    assert_eq!(verify("alice", b"message").unwrap().name, name("alice"));
    assert_eq!(verify("alice", b"massage"), Err(Denied::WrongKey));
    assert_eq!(verify("bob", b"message"), Err(Denied::WrongKey));
    assert_eq!(verify("nobody", b"message"), Err(Denied::Unknown));
    assert_eq!(verify("../alice", b"message"), Err(Denied::Unknown));
    let (stranger, _) = PrivateKey::make().unwrap();
    let forged = stranger.sign(b"message").unwrap();
    assert_eq!(accounts.verify_key(b"alice", &stranger.public(), b"message", &forged), Err(Denied::WrongKey));
    assert_eq!(accounts.verify_key(b"alice", &key.public(), b"message", &forged), Err(Denied::WrongKey));
    accounts.lock(&name("alice")).unwrap();
    assert_eq!(verify("alice", b"message"), Err(Denied::Locked));
    assert_eq!(verify("alice", b"massage"), Err(Denied::WrongKey));
    accounts.unlock(&name("alice")).unwrap();
    accounts.remove_key(&name("alice"), "laptop").unwrap();
    assert_eq!(verify("alice", b"message"), Err(Denied::WrongKey));
    assert_eq!(accounts.verify(b"alice", b"secret").unwrap().name, name("alice"), "the password still does");
}

#[test]
fn keys_are_named_by_line_base64_or_comment_where_that_tells_which() {
    let (_folder, _, accounts) = with_alice();
    let alice = name("alice");
    let line = |number: u8, comment: &str| PublicKey { bytes: [number; 32], comment: comment.to_owned() }.to_string();
    for (number, comment) in [(1, "one"), (2, "both"), (3, "both"), (4, "")] {
        accounts.add_key(&alice, &line(number, comment)).unwrap();
    }
    assert!(matches!(accounts.add_key(&alice, &line(1, "other")), Err(AccountsError::KeyExists(_))));
    assert!(matches!(accounts.add_key(&alice, "ssh-ed25519 AAAA"), Err(AccountsError::Key(_))));
    assert!(matches!(accounts.add_key(&name("bob"), &line(1, "")), Err(AccountsError::Unknown(_))));
    for unclear in ["both", "none", ""] {
        let removed = accounts.remove_key(&alice, unclear);
        assert!(removed.is_ok() == unclear.is_empty() || matches!(removed, Err(AccountsError::UnknownKey(_))), "{unclear}");
    }
    accounts.remove_key(&alice, "one").unwrap();
    accounts.remove_key(&alice, &line(2, "both")).unwrap();
    accounts.remove_key(&alice, line(3, "both").split(' ').nth(1).unwrap()).unwrap();
    assert_eq!(accounts.keys(&alice).unwrap(), []);
    for number in 0..ACCOUNT_KEYS_MAX {
        accounts.add_key(&alice, &line(number as u8, "")).unwrap();
    }
    assert!(matches!(accounts.add_key(&alice, &line(255, "")), Err(AccountsError::TooManyKeys(_))));
    assert_eq!(accounts.keys(&alice).unwrap().len(), ACCOUNT_KEYS_MAX);
    let id = accounts.remove(&alice).unwrap().id;
    let left: i64 = accounts.writing().query_row("SELECT COUNT(*) FROM keys WHERE account = ?", [id], |row| row.get(0)).unwrap();
    assert_eq!(left, 0, "keys go with their account");
}

// B20
#[test]
fn what_changes_is_seen_at_once_by_all_who_have_the_file_open() {
    let (_folder, file, accounts) = with_alice();
    let (alice, admin) = (name("alice"), Accounts::open(&file).unwrap());
    let id = accounts.find_name(&alice).unwrap().id;
    assert!(accounts.has_changed());
    assert!(!accounts.has_changed() && !admin.has_changed());
    let generation = || accounts.find(id).unwrap().unwrap().generation;
    let line = |number: u8| PublicKey { bytes: [number; 32], comment: String::new() }.to_string();
    type Act<'a> = (&'a str, bool, &'a dyn Fn(&Accounts, u8) -> Result<(), AccountsError>);
    let acts: [Act<'_>; 9] = [
        ("quota", false, &|by, number| by.set_quota(&alice, number.into())),
        ("files", false, &|by, number| by.set_files(&alice, u64::MAX * u64::from(number))),
        ("rights", false, &|by, number| by.set_rights(&alice, ["none", "read,list"][usize::from(number)].parse().unwrap())),
        ("login", false, &|by, number| by.note_login(id, SystemTime::UNIX_EPOCH + Duration::from_secs(number.into()))),
        ("lock", true, &|by, _| by.lock(&alice)),
        ("unlock", true, &|by, _| by.unlock(&alice)),
        ("password", true, &|by, _| by.set_password(&alice, b"other")),
        ("key", false, &|by, number| by.add_key(&alice, &line(number)).map(drop)),
        ("no key", true, &|by, number| by.remove_key(&alice, &line(number)).map(drop)),
    ];
    for (what, ends_sessions, act) in acts {
        for (number, by) in [(0, &admin), (1, &accounts)] {
            let before = generation();
            act(by, number).unwrap();
            assert!(accounts.has_changed() && admin.has_changed(), "{what} {number}");
            assert!(!accounts.has_changed() && !admin.has_changed(), "{what} {number}");
            assert_eq!(generation() > before, ends_sessions, "{what}");
        }
    }
    let now = accounts.find(id).unwrap().unwrap();
    assert_eq!((now.bytes_max, now.files_max, now.rights.to_string()), (1, i64::MAX as u64, "read,list".to_owned()));
    assert_eq!(now.last_login, Some(SystemTime::UNIX_EPOCH + Duration::from_secs(1)));
    assert_eq!(accounts.verify(b"alice", b"secret"), Err(Denied::WrongPassword));
    assert_eq!(accounts.verify(b"alice", b"other").unwrap().id, id);
    let nobody = name("nobody");
    for act in [accounts.lock(&nobody), accounts.set_password(&nobody, b"x"), accounts.set_quota(&nobody, 1)] {
        assert!(matches!(act, Err(AccountsError::Unknown(_))));
    }
    assert!(matches!(accounts.set_password(&alice, b""), Err(AccountsError::PasswordLength)));
    admin.remove(&alice).unwrap();
    assert!(accounts.has_changed() && accounts.find(id).unwrap().is_none());
}

// B20
#[test]
fn a_password_is_changed_of_the_account_that_was_found_and_of_no_other() {
    let (_folder, _file, accounts) = with_alice();
    let alice = name("alice");
    accounts.set_password(&alice, b"first").unwrap();
    let found = accounts.verify(b"alice", b"first").unwrap();
    accounts.change_password(&found, b"second").unwrap();
    let now = accounts.verify(b"alice", b"second").unwrap();
    assert_eq!(now.generation, found.generation + 1);
    assert!(matches!(accounts.change_password(&found, b"third"), Err(AccountsError::Changed(_))));
    assert!(matches!(accounts.change_password(&now, b""), Err(AccountsError::PasswordLength)));
    accounts.remove(&alice).unwrap();
    accounts.add(&alice, Some(b"another's"), Quota::default()).unwrap();
    assert!(matches!(accounts.change_password(&now, b"third"), Err(AccountsError::Changed(_))));
    assert_eq!(accounts.verify(b"alice", b"third"), Err(Denied::WrongPassword));
}

// D16
#[test]
fn while_another_program_has_locked_the_file_logins_go_on_and_changes_are_refused() {
    let (_folder, file, _) = with_alice();
    let accounts = Accounts::open_within(&file, Duration::from_millis(50)).unwrap();
    let id = accounts.find_name(&name("alice")).unwrap().id;
    for begin in ["BEGIN IMMEDIATE", "BEGIN EXCLUSIVE"] {
        let shell = other(&file);
        shell.execute_batch(begin).unwrap();
        assert_eq!(accounts.verify(b"alice", b"secret").unwrap().id, id);
        assert!(accounts.find(id).unwrap().is_some() && !accounts.has_changed());
        Accounts::open_within(&file, Duration::from_millis(50)).unwrap();
        let error = accounts.lock(&name("alice")).unwrap_err();
        assert!(matches!(error, AccountsError::Busy { .. }) && error.to_string().contains("accounts.db"), "{error}");
        assert!(matches!(accounts.note_login(id, SystemTime::UNIX_EPOCH), Err(AccountsError::Busy { .. })));
        shell.execute_batch("ROLLBACK").unwrap();
        accounts.lock(&name("alice")).unwrap();
        accounts.unlock(&name("alice")).unwrap();
        assert!(accounts.has_changed());
    }
    drop(accounts);
    // Nobody else gets at it at all.
    let shell = other(&file);
    shell.execute_batch("PRAGMA locking_mode = EXCLUSIVE; BEGIN EXCLUSIVE; COMMIT").unwrap();
    let error = Accounts::open_within(&file, Duration::from_millis(50)).unwrap_err();
    assert!(matches!(error, AccountsError::Busy { .. }), "{error}");
}

// D16
#[test]
fn a_file_that_is_not_ours_newer_or_damaged_is_refused_with_advice_and_left_as_it_is() {
    let (_folder, file, accounts) = with_alice();
    for number in 0..200 {
        accounts.add(&name(&format!("user{number}")), None, Quota::default()).unwrap();
    }
    drop(accounts);
    let good = fs::read(&file).unwrap();
    assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "no log is left behind");
    let refused = |bytes: &[u8], word: &str| {
        fs::write(&file, bytes).unwrap();
        let error = Accounts::open_or_create(&file).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("accounts.db"), "{error}");
        assert_eq!(fs::read(&file).unwrap(), bytes, "{word}");
        assert_eq!(fs::read_dir(file.parent().unwrap()).unwrap().count(), 1, "{word}");
    };
    refused(b"", "not one of accounts");
    refused(b"no database, but as long as the header of one would be; so SQLite looks at all of it.............", "damaged");
    refused(&good[..good.len() / 2], "damaged");
    let torn: Vec<u8> = good.iter().enumerate().map(|(at, byte)| if at < 8192 { *byte } else { byte ^ 0x5a }).collect();
    refused(&torn, "damaged");
    let altered = |sql: &str| {
        fs::write(&file, &good).unwrap();
        other(&file).execute_batch(sql).unwrap();
        fs::read(&file).unwrap()
    };
    refused(&altered("PRAGMA user_version = 2"), "format 2");
    refused(&altered("PRAGMA application_id = 7"), "not one of accounts");
    // Sound for SQLite, but not what we wrote.
    altered("UPDATE accounts SET rights = 'fly' WHERE name = 'alice'; UPDATE accounts SET name = '../x' WHERE name = 'user1'");
    let accounts = Accounts::open(&file).unwrap();
    assert!(matches!(accounts.verify(b"alice", b"secret"), Err(Denied::Database(_))));
    assert!(matches!(accounts.list(), Err(AccountsError::Damaged { .. })));
    assert!(accounts.verify(b"user2", b"secret").is_err_and(|denied| denied == Denied::WrongPassword));
}

#[test]
fn a_file_that_others_may_read_is_refused() {
    let (_folder, file, accounts) = with_alice();
    drop(accounts);
    for mode in [0o640, 0o604, 0o660, 0o666] {
        fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
        let error = Accounts::open(&file).unwrap_err().to_string();
        assert!(error.contains("chmod 600") && error.contains(&format!("{mode:o}")), "{error}");
    }
    fs::remove_file(&file).unwrap();
    fs::create_dir(&file).unwrap();
    assert!(matches!(Accounts::open_or_create(&file), Err(AccountsError::Unusable { .. })));
}

// B17
#[test]
fn beyond_those_who_wait_for_a_hash_all_are_told_that_we_are_busy() {
    let (_folder, _, accounts) = with_alice();
    std::thread::scope(|scope| {
        let mut inside: Vec<_> = (0..HASHES_MAX).map(|_| accounts.hashes.gate.enter().unwrap()).collect();
        let waiting: Vec<_> = (0..HASHES_WAITING_MAX).map(|_| scope.spawn(|| accounts.verify(b"alice", b"wrong"))).collect();
        while accounts.hashes.gate.waiting() < HASHES_WAITING_MAX {
            std::thread::yield_now();
        }
        assert_eq!(accounts.verify(b"alice", b"secret"), Err(Denied::Busy));
        assert_eq!(accounts.verify(b"nobody", b"secret"), Err(Denied::Busy));
        assert!(matches!(accounts.set_password(&name("alice"), b"x"), Err(AccountsError::TooManyHashes)));
        // Whoever waits is judged by what holds when it is his turn.
        accounts.remove(&name("alice")).unwrap();
        inside.clear();
        for verdict in waiting {
            assert_eq!(verdict.join().unwrap(), Err(Denied::Unknown));
        }
    });
}

#[test]
fn nothing_that_is_printed_shows_a_hash() {
    let (_folder, file, accounts) = with_alice();
    let shown = format!("{accounts:?} {:?}", accounts.list().unwrap());
    assert!(!shown.contains("argon2") && !shown.contains("secret"), "{shown}");
    let (hash,): (String,) = other(&file).query_row("SELECT password FROM accounts", [], |row| Ok((row.get(0)?,))).unwrap();
    assert!(hash.starts_with("$argon2id$"));
}

#[test]
fn many_who_make_the_file_at_once_all_get_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("state/accounts.db");
    std::thread::scope(|scope| {
        for number in 0..8 {
            let file = &file;
            scope.spawn(move || {
                let accounts = Accounts::open_or_create(file).unwrap();
                accounts.add(&name(&format!("user{number}")), None, Quota::default()).unwrap();
                let same = accounts.add(&name("same"), None, Quota::default());
                assert!(matches!(same, Ok(_) | Err(AccountsError::Exists(_))), "{same:?}");
            });
        }
    });
    assert_eq!(Accounts::open(&file).unwrap().list().unwrap().len(), 9);
    let names: Vec<_> = fs::read_dir(file.parent().unwrap()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert_eq!(names, ["accounts.db"]);
}
