//! Which rights a request needs, and what one hears who does not have them.

use super::accounts::Rights;
use super::homes::Home;
use crate::protocol::{Open, Purpose, Request};

/// The rights that a request needs, all of them.
fn needed(request: &Request<'_>) -> Rights {
    let none = Rights::NONE;
    match request {
        Request::MakeDirectories(_)
        | Request::CreateFiles(_)
        | Request::Write { .. }
        | Request::Put(_)
        | Request::Have(_)
        | Request::Verify(..)
        | Request::Describe(_)
        | Request::MakeDirectory { .. } => Rights { write: true, ..none },
        Request::Read(_) | Request::Sum { .. } => TO_READ,
        // The values of extended attributes are content.
        Request::List(list) if list.xattrs => Rights { read: true, ..TO_LIST },
        Request::List(_) => TO_LIST,
        Request::Remove { .. } => TO_REMOVE,
        Request::Rename { .. } => Rights { write: true, remove: true, ..none },
        Request::Hello { .. }
        | Request::Open(_)
        | Request::SignUp { .. }
        | Request::Join(_)
        | Request::Finish
        | Request::Space
        | Request::Relay { .. }
        | Request::ChangePassword { .. } => none,
    }
}

/// Is it one of a job that brings something?
pub(super) fn brings(request: &Request<'_>) -> bool {
    matches!(request, Request::Put(_) | Request::Have(_) | Request::Verify(..) | Request::Describe(_))
}

/// Is it one of a job whose connections are passed on?
pub(super) fn relays(request: &Request<'_>) -> bool {
    matches!(request, Request::Relay { .. } | Request::Finish)
}

/// Why a request is not done in a home, if it is not.
pub(super) fn refusal(home: &Home, request: &Request<'_>) -> Option<String> {
    refusal_for(home, needed(request))
}

/// Why what needs these rights does not go on in a home, if it does not: one may be taken meanwhile.
pub(super) fn refusal_for(home: &Home, needed: Rights) -> Option<String> {
    (!home.rights().have(needed)).then(|| why_not(home, needed))
}

/// What is needed as long as something is read.
pub(super) const TO_READ: Rights = Rights { read: true, ..Rights::NONE };

/// What is needed as long as a folder is listed.
pub(super) const TO_LIST: Rights = Rights { list: true, ..Rights::NONE };

/// What is needed as long as something is removed.
pub(super) const TO_REMOVE: Rights = Rights { remove: true, ..Rights::NONE };

/// Why a job is not opened in a home, if it is not: one that brings something has to write, any other to do
/// something.
pub(super) fn refusal_to_open(home: &Home, open: &Open) -> Option<String> {
    let rights = home.rights();
    match open.purpose {
        Purpose::Relay => None,
        Purpose::Browse => (rights == Rights::NONE).then(|| why_not(home, Rights { read: true, ..Rights::NONE })),
        Purpose::Bring => (!rights.write).then(|| why_not(home, Rights { write: true, ..Rights::NONE })),
    }
}

/// Why somebody may not do what needs these rights.
fn why_not(home: &Home, needed: Rights) -> String {
    let rights = home.rights();
    match &home.owner {
        Some(owner) => format!("{} may not {} here (rights: {rights})", owner.name, needed.names().join(" and ")),
        None if rights == Rights::NONE => ONLY_RELAYS.to_owned(),
        None if needed.write => NO_FILES_TAKEN.to_owned(),
        None if rights.read => "nothing is removed here (--read_only)".to_owned(),
        None => "this receiver only takes files (--write_only)".to_owned(),
    }
}

/// What one hears where nothing is served.
pub(super) const ONLY_RELAYS: &str = "this receiver serves no files (--relay_only)";

/// What one hears who brings something where nobody may.
pub(super) const NO_FILES_TAKEN: &str = "this receiver takes no files (--read_only)";
