//! The connection behind the prompt: opened when it is needed, and again when it was lost.

use std::net::Shutdown;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Instant;

use parallel_transfer::client::{BrowseError, Browser, Login};
use parallel_transfer::entry::{Listed, ListedKind};
use parallel_transfer::limits::{COMPLETION_FRESH, COMPLETION_TIMEOUT, NAMES_COMPLETED_MAX, NAMES_SHOWN_MAX};
use parallel_transfer::net::dial::Dialer;
use parallel_transfer::path::RemotePath;
use parallel_transfer::protocol::Secret;
use parallel_transfer::stop::Stop;

use super::interrupt::{Interrupt, Interrupted};

/// May something be asked twice, when nobody knows whether it was done?
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Twice {
    Yes,
    No,
}

/// Names of a folder, and whether each is a folder itself.
pub(super) type FolderNames = Rc<Vec<(Box<[u8]>, bool)>>;

/// The connection, and what it takes to have another.
#[derive(Debug)]
pub(super) struct Session {
    dialer: Arc<Dialer>,
    login: Login,
    browser: Option<Browser>,
    interrupt: Arc<Interrupt>,
    /// What the names of the folder were that a word was completed from last.
    names: Option<(RemotePath, Instant, FolderNames)>,
}

/// Did the receiver answer that it can't, and why?
pub(super) fn is_denial(error: &anyhow::Error) -> bool {
    matches!(error.downcast_ref(), Some(BrowseError::Denied(_)))
}

/// What is in a folder.
#[derive(Debug, Default)]
pub(super) struct Listing {
    /// The first of it, in no order.
    pub(super) entries: Vec<Listed>,
    /// How much more there is.
    pub(super) more: usize,
}

impl Session {
    pub(super) fn new(dialer: Arc<Dialer>, login: Login, interrupt: Arc<Interrupt>) -> Self {
        Self { dialer, login, browser: None, interrupt, names: None }
    }

    /// What further connections log in with.
    pub(super) fn login(&self) -> &Login {
        &self.login
    }

    /// The account that was logged in to, if it was to one.
    pub(super) fn user(&self) -> Option<&str> {
        match &self.login {
            Login::Nobody | Login::Ticket(_) => None,
            Login::Password { user, .. } | Login::Key { user, .. } => Some(user),
        }
    }

    /// Is there a connection, as far as is known?
    pub(super) fn is_connected(&self) -> bool {
        self.browser.is_some()
    }

    /// The password is another one from now on.
    pub(super) fn change_login(&mut self, new: Secret) {
        if let Login::Password { password, .. } = &mut self.login {
            *password = new;
        }
    }

    /// Does `act` over the connection, and again over a new one where the old one was lost while nobody used
    /// it.
    ///
    /// # Errors
    /// What the receiver says; [`Interrupted`]; there is no connection to be had.
    pub(super) fn ask<T>(
        &mut self, stop: &Stop, twice: Twice, mut act: impl FnMut(&mut Browser) -> Result<T, BrowseError>,
    ) -> anyhow::Result<T> {
        let interrupt = Arc::clone(&self.interrupt);
        let done = self.ask_held(stop, twice, &mut act);
        interrupt.hold(None);
        done
    }

    fn ask_held<T>(
        &mut self, stop: &Stop, twice: Twice, act: &mut impl FnMut(&mut Browser) -> Result<T, BrowseError>,
    ) -> anyhow::Result<T> {
        let mut may_be_lost = self.browser.is_some();
        loop {
            let is_old = self.browser.as_mut().is_some_and(Browser::is_open);
            let browser = if is_old { self.browser.take() } else { None };
            let mut browser = match browser {
                Some(browser) => browser,
                None => self.open(stop)?,
            };
            self.interrupt.hold(Some(browser.handle()));
            let error = match act(&mut browser) {
                Ok(done) => {
                    self.browser = Some(browser);
                    return Ok(done);
                }
                Err(BrowseError::Denied(reason)) => {
                    self.browser = Some(browser);
                    return Err(BrowseError::Denied(reason).into());
                }
                Err(error) => error,
            };
            drop(browser);
            let again = is_old && std::mem::take(&mut may_be_lost);
            match error {
                _ if stop.is_asked() => return Err(Interrupted.into()),
                BrowseError::Ended(_) if again => {}
                BrowseError::Lost(_) if again && twice == Twice::Yes => {}
                BrowseError::Lost(error) if twice == Twice::No => {
                    return Err(error.context("whether it was done is not known"));
                }
                error => return Err(error.into_error()),
            }
        }
    }

    fn open(&self, stop: &Stop) -> anyhow::Result<Browser> {
        let opened = Browser::open(&self.dialer, &self.login, stop, &|handle| self.interrupt.hold(Some(handle)));
        opened.map_err(|error| if stop.is_asked() { Interrupted.into() } else { error })
    }

    /// Logs in, so that it is known whether that works.
    ///
    /// # Errors
    /// It does not.
    pub(super) fn log_in(&mut self, stop: &Stop) -> anyhow::Result<()> {
        let opened = self.open(stop);
        self.interrupt.hold(None);
        self.browser = Some(opened?);
        Ok(())
    }

    /// The way to the receiver, for further connections as well: relays along it were logged in to once.
    pub(super) fn dialer(&self) -> &Arc<Dialer> {
        &self.dialer
    }

    /// What something is.
    pub(super) fn look(&mut self, stop: &Stop, path: &RemotePath) -> anyhow::Result<Listed> {
        self.ask(stop, Twice::Yes, |browser| browser.look(path))
    }

    /// What is in a folder, as far as it is kept.
    pub(super) fn list(&mut self, stop: &Stop, path: &RemotePath) -> anyhow::Result<Listing> {
        self.ask(stop, Twice::Yes, |browser| {
            let mut listing = Listing::default();
            browser.list(path, &mut |entry| {
                if listing.entries.len() < NAMES_SHOWN_MAX {
                    listing.entries.push(entry)
                } else {
                    listing.more += 1
                }
                true
            })?;
            Ok(listing)
        })
    }

    /// What was listed may be otherwise by now.
    pub(super) fn forget_names(&mut self) {
        self.names = None;
    }

    /// The names in a folder to complete a word from: those that come at once, over the connection that is
    /// there.
    pub(super) fn names(&mut self, path: &RemotePath) -> Option<FolderNames> {
        if let Some((known, since, names)) = &self.names
            && known == path
            && since.elapsed() < COMPLETION_FRESH
        {
            return Some(Rc::clone(names));
        }
        let mut browser = self.browser.take()?;
        if !browser.is_open() {
            return None;
        }
        let (mut names, handle, done) = (Vec::new(), browser.handle().clone(), Stop::new().ok()?);
        let listed = thread::scope(|scope| {
            // A receiver that says something again and again, and never all, is not waited for.
            let end_late = || {
                if !done.wait(COMPLETION_TIMEOUT) {
                    handle.shutdown(Shutdown::Both);
                }
            };
            thread::Builder::new().name("patience".to_owned()).spawn_scoped(scope, end_late).map_err(anyhow::Error::from)?;
            let listed = browser.list(path, &mut |entry| {
                if names.len() < NAMES_COMPLETED_MAX {
                    let is_folder = matches!(entry.kind, ListedKind::Directory { .. });
                    names.push((entry.name, is_folder));
                }
                true
            });
            done.ask();
            listed.map_err(BrowseError::into_error)
        });
        if browser.is_open() {
            self.browser = Some(browser);
        }
        listed.ok()?;
        let names: FolderNames = Rc::new(names);
        self.names = Some((path.clone(), Instant::now(), Rc::clone(&names)));
        Some(names)
    }

    /// The password of this session's account, changed at the receiver.
    pub(super) fn change_password(&mut self, stop: &Stop, old: &Secret, new: &Secret) -> anyhow::Result<()> {
        self.ask(stop, Twice::No, |browser| browser.change_password(old, new))
    }
}
