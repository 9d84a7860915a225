//! Who did what, from where, and what came of it: one event an act, with target `audit`, for those
//! who want a trail; counted for the metrics in any case.
//!
//! Names are escaped. A token, a ticket or a password never comes here.

use std::fmt;
use std::io;
use std::ops::Range;
use std::sync::Arc;

use super::accounts::AdminAct;
use super::metrics::Metrics;
use super::session::Session;
use crate::net::Peer;
use crate::path::{Escaped, RemotePath};
use crate::protocol::{Answer, Put, Reply, Status, Totals};
use crate::pump::Times;

/// The acts of one connection.
#[derive(Debug)]
pub(super) struct Audit<'a> {
    /// Is there a trail? Without one nothing is formatted.
    is_on: bool,
    peer: Peer,
    /// Who it is, once that is known.
    user: Option<Arc<str>>,
    /// The job that it works on, by its number.
    session: Option<u64>,
    metrics: &'a Metrics,
}

/// What an event has beside its name and who it was. The path is last in a line, and the reason in
/// quotes: neither can be taken for the fields before it.
#[derive(Default)]
struct Act<'a> {
    files: Option<u64>,
    failed: Option<u64>,
    bytes: Option<u64>,
    outcome: Option<&'static str>,
    reason: Option<&'a dyn fmt::Display>,
    from: Option<&'a dyn fmt::Display>,
    path: Option<&'a dyn fmt::Display>,
}

impl<'a> Audit<'a> {
    pub(super) fn new(is_on: bool, peer: Peer, metrics: &'a Metrics) -> Self {
        Self { is_on, peer, user: None, session: None, metrics }
    }

    pub(super) fn peer(&self) -> Peer {
        self.peer
    }

    fn tell(&self, event: &'static str, act: &Act<'_>) {
        if !self.is_on {
            return;
        }
        let reason = act.reason.map(ToString::to_string);
        let from = act.from.map(ToString::to_string);
        tracing::info!(
            target: "audit",
            event = %event,
            user = self.user.as_deref().map(tracing::field::display),
            peer = %self.peer,
            session = self.session,
            files = act.files,
            failed = act.failed,
            bytes = act.bytes,
            outcome = act.outcome.map(tracing::field::display),
            reason = reason.as_deref(),
            from = from.as_deref(),
            path = act.path.map(tracing::field::display),
            "audit"
        );
    }

    pub(super) fn connected(&self) {
        self.metrics.connections.add(1);
        self.tell("connect", &Act::default());
    }

    pub(super) fn disconnected(&self) {
        self.metrics.disconnections.add(1);
        self.tell("disconnect", &Act::default());
    }

    /// It is told why, and no longer served.
    pub(super) fn refused(&self, why: &str) {
        self.metrics.refused.add(1);
        self.tell("refuse", &Act { reason: Some(&why), ..Act::default() });
    }

    /// It is told why, and served as before.
    pub(super) fn refused_request(&self, why: &str) {
        self.metrics.failed.add(1);
        self.tell("refuse", &Act { reason: Some(&why), ..Act::default() });
    }

    /// It works on a job that another connection opened.
    pub(super) fn joined(&mut self, session: &Session) {
        self.session = Some(session.number);
        self.user = session.home.owner.as_ref().map(|owner| owner.name.as_str().into());
    }

    /// It opened a job.
    pub(super) fn opened(&mut self, session: &Session) {
        self.joined(session);
        self.tell("open", &Act { path: Some(&session.landing.base), ..Act::default() });
    }

    /// A job came to its end, which it does once. What was refused before is not among its failures.
    pub(super) fn job_ended(&self, totals: &Totals) {
        self.metrics.failed.add(totals.failed);
        let (files, failed, bytes) = (Some(totals.files), Some(totals.failed), Some(totals.bytes));
        self.tell("end", &Act { files, failed, bytes, ..Act::default() });
    }

    /// A range was put, which takes `times`; told where that made a file whole or was refused.
    pub(super) fn put(&self, session: &Session, put: &Put, times: &Times, answer: &io::Result<Reply>) {
        self.metrics.verifying.add(times.digest);
        self.metrics.writing.add(times.file);
        let Ok(Reply::Answer(Answer { status, reason })) = answer else { return };
        let len = put.range.end - put.range.start;
        let (outcome, reason): (_, Option<&dyn fmt::Display>) = match status {
            Status::Stored => return self.metrics.bytes.add(len),
            Status::Published => {
                self.metrics.bytes.add(len);
                self.metrics.files.add(1);
                ("published", (!reason.is_empty()).then_some(reason))
            }
            Status::Refused => {
                self.metrics.failed.add(1);
                ("refused", Some(reason))
            }
            Status::Had | Status::Mismatched | Status::Voided => return,
        };
        if self.is_on {
            let path = Below(&session.landing.base, &put.path);
            let (bytes, outcome) = (Some(put.file.identity.size), Some(outcome));
            self.tell("put", &Act { bytes, outcome, reason, path: Some(&path), ..Act::default() });
        }
    }

    /// A range of a file of so many bytes was sent; told where that was its end.
    pub(super) fn got(&self, path: &RemotePath, range: &Range<u64>, size: u64) {
        self.metrics.sent_bytes.add(range.end - range.start);
        if range.end == size {
            self.metrics.sent_files.add(1);
            self.tell("get", &Act { bytes: Some(size), outcome: Some("sent"), path: Some(path), ..Act::default() });
        }
    }

    /// A range of a file is not sent.
    pub(super) fn refused_read(&self, path: &RemotePath, why: &dyn fmt::Display) {
        self.metrics.failed.add(1);
        self.tell("get", &Act { outcome: Some("refused"), reason: Some(why), path: Some(path), ..Act::default() });
    }

    /// A range of a file of v1, which is never whole, was written.
    pub(super) fn wrote(&self, path: &RemotePath, bytes: u64) {
        self.metrics.bytes.add(bytes);
        self.tell("put", &Act { bytes: Some(bytes), outcome: Some("stored"), path: Some(path), ..Act::default() });
    }

    /// A file of v1 was created.
    pub(super) fn created(&self, path: &RemotePath) {
        self.tell("create", &Act { path: Some(path), ..Act::default() });
    }

    pub(super) fn made_folder(&self, path: &RemotePath) {
        self.tell("mkdir", &Act { path: Some(path), ..Act::default() });
    }

    pub(super) fn removed(&self, path: &RemotePath) {
        self.tell("remove", &Act { path: Some(path), ..Act::default() });
    }

    pub(super) fn renamed(&self, from: &RemotePath, to: &RemotePath) {
        self.tell("rename", &Act { from: Some(from), path: Some(to), ..Act::default() });
    }

    /// What was to be done to a path is not done, or not to all that is in it.
    pub(super) fn refused_act(&self, event: &'static str, path: &RemotePath, why: &dyn fmt::Display) {
        self.metrics.failed.add(1);
        self.tell(event, &Act { outcome: Some("refused"), reason: Some(why), path: Some(path), ..Act::default() });
    }

    /// A connection is passed on to another receiver from now on.
    pub(super) fn relayed(&self, to: &str) {
        self.tell("relay", &Act { outcome: Some("granted"), path: Some(&to), ..Act::default() });
    }

    /// So many bytes were passed on both ways, and no more will be.
    pub(super) fn relay_ended(&self, to: &str, bytes: u64) {
        self.tell("relay", &Act { bytes: Some(bytes), outcome: Some("ended"), path: Some(&to), ..Act::default() });
    }

    /// A connection is not passed on.
    pub(super) fn refused_relay(&self, to: &str, why: &dyn fmt::Display) {
        self.tell("relay", &Act { outcome: Some("refused"), reason: Some(why), path: Some(&to), ..Act::default() });
    }

    /// A link was made, at the end of its job.
    pub(super) fn made_link(&self, path: &RemotePath) {
        self.tell("link", &Act { path: Some(path), ..Act::default() });
    }

    /// A folder or a link of a job is not made.
    pub(super) fn refused_entry(&self, session: &Session, path: &RemotePath, why: &dyn fmt::Display) {
        self.metrics.failed.add(1);
        let path = Below(&session.landing.base, path);
        self.tell("describe", &Act { outcome: Some("refused"), reason: Some(why), path: Some(&path), ..Act::default() });
    }

    /// An entry is not as it should be at the end of its job, whose totals have it.
    pub(super) fn failed(&self, path: &RemotePath, why: &dyn fmt::Display) {
        self.tell("entry", &Act { outcome: Some("failed"), reason: Some(why), path: Some(path), ..Act::default() });
    }

    /// What v1 asks for by a name that may be no path is not done.
    pub(super) fn refused_name(&self, event: &'static str, name: Escaped<'_>, why: &dyn fmt::Display) {
        self.metrics.failed.add(1);
        self.tell(event, &Act { outcome: Some("refused"), reason: Some(why), path: Some(&name), ..Act::default() });
    }
}

/// What accounts add: who it is, and what only those may do who have one.
#[allow(dead_code, reason = "here an act is named, whoever calls it")]
impl Audit<'_> {
    /// It is `user` from now on.
    pub(super) fn logged_in(&mut self, user: Arc<str>) {
        self.metrics.logins_accepted.add(1);
        self.user = Some(user);
        self.tell("login", &Act { outcome: Some("accepted"), ..Act::default() });
    }

    /// It is not `name`, a name of any bytes. Whether there is such a user is for the owner alone.
    pub(super) fn denied(&self, name: &[u8], why: &str) {
        self.metrics.logins_denied.add(1);
        let name = Escaped::start_of(name);
        self.tell("login", &Act { outcome: Some("denied"), reason: Some(&why), path: Some(&name), ..Act::default() });
    }

    pub(super) fn signed_up(&self, name: &str) {
        self.tell("signup", &Act { outcome: Some("accepted"), path: Some(&name), ..Act::default() });
    }

    /// It has another password, or not, and why.
    pub(super) fn changed_password(&self, done: Result<(), &str>) {
        let (outcome, reason): (_, Option<&dyn fmt::Display>) = match &done {
            Ok(()) => ("accepted", None),
            Err(why) => ("denied", Some(why)),
        };
        self.tell("passwd", &Act { outcome: Some(outcome), reason, ..Act::default() });
    }

    /// What an administrator did to an account.
    pub(super) fn administered(&self, act: &AdminAct) {
        let what = format!("{} by {}", act.what, act.by);
        self.tell("admin", &Act { outcome: Some("done"), reason: Some(&what), path: Some(&act.user), ..Act::default() });
    }
}

/// A path of a job as it is below the root.
struct Below<'a>(&'a RemotePath, &'a RemotePath);

impl fmt::Display for Below<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.is_root() { self.1.fmt(f) } else { write!(f, "{}/{}", self.0, self.1) }
    }
}
