//! Lists: what is in a folder, in parts, or what something is.

use std::io;

use super::answering::Answering;
use super::handlers::Ending;
use super::reading::refused;
use super::rights_of::{TO_LIST, refusal_for};
use super::session::Session;
use crate::entry::Listed;
use crate::path::RemotePath;
use crate::protocol::{List, Page, Reply, v2};
use crate::store::Details;

/// Answers a list: with its parts, and a refusal where not all could be listed.
pub(super) fn list(session: &Session, stream: &mut Answering, list: &List) -> Result<io::Result<()>, Ending> {
    let path = match session.landing.base.join(&list.path) {
        Ok(path) => path,
        Err(error) => return Ok(stream.reply(&refused(&error))),
    };
    let details = Details { owner: list.owner, xattrs: list.xattrs };
    if list.itself {
        return Ok(match session.home.store.look(&path, details) {
            Ok(Some(found)) => send(stream, vec![found], true),
            Ok(None) => stream.reply(&refused(&format!("{path} is not there"))),
            Err(error) => stream.reply(&refused(&error)),
        });
    }
    list_folder(session, stream, &path, details)
}

fn list_folder(session: &Session, stream: &mut Answering, path: &RemotePath, details: Details) -> Result<io::Result<()>, Ending> {
    // A part waits for the next, for the last is marked.
    let (mut held, mut over, mut lost) = (None, None, None);
    let listed = session.home.store.list(path, details, &mut |page| {
        over = session.over();
        lost = refusal_for(&session.home, TO_LIST);
        if over.is_some() || lost.is_some() {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        held.replace(page).map_or(Ok(()), |before| send(stream, before, false))
    });
    if let Some(why) = over {
        return Err(Ending::refused(why));
    }
    if let Some(why) = lost {
        return Ok(stream.reply(&refused(&why)));
    }
    Ok(match listed {
        Err(error) => Err(error),
        Ok(Ok(())) => send(stream, held.unwrap_or_default(), true),
        Ok(Err(error)) => held.map_or(Ok(()), |page| send(stream, page, false)).and_then(|()| stream.reply(&refused(&error))),
    })
}

fn send(stream: &mut Answering, entries: Vec<Listed>, is_last: bool) -> io::Result<()> {
    let mut bytes = Vec::new();
    v2::reply::encode(&mut bytes, &Reply::Listed(Page { is_last, entries }));
    stream.content(|outbox, outgoing| outbox.put(outgoing, &bytes))
}
