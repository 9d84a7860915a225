//! Reads: a range of a file goes out as content while it is the file that was listed.

use std::fs::File;
use std::io;

use super::answering::{Answering, Outgoing};
use super::audit::Audit;
use super::handlers::Ending;
use super::rights_of::{TO_READ, refusal_for};
use super::session::Session;
use crate::entry::Identity;
use crate::limits::{BLOCK_LEN, CONTENT_STEP_LEN};
use crate::path::RemotePath;
use crate::protocol::{Answer, Read, Reply, Status, v2};
use crate::pump::{self, Outbox, Reading, Run, Times};
use crate::store::{Folders, identify};

/// A file that was read and may be again: chunks of one mostly come one after the other.
#[derive(Debug)]
pub(super) struct Source {
    path: RemotePath,
    file: File,
}

impl Source {
    fn is_as(&self, identity: &Identity) -> bool {
        self.file.metadata().is_ok_and(|metadata| identify(&metadata) == *identity)
    }
}

/// One who sends ranges of files.
pub(super) struct Reader<'a> {
    pub(super) session: &'a Session,
    pub(super) folders: &'a mut Folders,
    /// What was read last.
    pub(super) last: &'a mut Option<Source>,
    pub(super) audit: &'a Audit<'a>,
}

/// What became of a range.
enum Sent {
    /// It is on its way.
    Whole,
    /// The file is not what it was; without an answer that was said in the content.
    Changed(Option<Answer>),
    /// The job must end.
    Over(&'static str),
}

impl Reader<'_> {
    /// Sends a range of a file, or says why not.
    pub(super) fn read(mut self, stream: &mut Answering, read: &Read) -> Result<io::Result<()>, Ending> {
        let path = match self.session.landing.base.join(&read.path) {
            Ok(path) => path,
            Err(error) => return Ok(stream.reply(&refused(&error))),
        };
        let source = match self.find(&path, &read.identity) {
            Ok(source) => source,
            Err(answer) => {
                if answer.status == Status::Refused {
                    self.audit.refused_read(&path, &answer.reason);
                }
                return Ok(stream.reply(&Reply::Answer(answer)));
            }
        };
        let sent = stream.content(|outbox, outgoing| send(&source, read, self.session, outbox, outgoing));
        let sent = sent.map_err(|error| {
            let what = format!("range {}..{} of {path}", read.range.start, read.range.end);
            Ending::broken(what, &error)
        })?;
        match sent {
            Sent::Whole => {
                let counts = &self.session.landing.counts;
                counts.bytes.add(read.range.end - read.range.start);
                counts.files.add(u64::from(read.range.end == read.identity.size));
                self.audit.got(&path, &read.range, read.identity.size);
                // What was asked for at once is not asked for again.
                *self.last = (read.range != (0..read.identity.size)).then_some(source);
                Ok(Ok(()))
            }
            Sent::Changed(None) => Ok(Ok(())),
            Sent::Changed(Some(answer)) => Ok(stream.reply(&Reply::Answer(answer))),
            Sent::Over(why) => Err(Ending::refused(why)),
        }
    }

    /// The file, if it is in this state; otherwise what is answered.
    fn find(&mut self, path: &RemotePath, identity: &Identity) -> Result<Source, Answer> {
        if let Some(last) = self.last.take().filter(|last| last.path == *path && last.is_as(identity)) {
            return Ok(last);
        }
        let opened = self.session.home.store.open_source(self.folders, path);
        let (file, found) = opened.map_err(|error| Answer { status: Status::Refused, reason: error.to_string() })?;
        if found != *identity {
            return Err(Answer::of(Status::Voided));
        }
        Ok(Source { path: path.clone(), file })
    }
}

pub(super) fn refused(error: &impl ToString) -> Reply {
    Reply::Answer(Answer { status: Status::Refused, reason: error.to_string() })
}

/// Sends a range of a file behind what waits already. What has not left by then is taken back if the file
/// turns out to be another.
fn send(source: &Source, read: &Read, session: &Session, outbox: &mut Outbox, outgoing: &mut Outgoing<'_>) -> io::Result<Sent> {
    let mut header = Vec::new();
    v2::reply::encode(&mut header, &Reply::Content);
    // With its first block it is one write.
    let first_len = BLOCK_LEN.min(usize::try_from(read.range.end - read.range.start).unwrap_or(BLOCK_LEN));
    outbox.make_room(outgoing, header.len() + first_len + BLOCK_MARKS_LEN)?;
    let position = outbox.position();
    outbox.put(outgoing, &header)?;
    let mut run = Run {
        range: read.range.clone(),
        size: read.identity.size,
        is_sparse: read.is_sparse,
        checksum: session.open.checksum,
        binding: read.binding,
    };
    let mut over = None;
    let mut answer = Answer::of(Status::Voided);
    let mut is_whole = true;
    while is_whole && over.is_none() && run.range.start < read.range.end {
        // Blocks are aligned to the file, and so are these steps.
        let step_end = (run.range.start - run.range.start % CONTENT_STEP_LEN).saturating_add(CONTENT_STEP_LEN);
        run.range.end = step_end.min(read.range.end);
        match pump::file_to_blocks(&source.file, &run, outbox, outgoing, &mut Times::default(), None)? {
            Reading::Whole => {}
            Reading::Short => is_whole = false,
            Reading::Failed(error) => {
                is_whole = false;
                tracing::warn!("can't read {}: {error}", source.path);
                answer = Answer { status: Status::Refused, reason: format!("can't read {}: {error}", source.path) };
            }
        }
        run.range.start = run.range.end;
        over = session.over();
        if let Some(reason) = refusal_for(&session.home, TO_READ) {
            is_whole = false;
            answer = Answer { status: Status::Refused, reason };
        }
    }
    if is_whole && over.is_none() && source.is_as(&read.identity) {
        pump::end_blocks(outbox, outgoing, true)?;
        return Ok(Sent::Whole);
    }
    let is_taken_back = outbox.take_back(position);
    if !is_taken_back {
        pump::end_blocks(outbox, outgoing, false)?;
    }
    Ok(match over {
        Some(why) => Sent::Over(why),
        None => Sent::Changed(is_taken_back.then_some(answer)),
    })
}

/// Bytes around a block: marks and a digest of any kind.
const BLOCK_MARKS_LEN: usize = 64;
