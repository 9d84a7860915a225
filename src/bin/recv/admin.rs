//! `recv user`: the accounts of a receiver, changed on its machine while it runs.

use std::fs::{self, DirBuilder};
use std::io::{self, IsTerminal as _};
use std::os::unix::fs::DirBuilderExt as _;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::error::ErrorKind;
use clap::{CommandFactory as _, Subcommand};
use indicatif::{BinaryBytes, HumanDuration};
use parallel_transfer::exit::Verdict;
use parallel_transfer::flags::parse_size;
use parallel_transfer::limits::SESSION_END_MAX;
use parallel_transfer::path::Escaped;
use parallel_transfer::secret::{PASSWORD_VARIABLE, PasswordError, PasswordSource, Secret};
use parallel_transfer::server::accounts::{ACCOUNTS_FILE, Account, Accounts, AccountsError, Quota, Rights, UserName};
use parallel_transfer::terminal;
use serde_json::{Value, json};

use crate::args::Args;
use crate::shared::folders::state_folder;

pub(crate) const EXAMPLES: &str = "\
Examples:
  recv user add alice
          make an account; asks for its password, and makes the file of accounts with the first one
  recv user key add bob \"$(cat key_of_bob)\"
          let bob log in with the key that 'send key' printed on his machine
  recv user quota alice 20G --files 1000000
          let alice keep that much
  recv user lock alice
          let alice in no more; her sessions end within 2 seconds

What is changed takes effect at once, in receivers that run as well.";

/// What to do with accounts.
#[derive(Debug, clap::Args)]
pub(crate) struct User {
    #[command(subcommand)]
    act: Act,

    /// The file of accounts [default: ~/.local/state/parallel-transfer/accounts.db]
    #[arg(long, value_name = "FILE", global = true)]
    accounts: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum Act {
    /// Make an account
    Add {
        #[arg(value_parser = parse_name)]
        name: UserName,

        /// Bytes that it may keep [default: 500M]
        #[arg(long, value_name = "SIZE", value_parser = parse_size)]
        quota: Option<u64>,

        /// Files that it may keep [default: 100000]
        #[arg(long, value_name = "N")]
        files: Option<u64>,

        #[command(flatten)]
        password: Password,

        /// Give it no password: it logs in with keys alone
        #[arg(long = "no_password", alias = "no-password", conflicts_with = "password_file")]
        no_password: bool,

        /// Make its home below this root of a receiver [default: the receiver does, at the first login]
        #[arg(long, value_name = "DIR")]
        root: Option<PathBuf>,
    },
    /// Show all accounts
    List {
        /// Print one JSON object
        #[arg(long)]
        json: bool,
    },
    /// Set how much an account may keep
    Quota {
        #[arg(value_parser = parse_name)]
        name: UserName,

        /// Bytes
        #[arg(value_parser = parse_size)]
        size: u64,

        /// Files [default: as it was]
        #[arg(long, value_name = "N")]
        files: Option<u64>,
    },
    /// Let an account in no more, and end its sessions
    Lock {
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
    /// Let a locked account in again
    Unlock {
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
    /// Give an account another password, and end its sessions
    Passwd {
        #[arg(value_parser = parse_name)]
        name: UserName,

        #[command(flatten)]
        password: Password,
    },
    /// Remove an account; its home stays unless --delete_files says otherwise
    Remove {
        #[arg(value_parser = parse_name)]
        name: UserName,

        /// Leave its home as it is (the default)
        #[arg(long = "keep_files", alias = "keep-files", conflicts_with = "delete_files")]
        keep_files: bool,

        /// Delete its home below the receiver's root, with all files
        #[arg(long = "delete_files", alias = "delete-files", requires = "root")]
        delete_files: bool,

        /// The receiver's root
        #[arg(long, value_name = "DIR", requires = "delete_files")]
        root: Option<PathBuf>,

        /// Don't ask
        #[arg(short, long)]
        yes: bool,
    },
    /// Add, show or remove the keys that an account logs in with
    #[command(subcommand)]
    Key(Key),
    /// Set what an account may do: read, write, remove, list, joined by commas; all; none
    Rights {
        #[arg(value_parser = parse_name)]
        name: UserName,

        rights: Rights,
    },
}

impl Act {
    /// What an audit trail is to tell of it, and of whose account.
    fn to_tell(&self) -> Option<(&'static str, &UserName)> {
        Some(match self {
            Self::List { .. } | Self::Key(Key::List { .. }) => return None,
            Self::Add { name, .. } => ("add", name),
            Self::Quota { name, .. } => ("quota", name),
            Self::Lock { name } => ("lock", name),
            Self::Unlock { name } => ("unlock", name),
            Self::Passwd { name, .. } => ("passwd", name),
            Self::Remove { name, .. } => ("remove", name),
            Self::Key(Key::Add { name, .. }) => ("key add", name),
            Self::Key(Key::Remove { name, .. }) => ("key remove", name),
            Self::Rights { name, .. } => ("rights", name),
        })
    }
}

#[derive(Debug, Subcommand)]
enum Key {
    /// Let an account log in with one more key
    Add {
        #[arg(value_parser = parse_name)]
        name: UserName,

        /// The line that 'send key' printed
        #[arg(required = true, num_args = 1..)]
        line: Vec<String>,
    },
    /// Show the keys of an account
    List {
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
    /// Let an account log in with a key no more
    Remove {
        #[arg(value_parser = parse_name)]
        name: UserName,

        /// Its line, its base64 or its comment
        #[arg(required = true, num_args = 1..)]
        key: Vec<String>,
    },
}

#[derive(Debug, clap::Args)]
struct Password {
    /// Read the password from the first line of FILE, '-' for standard input, in place of asking for it;
    /// the environment's PTF_PASSWORD does the same
    #[arg(long = "password_file", alias = "password-file", value_name = "FILE")]
    password_file: Option<PathBuf>,
}

pub(crate) fn run(user: &User) -> anyhow::Result<Verdict> {
    let file = user.accounts.clone().or_else(|| Some(state_folder()?.join(ACCOUNTS_FILE)));
    let file = file.context("no place for accounts: HOME is not set; name a file with --accounts")?;
    let accounts = match &user.act {
        Act::Add { .. } => Accounts::open_or_create(&file)?,
        _ => Accounts::open(&file)?,
    };
    let lines = run_on(&accounts, &user.act)?;
    if let Some((what, name)) = user.act.to_tell() {
        let by = format!("uid {}", rustix::process::getuid().as_raw());
        if let Err(error) = accounts.note_act(what, name, &by) {
            tracing::warn!("this is done, but no audit trail tells of it: {error}");
        }
    }
    // A reader who left early has seen enough.
    let _ = terminal::print_lines(&lines);
    Ok(Verdict::Complete)
}

/// Does it; gives what to print.
fn run_on(accounts: &Accounts, act: &Act) -> anyhow::Result<Vec<String>> {
    let name = match act {
        Act::List { json } => return list(accounts, *json),
        Act::Key(key) => return run_key(accounts, key),
        Act::Remove { name, delete_files, root, yes, .. } => {
            let root = root.as_deref().filter(|_| *delete_files);
            return remove(accounts, name, root, *yes);
        }
        Act::Add { name, quota, files, password, no_password, root } => {
            let default = Quota::default();
            let quota = Quota { bytes_max: quota.unwrap_or(default.bytes_max), files_max: files.unwrap_or(default.files_max) };
            if let Some(root) = root {
                ensure!(root.is_dir(), "'{}' is no folder: '{name}' was not added", Escaped::path(root));
            }
            // Before anybody types a password for nothing.
            ensure_free(accounts, name)?;
            let password = if *no_password { None } else { Some(password.obtain(name)?) };
            let account = accounts.add(name, password.as_ref().map(Secret::as_bytes), quota)?;
            root.as_deref().map(|root| make_home(root, &account)).transpose()?;
            name
        }
        Act::Quota { name, size, files } => {
            accounts.set_quota(name, *size)?;
            files.map(|files| accounts.set_files(name, files)).transpose()?;
            name
        }
        Act::Lock { name } => {
            accounts.lock(name)?;
            name
        }
        Act::Unlock { name } => {
            accounts.unlock(name)?;
            name
        }
        Act::Passwd { name, password } => {
            accounts.find_name(name)?;
            accounts.set_password(name, password.obtain(name)?.as_bytes())?;
            name
        }
        Act::Rights { name, rights } => {
            accounts.set_rights(name, *rights)?;
            name
        }
    };
    Ok(vec![line_of(&accounts.find_name(name)?)])
}

fn run_key(accounts: &Accounts, key: &Key) -> anyhow::Result<Vec<String>> {
    Ok(match key {
        Key::Add { name, line } => vec![format!("{name} may log in with {}", accounts.add_key(name, &line.join(" "))?)],
        Key::List { name } => accounts.keys(name)?.iter().map(ToString::to_string).collect(),
        Key::Remove { name, key } => {
            vec![format!("{name} may log in no more with {}", accounts.remove_key(name, &key.join(" "))?)]
        }
    })
}

fn list(accounts: &Accounts, as_json: bool) -> anyhow::Result<Vec<String>> {
    let all = accounts.list()?;
    Ok(match as_json {
        true => vec![json!({"accounts": all.iter().map(json_of).collect::<Vec<_>>()}).to_string()],
        false => all.iter().map(line_of).collect(),
    })
}

/// Removes an account, and its home if `root` is given.
fn remove(accounts: &Accounts, name: &UserName, root: Option<&Path>, yes: bool) -> anyhow::Result<Vec<String>> {
    let account = accounts.find_name(name)?;
    let home = root.map(|root| home_of(root, &account));
    if let Some(home) = home.as_deref().filter(|_| !yes) {
        let question = format!("Delete the account '{name}' and all files in '{}'? [y/N] ", Escaped::path(home));
        if !io::stdin().is_terminal() {
            usage_error("files would be deleted, and there is no terminal to ask on: add -y if that is wanted")
        }
        ensure!(terminal::confirm(&question).context("can't ask")?, "nothing was removed");
    }
    // The account first: nobody logs in while its files go.
    let account = accounts.remove(name)?;
    let Some(home) = home else {
        return Ok(vec![format!("removed {name}; what it kept is still in {} below the root", account.id)]);
    };
    let shown = Escaped::path(&home);
    delete(&home).with_context(|| format!("'{name}' is removed, but '{shown}' is not: delete it by hand"))?;
    Ok(vec![format!("removed {name} and '{shown}'")])
}

/// Deletes a tree; its links are not followed. Sessions that are just ending may put files into it for a
/// moment.
fn delete(home: &Path) -> io::Result<()> {
    let deadline = Instant::now() + SESSION_END_MAX;
    loop {
        match fs::remove_dir_all(home) {
            Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty && Instant::now() < deadline => {
                thread::sleep(Duration::from_millis(50));
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            done => return done,
        }
    }
}

fn make_home(root: &Path, account: &Account) -> anyhow::Result<()> {
    let home = home_of(root, account);
    match DirBuilder::new().mode(0o700).create(&home) {
        Err(error) => {
            let (name, shown) = (&account.name, Escaped::path(&home));
            bail!("'{name}' is added, but its home '{shown}' can't be made: {error}; the receiver tries again at the first login")
        }
        Ok(()) => Ok(()),
    }
}

fn home_of(root: &Path, account: &Account) -> PathBuf {
    root.join(account.id.to_string())
}

fn ensure_free(accounts: &Accounts, name: &UserName) -> Result<(), AccountsError> {
    match accounts.find_name(name) {
        Ok(_) => Err(AccountsError::Exists(name.clone())),
        Err(AccountsError::Unknown(_)) => Ok(()),
        Err(error) => Err(error),
    }
}

impl Password {
    /// The password; asked for twice where nothing else has it. Where nobody can be asked, the program ends.
    fn obtain(&self, name: &UserName) -> anyhow::Result<Secret> {
        let variable = std::env::var_os(PASSWORD_VARIABLE).map(Secret::of);
        let ask = || {
            let once = terminal::ask_secret(&format!("Password for {name}: "))?;
            if terminal::ask_secret("The same again: ")? == once { Ok(once) } else { Err(PasswordError::Differ) }
        };
        match (PasswordSource { file: self.password_file.as_deref(), variable }).password(ask) {
            Err(error @ PasswordError::Nowhere(_)) => usage_error(&error.to_string()),
            done => Ok(done?),
        }
    }
}

fn usage_error(message: &str) -> ! {
    Args::command().error(ErrorKind::MissingRequiredArgument, message).exit()
}

fn parse_name(text: &str) -> Result<UserName, String> {
    UserName::parse(text.as_bytes()).map_err(|error| error.to_string())
}

fn line_of(account: &Account) -> String {
    let Account { id, name, files_max, rights, keys, .. } = account;
    let state = if account.is_locked { "locked" } else { "active" };
    let password = if account.has_password { "password" } else { "no password" };
    let login = match account.last_login {
        Some(when) => format!("last login {} ago", HumanDuration(when.elapsed().unwrap_or_default())),
        None => "never logged in".to_owned(),
    };
    let bytes = BinaryBytes(account.bytes_max);
    format!("{name}: id {id}, {state}, {bytes} in {files_max} files, rights {rights}, {password}, {keys} keys, {login}")
}

fn json_of(account: &Account) -> Value {
    let seconds = |time: SystemTime| time.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
    json!({
        "id": account.id,
        "name": account.name.as_str(),
        "state": if account.is_locked { "locked" } else { "active" },
        "quota_bytes": account.bytes_max,
        "quota_files": account.files_max,
        "rights": account.rights.names(),
        "password": account.has_password,
        "keys": account.keys,
        "created": seconds(account.created),
        "last_login": account.last_login.map(seconds),
    })
}
