//! A connection for whole requests: what is there, and changes of it by name. One request at a time, and the
//! server is not believed: an answer to something else ends it.

use std::io;
use std::sync::Arc;

use super::Refused;
use super::live::Registered;
use super::login::Login;
use super::new_token;
use super::talk::{Talk, out_of_turn};
use super::trouble::Trouble;
use crate::entry::Listed;
use crate::limits::LISTED_MAX;
use crate::net::Handle;
use crate::net::dial::Dialer;
use crate::path::RemotePath;
use crate::protocol::{Algorithm, Answer, Features, List, Open, Purpose, Reply, Secret, Space, Status, v2};
use crate::stop::Stop;

/// A session in which nothing is put, with the receiver's root, or an account's home, as its folder.
#[derive(Debug)]
pub struct Browser {
    dialer: Arc<Dialer>,
    talk: Talk<'static>,
    landed: Vec<u8>,
    /// Did an answer fail to come? Then nobody knows which one comes next.
    is_over: bool,
}

/// Why something was not done.
#[derive(Debug, thiserror::Error)]
pub enum BrowseError {
    /// The receiver says why, and goes on.
    #[error("{0}")]
    Denied(String),
    /// The receiver ended the session, and says why; it did not do what was asked.
    #[error("the receiver ended the session: {0}")]
    Ended(String),
    /// The connection broke, or what came over it makes no sense. Nobody knows whether it was done.
    #[error("{0:#}")]
    Lost(anyhow::Error),
}

impl From<Trouble> for BrowseError {
    fn from(trouble: Trouble) -> Self {
        Self::Lost(match trouble {
            Trouble::Broken(error) => anyhow::Error::new(error).context("the connection was lost"),
            Trouble::Fatal(error) => error,
        })
    }
}

impl Browser {
    /// Logs in. `hold` is given the stream's handle as soon as there is one: who shuts it down ends this, and
    /// all that is asked later.
    ///
    /// # Errors
    /// [`Refused`]; the receiver can't be reached, or is none of this program.
    pub fn open(dialer: &Arc<Dialer>, login: &Login, stop: &Stop, hold: &dyn Fn(&Handle)) -> anyhow::Result<Self> {
        let stream = dialer.dial(stop)?;
        hold(stream.handle());
        let mut talk = Talk::over(Registered::alone(stream));
        let open = Open::plain(new_token()?, Purpose::Browse);
        let opened = talk.open(dialer, login, &open, Features::OURS).map_err(|trouble| match trouble {
            Trouble::Broken(error) => anyhow::Error::new(error).context(format!("{dialer} does not let us in")),
            Trouble::Fatal(error) => error,
        })?;
        Ok(Self { dialer: Arc::clone(dialer), talk, landed: opened.landed, is_over: false })
    }

    /// Where the root is at the receiver, in full.
    #[must_use]
    pub fn landed(&self) -> &[u8] {
        &self.landed
    }

    /// A hold on its stream.
    #[must_use]
    pub fn handle(&self) -> &Handle {
        self.talk.stream.handle()
    }

    /// Can it be asked still? A receiver that has ended the session has said so by now.
    pub fn is_open(&mut self) -> bool {
        while !self.is_over {
            match self.talk.decode_reply(&self.dialer) {
                Ok(Some(Reply::Heartbeat)) => {}
                Ok(None) => match self.talk.take_in() {
                    Ok(true) => {}
                    Ok(false) => return !self.handle().is_reset(),
                    Err(_) => self.is_over = true,
                },
                Ok(Some(_)) | Err(_) => self.is_over = true,
            }
        }
        false
    }

    /// Gives what is in a folder to `take`, in no order, until that says that it is enough, which ends the
    /// session.
    ///
    /// # Errors
    /// See [`BrowseError`]; names that were given before are there all the same.
    pub fn list(&mut self, path: &RemotePath, take: &mut dyn FnMut(Listed) -> bool) -> Result<(), BrowseError> {
        let list = List { path: path.clone(), itself: false, owner: false, xattrs: false };
        self.send(|bytes| v2::request::encode_list(bytes, &list))?;
        let mut count = 0;
        loop {
            let page = match self.reply()? {
                Reply::Listed(page) => page,
                other => return Err(self.denied(other)),
            };
            // Without an end such pages would keep us for ever.
            if page.entries.is_empty() && !page.is_last || page.entries.iter().any(|entry| entry.name.is_empty()) {
                return Err(self.nonsense());
            }
            count += page.entries.len() as u64;
            if count > LISTED_MAX {
                self.is_over = true;
                let many = anyhow::anyhow!("{} lists more than {LISTED_MAX} names in one folder", self.dialer);
                return Err(BrowseError::Lost(many));
            }
            for entry in page.entries {
                if !take(entry) {
                    self.is_over = true;
                    return Ok(());
                }
            }
            if page.is_last {
                return Ok(());
            }
        }
    }

    /// What something is; its name is empty.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn look(&mut self, path: &RemotePath) -> Result<Listed, BrowseError> {
        let list = List { path: path.clone(), itself: true, owner: false, xattrs: false };
        self.send(|bytes| v2::request::encode_list(bytes, &list))?;
        match self.reply()? {
            Reply::Listed(page) if page.is_last && page.entries.len() == 1 => match page.entries.into_iter().next() {
                Some(entry) if entry.name.is_empty() => Ok(entry),
                _ => Err(self.nonsense()),
            },
            other => Err(self.denied(other)),
        }
    }

    /// Removes a file, a link or a folder; one that is not empty only if that `is_recursive`.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn remove(&mut self, path: &RemotePath, is_recursive: bool) -> Result<(), BrowseError> {
        self.change(|bytes| v2::request::encode_remove(bytes, path, is_recursive))
    }

    /// Gives something a name that nothing has.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn rename(&mut self, from: &RemotePath, to: &RemotePath) -> Result<(), BrowseError> {
        self.change(|bytes| v2::request::encode_rename(bytes, from, to))
    }

    /// Makes a folder; `with_parents` also those above it, and it may be there already.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn make_directory(&mut self, path: &RemotePath, with_parents: bool) -> Result<(), BrowseError> {
        self.change(|bytes| v2::request::encode_make_directory(bytes, path, with_parents))
    }

    /// The digest of a file, made at the receiver.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn sum(&mut self, path: &RemotePath, algorithm: Algorithm) -> Result<Vec<u8>, BrowseError> {
        self.send(|bytes| v2::request::encode_sum(bytes, path, algorithm))?;
        let len = match algorithm {
            Algorithm::Md5 => 16,
            Algorithm::Blake3 => 32,
        };
        match self.reply()? {
            Reply::Sum(digest) if digest.len() == len => Ok(digest),
            other => Err(self.denied(other)),
        }
    }

    /// How much room there is.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn space(&mut self) -> Result<Space, BrowseError> {
        self.send(v2::request::encode_space)?;
        match self.reply()? {
            Reply::Space(space) => Ok(space),
            other => Err(self.denied(other)),
        }
    }

    /// Changes the account's password.
    ///
    /// # Errors
    /// See [`BrowseError`].
    pub fn change_password(&mut self, old: &Secret, new: &Secret) -> Result<(), BrowseError> {
        self.change(|bytes| v2::request::encode_change_password(bytes, old, new))
    }

    fn change(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), BrowseError> {
        self.send(encode)?;
        match self.reply()? {
            Reply::Answer(Answer { status: Status::Stored, .. }) => Ok(()),
            other => Err(self.denied(other)),
        }
    }

    fn send(&mut self, encode: impl FnOnce(&mut Vec<u8>)) -> Result<(), BrowseError> {
        let mut bytes = Vec::new();
        encode(&mut bytes);
        match self.talk.say(&bytes).and_then(|()| self.talk.flush()) {
            // Its last word may be here, and says more.
            Err(error) if matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset) => Ok(()),
            Err(error) => {
                self.is_over = true;
                Err(Trouble::Broken(error).into())
            }
            Ok(()) => Ok(()),
        }
    }

    fn reply(&mut self) -> Result<Reply, BrowseError> {
        let ended = loop {
            match self.talk.next_reply(&self.dialer) {
                Ok(Reply::Heartbeat) => {}
                Ok(Reply::Refused(why)) => break BrowseError::Ended(why),
                Ok(reply) => return Ok(reply),
                Err(trouble) => break trouble.into(),
            }
        };
        self.is_over = true;
        Err(ended)
    }

    /// What an answer means that is not the one hoped for.
    fn denied(&mut self, reply: Reply) -> BrowseError {
        match reply {
            Reply::Answer(Answer { status: Status::Refused, reason }) => BrowseError::Denied(reason),
            _ => self.nonsense(),
        }
    }

    fn nonsense(&mut self) -> BrowseError {
        self.is_over = true;
        out_of_turn(&self.dialer).into()
    }
}

impl BrowseError {
    /// The same for those who care for nothing but what it says; [`Refused`] where the session was ended.
    #[must_use]
    pub fn into_error(self) -> anyhow::Error {
        match self {
            Self::Denied(reason) => anyhow::anyhow!(reason),
            Self::Ended(why) => Refused(why).into(),
            Self::Lost(error) => error,
        }
    }
}

#[cfg(test)]
mod tests;
