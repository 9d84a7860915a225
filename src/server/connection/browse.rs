//! What a connection does for a job that reads, and for one that may not do what it asks for.

use std::io;

use super::{Connection, State};
use crate::entry::ListedKind;
use crate::path::RemotePath;
use crate::protocol::{Answer, List, Purpose, Put, Read, Reply, Request, Status};
use crate::pump::{self, Run, Times};
use crate::server::handlers::Ending;
use crate::server::listing;
use crate::server::reading::Reader;
use crate::server::rights_of::{self, NO_FILES_TAKEN};
use crate::store::{Details, Store};

impl Connection<'_> {
    /// Why protocol v1 is not spoken here.
    pub(super) fn why_no_v1(&self) -> &'static str {
        match self.shared.homes.tree() {
            Some(home) if !home.rights().write => NO_FILES_TAKEN,
            _ => "protocol v1 is not spoken here: it knows neither login nor quota",
        }
    }

    /// Why a request is not done, whatever it is about, if it is not.
    pub(super) fn objection(&self, request: &Request<'_>) -> Option<String> {
        match &self.state {
            State::Joined(attached) if attached.session.open.purpose != Purpose::Bring && rights_of::brings(request) => {
                Some("this job brings nothing".to_owned())
            }
            State::Joined(attached) if attached.session.open.purpose == Purpose::Relay && !rights_of::relays(request) => {
                Some("this job only has connections passed on".to_owned())
            }
            // Whoever works on has a job that counts among those there are.
            State::Joined(attached) if attached.session.open.purpose != Purpose::Bring && attached.session.has_ended() => {
                (!matches!(request, Request::Finish)).then(|| "the job has ended".to_owned())
            }
            State::Joined(attached) => rights_of::refusal(&attached.session.home, request),
            State::New | State::Greeted => rights_of::refusal(self.shared.homes.tree()?, request),
        }
    }

    /// Says why a request is not done; the content of a put is read off.
    pub(super) fn refuse(&mut self, put: Option<Put>, why: String) -> Result<io::Result<()>, Ending> {
        let session = self.session()?;
        self.audit.refused_request(&why);
        if let Some(Put { path, file, range, binding }) = put {
            let size = file.identity.size;
            let run = Run { range, size, is_sparse: file.is_sparse, checksum: session.open.checksum, binding };
            let read_off = pump::blocks_to_file(&mut self.inbox, &mut self.stream, &run, &mut Times::default(), None, None);
            read_off.map_err(|error| match error.kind() {
                io::ErrorKind::InvalidData => Ending::refused(format!("{path}: {error}")),
                _ => Ending::broken(path.to_string(), &error),
            })?;
        }
        Ok(self.stream.reply(&Reply::Answer(Answer { status: Status::Refused, reason: why })))
    }

    pub(super) fn read(&mut self, read: &Read) -> Result<io::Result<()>, Ending> {
        let session = &self.session()?;
        let reader = Reader { session, folders: &mut self.folders, last: &mut self.source, audit: &self.audit };
        reader.read(&mut self.stream, read)
    }

    pub(super) fn list(&mut self, list: &List) -> Result<io::Result<()>, Ending> {
        let session = self.session()?;
        listing::list(&session, &mut self.stream, list)
    }
}

/// Is there something to be read or listed at `base`, which somebody called so?
///
/// # Errors
/// Why there is not.
pub(super) fn look_for(store: &Store, base: &RemotePath, shown: &str) -> Result<(), String> {
    let what = match store.look(base, Details::default()).map_err(|error| format!("'{shown}': {error}"))? {
        Some(found) => match found.kind {
            ListedKind::Directory { .. } | ListedKind::File { .. } => return Ok(()),
            ListedKind::Symlink { .. } => "is a symbolic link, which is not followed",
            ListedKind::Special { .. } => "is neither a file nor a folder",
        },
        None => return Err(format!("there is nothing at '{shown}'")),
    };
    Err(format!("'{shown}' {what}"))
}
