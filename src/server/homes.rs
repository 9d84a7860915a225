//! Whose files are where: one tree for all who may come in, or a home below the root for each account.

use std::collections::HashMap;
use std::fmt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU8, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use super::accounts::{Account, Accounts, AccountsError, AdminAct, Denied, Quota, Rights, UserName};
use super::metrics::QuotaUse;
use crate::limits::HOME_LINGER;
use crate::net::pace::Pace;
use crate::path::RemotePath;
use crate::protocol::{Credential, Purpose, Secret, Token, to_sign};
use crate::store::{self, Bounds, Limits, Store, Umask};

/// A tree, and whose it is.
#[derive(Debug)]
pub(super) struct Home {
    pub(super) store: Store,
    /// None where all may come in.
    pub(super) owner: Option<Owner>,
    /// What may be done in it, see [`Home::rights`].
    rights: AtomicU8,
    /// The rate at which all its connections together may bring or take something, if there is one.
    pub(super) pace: Option<Arc<Pace>>,
}

/// Whose a home is.
#[derive(Debug)]
pub(super) struct Owner {
    id: i64,
    pub(super) name: UserName,
    /// As the account says, or why nobody may be in it.
    generation: AtomicI64,
    /// When somebody logged in last.
    used: Mutex<Instant>,
}

const LOCKED: i64 = -1;
const REMOVED: i64 = -2;

/// One who may open a session.
#[derive(Debug, Clone)]
pub(super) struct Admitted {
    pub(super) home: Arc<Home>,
    /// What the account was at that time.
    pub(super) generation: i64,
}

/// Why somebody may not come in.
#[derive(Debug)]
pub(super) struct NotAdmitted {
    /// What the peer hears.
    pub(super) said: String,
    /// What the receiver's owner wants to know.
    pub(super) why: String,
    /// May it have been a guess?
    pub(super) is_guess: bool,
}

/// All trees that a receiver serves.
#[derive(Debug)]
pub struct Homes {
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Tree(Arc<Home>),
    Accounts(Box<Estate>),
}

/// What holds for all accounts.
#[derive(Debug, Clone, Copy, Default)]
pub struct Terms {
    /// What those get who make an account themselves; without it nobody can.
    pub sign_up: Option<Limits>,
    /// Bytes a second that all connections of an account together may bring or take, if there is a limit.
    pub rate: Option<u64>,
    /// Of each file, and of the disk.
    pub bounds: Bounds,
}

/// The homes of accounts.
#[derive(Debug)]
struct Estate {
    accounts: Accounts,
    /// That all homes are in.
    top: Store,
    umask: Umask,
    state_folder: Option<PathBuf>,
    terms: Terms,
    open: Mutex<HashMap<i64, Arc<Place>>>,
    /// Logins that are not noted yet: that may have to wait for another program.
    logins: Mutex<HashMap<i64, SystemTime>>,
    /// Was a home's account noted that may have changed since?
    is_unsure: AtomicBool,
}

/// The home of one account, once somebody has come in. Held while it is opened.
type Place = Mutex<Option<Arc<Home>>>;

impl Home {
    /// The path of a folder that a person named. In a home `/` is the home, whatever its own path is.
    pub(super) fn resolve_folder(&self, name: &[u8]) -> Result<RemotePath, store::Error> {
        match self.owner {
            Some(_) => Ok(RemotePath::parse_loosely(name)?),
            None => self.store.resolve_folder(name),
        }
    }

    /// Where a folder is, as its owner calls it.
    pub(super) fn landed(&self, base: &RemotePath) -> PathBuf {
        let top = if self.owner.is_some() { Path::new("/") } else { self.store.path() };
        // Joined to nothing it would end with a slash.
        if base.is_root() { top.to_owned() } else { top.join(base.as_path()) }
    }

    /// What may be done in it now.
    pub(super) fn rights(&self) -> Rights {
        Rights::from_bits(self.rights.load(Ordering::Relaxed))
    }

    fn set_rights(&self, rights: Rights) {
        self.rights.store(rights.to_bits(), Ordering::Relaxed);
    }

    /// Why a session that was opened when the account was of this generation must end, if it must. One that
    /// only browses goes on as long as anything may be done.
    pub(super) fn over(&self, generation: i64, purpose: Purpose) -> Option<&'static str> {
        match self.owner.as_ref()?.generation.load(Ordering::Relaxed) {
            LOCKED => Some("the account was locked"),
            REMOVED => Some("the account was removed"),
            now if now != generation => Some("the password or a key of the account was changed: log in again"),
            _ if purpose == Purpose::Browse && self.rights() == Rights::NONE => Some("the account may do nothing here any more"),
            _ if purpose == Purpose::Bring && !self.rights().write => Some("the account may not write any more"),
            _ => None,
        }
    }
}

impl fmt::Display for Home {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.owner {
            Some(owner) => owner.name.fmt(f),
            None => f.write_str("-"),
        }
    }
}

impl NotAdmitted {
    fn of(denied: &Denied) -> Self {
        Self {
            said: denied.told().to_owned(),
            why: denied.to_string(),
            is_guess: !matches!(denied, Denied::Busy | Denied::Database(_)),
        }
    }

    fn because(why: impl fmt::Display) -> Self {
        Self { said: why.to_string(), why: why.to_string(), is_guess: false }
    }
}

impl Homes {
    /// One tree, for all who may come in, and what they may do there.
    #[must_use]
    pub fn of(store: Store, rights: Rights) -> Self {
        let rights = AtomicU8::new(rights.to_bits());
        Self { kind: Kind::Tree(Arc::new(Home { store, owner: None, rights, pace: None })) }
    }

    /// Homes of `accounts` in `top`, each with a number as its name. What must be remembered of them is in
    /// `state_folder`.
    #[must_use]
    pub fn of_accounts(accounts: Accounts, top: Store, umask: Umask, state_folder: Option<PathBuf>, terms: Terms) -> Self {
        // What was done before it was opened is to be told, too.
        let (open, logins, is_unsure) = (Mutex::default(), Mutex::default(), AtomicBool::new(true));
        Self { kind: Kind::Accounts(Box::new(Estate { accounts, top, umask, state_folder, terms, open, logins, is_unsure })) }
    }

    /// The tree that needs no login, if there is one.
    pub(super) fn tree(&self) -> Option<&Arc<Home>> {
        match &self.kind {
            Kind::Tree(home) => Some(home),
            Kind::Accounts(_) => None,
        }
    }

    /// Do people have to say who they are?
    pub(super) fn want_login(&self) -> bool {
        matches!(self.kind, Kind::Accounts(_))
    }

    /// Says where someone who shows this may come in. The signature of a key is over `host_key`, this
    /// receiver's fingerprint, and over `token`.
    pub(super) fn admit(
        &self, credential: &Credential, host_key: Option<&[u8; 32]>, token: &Token,
    ) -> Result<Admitted, NotAdmitted> {
        let estate = match &self.kind {
            Kind::Tree(_) if matches!(credential, Credential::Password { .. } | Credential::Key { .. }) => {
                return Err(NotAdmitted::because("this receiver has no accounts: leave --user out"));
            }
            Kind::Tree(home) => return Ok(Admitted { home: Arc::clone(home), generation: 0 }),
            Kind::Accounts(estate) => estate,
        };
        let verified = match (credential, host_key) {
            (Credential::Password { user, password }, Some(_)) => estate.accounts.verify(user, password.as_bytes()),
            (Credential::Key { user, public, signature }, Some(host_key)) => {
                estate.accounts.verify_key(user, public, &to_sign(host_key, token, user), signature)
            }
            _ => return Err(NotAdmitted::because("this receiver wants to know who you are (--user NAME)")),
        };
        let account = verified.map_err(|denied| NotAdmitted::of(&denied))?;
        estate.logins.lock().unwrap_or_else(PoisonError::into_inner).insert(account.id, now());
        let home = estate.open(&account).map_err(|error| NotAdmitted {
            said: "this receiver can't open your home; its owner knows why from its log".to_owned(),
            why: error.to_string(),
            is_guess: false,
        })?;
        Ok(Admitted { home, generation: account.generation })
    }

    /// Makes an account for someone who asks for it.
    pub(super) fn sign_up(&self, user: &[u8], password: &Secret) -> Result<UserName, NotAdmitted> {
        let Kind::Accounts(estate) = &self.kind else { return Err(NotAdmitted::because("this receiver has no accounts")) };
        let Some(limits) = estate.terms.sign_up else {
            return Err(NotAdmitted::because("nobody can sign up here: ask the receiver's owner for an account"));
        };
        let name = UserName::parse(user).map_err(NotAdmitted::because)?;
        let quota = Quota { bytes_max: limits.bytes, files_max: limits.files };
        match estate.accounts.add(&name, Some(password.as_bytes()), quota) {
            Ok(_) => Ok(name),
            Err(error @ (AccountsError::Exists(_) | AccountsError::PasswordLength | AccountsError::TooManyHashes)) => {
                Err(NotAdmitted::because(error))
            }
            // It may name files of the receiver.
            Err(error) => Err(NotAdmitted {
                said: "this receiver can't make an account now; try again later".to_owned(),
                why: error.to_string(),
                is_guess: false,
            }),
        }
    }

    /// The account whose home this is, for who shows its password once more.
    pub(super) fn account_of(&self, home: &Home, password: &Secret) -> Result<Account, NotAdmitted> {
        let (Kind::Accounts(estate), Some(owner)) = (&self.kind, &home.owner) else {
            return Err(NotAdmitted::because("this receiver has no accounts"));
        };
        match estate.accounts.verify(owner.name.as_str().as_bytes(), password.as_bytes()) {
            // Another may have got the name.
            Ok(account) if account.id == owner.id => Ok(account),
            Ok(_) => Err(NotAdmitted::of(&Denied::Unknown)),
            Err(Denied::WrongPassword) => {
                Err(NotAdmitted { said: "that is not the password".to_owned(), ..NotAdmitted::of(&Denied::WrongPassword) })
            }
            Err(denied) => Err(NotAdmitted::of(&denied)),
        }
    }

    /// Gives an account that was found so another password.
    pub(super) fn change_password(&self, account: &Account, password: &Secret) -> Result<(), NotAdmitted> {
        let Kind::Accounts(estate) = &self.kind else { return Err(NotAdmitted::because("this receiver has no accounts")) };
        estate.accounts.change_password(account, password.as_bytes()).map_err(|error| match error {
            AccountsError::PasswordLength | AccountsError::Changed(_) => NotAdmitted::because(error),
            AccountsError::TooManyHashes => NotAdmitted::of(&Denied::Busy),
            // It may name files of the receiver.
            error => NotAdmitted {
                said: "this receiver can't change its accounts now; try again later".to_owned(),
                why: error.to_string(),
                is_guess: false,
            },
        })
    }

    /// Looks whether accounts were changed; true if sessions may have to end.
    pub(super) fn refresh(&self) -> bool {
        let Kind::Accounts(estate) = &self.kind else { return false };
        if !estate.accounts.has_changed() && !estate.is_unsure.swap(false, Ordering::Relaxed) {
            return false;
        }
        for home in estate.homes() {
            let Some(owner) = &home.owner else { continue };
            let generation = match estate.accounts.find(owner.id) {
                Ok(Some(account)) => {
                    if let Some(ledger) = home.store.ledger() {
                        ledger.set_limits(Limits { bytes: account.bytes_max, files: account.files_max });
                    }
                    home.set_rights(account.rights);
                    generation_of(&account)
                }
                Ok(None) => REMOVED,
                Err(error) => {
                    tracing::warn!("can't look at the account of {}: {error}", owner.name);
                    estate.is_unsure.store(true, Ordering::Relaxed);
                    continue;
                }
            };
            owner.generation.store(generation, Ordering::Relaxed);
        }
        true
    }

    /// What administrators did since this was asked last.
    pub(super) fn take_acts(&self) -> Vec<AdminAct> {
        let Kind::Accounts(estate) = &self.kind else { return Vec::new() };
        estate.accounts.take_acts().unwrap_or_else(|error| {
            tracing::warn!("what was done to accounts is told later: {error}");
            estate.is_unsure.store(true, Ordering::Relaxed);
            Vec::new()
        })
    }

    /// Notes who logged in. That may have to wait for another program.
    pub(super) fn note_logins(&self) {
        let Kind::Accounts(estate) = &self.kind else { return };
        let mut logins = std::mem::take(&mut *estate.logins.lock().unwrap_or_else(PoisonError::into_inner));
        while let Some((id, when)) = logins.iter().next().map(|(id, when)| (*id, *when)) {
            if let Err(error) = estate.accounts.note_login(id, when) {
                tracing::debug!("the login of account {id} is not noted yet: {error}");
                break;
            }
            logins.remove(&id);
        }
        // Each would wait as long for who has the accounts locked: they are noted when they can be.
        let mut later = estate.logins.lock().unwrap_or_else(PoisonError::into_inner);
        logins.into_iter().for_each(|(id, when)| _ = later.entry(id).or_insert(when));
    }

    /// Looks after what earlier processes left, see [`Store::adopt`].
    pub(super) fn adopt(&self, keep: Duration, going: &mut dyn FnMut() -> bool) {
        match &self.kind {
            Kind::Tree(home) => home.store.adopt(keep, going),
            Kind::Accounts(estate) => estate.adopt(keep, going),
        }
    }

    /// Brings to the disk what was published since the last time.
    pub(super) fn sync_if_needed(&self) {
        match &self.kind {
            Kind::Tree(home) => home.store.sync_if_needed(),
            Kind::Accounts(estate) => estate.homes().iter().for_each(|home| home.store.sync_if_needed()),
        }
    }

    /// What the accounts whose homes are open have and may have, all together.
    pub(super) fn quota_use(&self) -> QuotaUse {
        let Kind::Accounts(estate) = &self.kind else { return QuotaUse::default() };
        let mut sum = QuotaUse::default();
        for ledger in estate.homes().iter().filter_map(|home| home.store.ledger()) {
            sum.used_bytes = sum.used_bytes.saturating_add(ledger.usage().bytes);
            sum.limit_bytes = sum.limit_bytes.saturating_add(ledger.limits().bytes);
        }
        sum
    }

    /// Lets go of homes that nobody was in for long.
    pub(super) fn sweep(&self) {
        let Kind::Accounts(estate) = &self.kind else { return };
        let mut open = estate.open.lock().unwrap_or_else(PoisonError::into_inner);
        // Whoever opens one holds its place.
        open.retain(|_, place| Arc::strong_count(place) > 1 || !is_left(place));
    }

    /// Ends the indexes, once no session is left.
    pub(super) fn end(&self) {
        match &self.kind {
            Kind::Tree(home) => home.store.end_index(),
            Kind::Accounts(estate) => estate.homes().iter().for_each(|home| home.store.end_index()),
        }
    }
}

#[allow(clippy::disallowed_methods, reason = "it is told, and nothing is timed by it")]
fn now() -> SystemTime {
    SystemTime::now()
}

/// What the sessions of an account must have been opened with.
fn generation_of(account: &Account) -> i64 {
    match account {
        Account { is_locked: true, .. } => LOCKED,
        _ => account.generation,
    }
}

/// Was nobody in this home for long?
fn is_left(place: &Arc<Place>) -> bool {
    let Ok(place) = place.try_lock() else { return false };
    let Some(home) = &*place else { return true };
    let used = home.owner.as_ref().map(|owner| *owner.used.lock().unwrap_or_else(PoisonError::into_inner));
    let is_left = Arc::strong_count(home) == 1 && used.is_none_or(|used| used.elapsed() >= HOME_LINGER);
    if is_left {
        home.store.end_index();
    }
    is_left
}

impl Estate {
    /// The homes that are open. One that is being opened, which may take long, is not waited for.
    fn homes(&self) -> Vec<Arc<Home>> {
        let open = self.open.lock().unwrap_or_else(PoisonError::into_inner);
        open.values().filter_map(|place| place.try_lock().ok()?.clone()).collect()
    }

    /// The home of an account, opened where it is not. What is in it is counted then.
    fn open(&self, account: &Account) -> anyhow::Result<Arc<Home>> {
        let place = Arc::clone(self.open.lock().unwrap_or_else(PoisonError::into_inner).entry(account.id).or_default());
        let mut place = place.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(home) = &*place {
            if let Some(owner) = &home.owner {
                // What was seen last may be older, or newer: it is looked at again.
                owner.generation.store(generation_of(account), Ordering::Relaxed);
                home.set_rights(account.rights);
                self.is_unsure.store(true, Ordering::Relaxed);
                *owner.used.lock().unwrap_or_else(PoisonError::into_inner) = Instant::now();
            }
            return Ok(Arc::clone(home));
        }
        let name = RemotePath::parse(account.id.to_string().as_bytes())?;
        self.top.make_home(&name)?;
        let mut store = Store::open(&self.top.path().join(name.as_path()), self.umask)?;
        store.set_bounds(self.terms.bounds);
        store.limit(Limits { bytes: account.bytes_max, files: account.files_max })?;
        store.keep_index_below(self.state_folder.as_deref());
        store.keep_syncs_below(self.state_folder.as_deref());
        let owner = Owner {
            id: account.id,
            name: account.name.clone(),
            generation: AtomicI64::new(generation_of(account)),
            used: Mutex::new(Instant::now()),
        };
        // It may have been changed while all was counted.
        self.is_unsure.store(true, Ordering::Relaxed);
        let (rights, pace) = (AtomicU8::new(account.rights.to_bits()), self.terms.rate.map(|rate| Arc::new(Pace::new(rate))));
        let home = Arc::new(Home { store, owner: Some(owner), rights, pace });
        *place = Some(Arc::clone(&home));
        Ok(home)
    }

    fn adopt(&self, keep: Duration, going: &mut dyn FnMut() -> bool) {
        let Some(state_folder) = &self.state_folder else { return };
        for root in Store::roots_with_leftovers(state_folder) {
            if !going() {
                return;
            }
            let id = root.strip_prefix(self.top.path()).ok().and_then(|id| id.to_str()?.parse().ok());
            let Some(account) = id.and_then(|id| self.accounts.find(id).ok()?) else { continue };
            match self.open(&account) {
                Ok(home) => home.store.adopt(keep, going),
                Err(error) => tracing::warn!("the home of {}: {error}", account.name),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::take_umask;
    use std::sync::mpsc;

    // B20
    #[test]
    fn a_home_that_is_being_counted_delays_no_lock() {
        let (folder, root) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let file = folder.path().join("accounts.db");
        let accounts = Accounts::open_or_create(&file).unwrap();
        let name = |name: &str| UserName::parse(name.as_bytes()).unwrap();
        let alice = accounts.add(&name("alice"), None, Quota::default()).unwrap();
        let bob = accounts.add(&name("bob"), None, Quota::default()).unwrap();
        let umask = take_umask();
        let homes = Homes::of_accounts(accounts, Store::open(root.path(), umask).unwrap(), umask, None, Terms::default());
        let Kind::Accounts(estate) = &homes.kind else { panic!() };
        let home = estate.open(&alice).unwrap();
        homes.refresh();
        // As where what is in bob's home is being counted, which takes seconds for a million files.
        let place = Arc::clone(estate.open.lock().unwrap().entry(bob.id).or_default());
        let counting = place.lock().unwrap();
        Accounts::open(&file).unwrap().lock(&name("alice")).unwrap();
        std::thread::scope(|scope| {
            let (tell, told) = mpsc::channel();
            let homes = &homes;
            scope.spawn(move || tell.send(homes.refresh()));
            let refreshed = told.recv_timeout(Duration::from_secs(3));
            let over = home.over(alice.generation, Purpose::Bring);
            drop(counting);
            assert!(refreshed.is_ok() && over.is_some(), "{refreshed:?} {over:?}");
        });
    }
}
