//! Takes ranges of files that are published when they are whole.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::time::Instant;

use super::{Landing, NotTaken};
use crate::limits::{JOURNALED_LEN_MIN, WANTED_RANGES_MAX};
use crate::protocol::{Answer, Put, Reply, Status, Wanted};
use crate::pump::{self, Block, Ended, Inbox, Run, Times};
use crate::ranges;
use crate::store::{Folders, Incoming, Joined, State, Store};
use crate::subtrees::Subtrees;

/// One who takes ranges.
#[derive(Debug)]
pub struct Taker<'a> {
    /// Where they land.
    pub landing: &'a Landing,
    /// The tree that that is in.
    pub store: &'a Store,
    /// The folders that this one holds open.
    pub folders: &'a mut Folders,
}

impl Taker<'_> {
    /// Takes the payload that follows, from `inbox` and then from `stream`. Whatever is wrong with the
    /// file, the stream is behind the payload afterwards. `going` is called now and then where the start
    /// takes long; what it says ends that. BLAKE3 values of what came go to `subtrees` where they are wanted.
    ///
    /// # Errors
    /// Those of the stream; `InvalidData` where what comes is no payload.
    pub fn take<S: io::Read>(
        mut self, inbox: &mut Inbox, stream: &mut S, put: &Put, times: &mut Times, going: impl FnMut(&mut S) -> io::Result<()>,
        subtrees: Option<&mut Subtrees>,
    ) -> io::Result<Reply> {
        let run = self.run_of(put);
        let before = Instant::now();
        let found = self.find(put, stream, going);
        times.file += before.elapsed();
        let answer = match found {
            Ok(incoming) => {
                let taken = self.take_to(&incoming, inbox, stream, &run, times, subtrees);
                self.let_go_of(&incoming, put);
                taken
            }
            Err(answer) => pump::blocks_to_file(inbox, stream, &run, times, None, None).map(|_| Reply::Answer(answer)),
        };
        self.landing.counts.verifying.add(times.digest);
        self.landing.counts.writing.add(times.file);
        answer
    }

    /// What is wanted of the file that `put` is an empty range of, without a payload.
    ///
    /// # Errors
    /// That of `going`, which is called now and then where that takes long.
    pub fn ask(mut self, put: &Put, mut going: impl FnMut() -> io::Result<()>) -> Reply {
        let found = self.find(put, &mut (), |()| going());
        match found {
            Ok(incoming) => {
                let answer = self.note(&incoming, put.range.clone(), put.file.identity.size, None);
                self.let_go_of(&incoming, put);
                answer
            }
            Err(answer) => Reply::Answer(answer),
        }
    }

    fn run_of(&self, put: &Put) -> Run {
        Run {
            range: put.range.clone(),
            size: put.file.identity.size,
            is_sparse: put.file.is_sparse,
            checksum: self.landing.rules.checksum,
            binding: put.binding,
        }
    }

    fn let_go_of(&self, incoming: &Incoming, put: &Put) {
        if incoming.is_published() {
            self.store.note_published();
        }
        if is_in_one_piece(&put.range, put.file.identity.size) {
            self.landing.note_ended(incoming);
        }
    }

    /// The file that a range belongs to; or what is answered once the range was read and dropped.
    fn find<S>(
        &mut self, put: &Put, stream: &mut S, mut going: impl FnMut(&mut S) -> io::Result<()>,
    ) -> Result<Arc<Incoming>, Answer> {
        let (landing, identity) = (self.landing, &put.file.identity);
        let refuse = |why: NotTaken| refused(&why);
        let Some(_open) = landing.hold_open() else { return Err(refuse(NotTaken::TooLate)) };
        if landing.rules.is_dry {
            return Err(refuse(NotTaken::OnlyAsking));
        }
        let path = landing.base.join(&put.path).map_err(|error| refused(&error))?;
        if landing.is_voided(&path, identity) {
            return Err(Answer::of(Status::Voided));
        }
        let on_existing = landing.on_existing();
        if is_in_one_piece(&put.range, identity.size) {
            let begun = self.store.begin(self.folders, &path, &put.file, on_existing);
            let incoming = Arc::new(begun.map_err(|error| refused(&error))?);
            landing.note_begun(&incoming);
            return Ok(incoming);
        }
        // What is at its path may say something else by now: a time cut short, or a change by others.
        if landing.is_published(&path, identity) {
            return Err(Answer::of(Status::Had));
        }
        let joined = self.store.join(self.folders, &path, &put.file, on_existing, &mut || going(stream));
        match joined.map_err(|error| refused(&error))? {
            Joined::Incoming(incoming) => {
                landing.keep(&incoming);
                if landing.is_voided(&path, identity) {
                    landing.let_go(&incoming);
                    incoming.void();
                    return Err(Answer::of(Status::Voided));
                }
                // It may have been published before this one was begun, and been noted since.
                if landing.is_published(&path, identity) {
                    landing.let_go(&incoming);
                    incoming.discard();
                    return Err(Answer::of(Status::Had));
                }
                Ok(incoming)
            }
            Joined::Had => Err(Answer::of(Status::Had)),
        }
    }

    /// Writes what comes to an incoming file.
    fn take_to(
        &self, incoming: &Incoming, inbox: &mut Inbox, stream: &mut impl io::Read, run: &Run, times: &mut Times,
        subtrees: Option<&mut Subtrees>,
    ) -> io::Result<Reply> {
        let mut failed = None;
        let mut blocks = incoming.begin_blocks(run.binding, run.checksum);
        let mut write = |block: Block<'_>| {
            if failed.is_none() {
                failed = match block {
                    Block::Data(offset, bytes, digest) => blocks.write(offset, bytes, digest).err(),
                    Block::Hole(range) => blocks.leave_hole(range).err(),
                };
            }
        };
        let ended = pump::blocks_to_file(inbox, stream, run, times, Some(&mut write), subtrees);
        drop(blocks);
        let ended = ended?;
        let before = Instant::now();
        let reply = match (failed, ended) {
            (None, Ended::Mismatched) => Reply::Answer(Answer::of(Status::Mismatched)),
            (None, Ended::Void) => self.void(incoming, run),
            (failed, _) => self.note(incoming, run.range.clone(), run.size, failed),
        };
        times.file += before.elapsed();
        Ok(reply)
    }

    /// The source of what came is not what it was.
    fn void(&self, incoming: &Incoming, run: &Run) -> Reply {
        let Some(_open) = self.landing.hold_open() else { return Reply::Answer(refused(&NotTaken::TooLate)) };
        // First the landing: who is about to bring a piece looks there once more.
        if run.range != (0..run.size) {
            self.landing.void(incoming);
        }
        incoming.void();
        Reply::Answer(Answer::of(Status::Voided))
    }

    /// Notes a range that came, unless writing it `failed`.
    fn note(&self, incoming: &Incoming, range: Range<u64>, size: u64, failed: Option<crate::store::Error>) -> Reply {
        let landing = self.landing;
        let Some(_open) = landing.hold_open() else { return Reply::Answer(refused(&NotTaken::TooLate)) };
        let noted = failed.map_or_else(|| incoming.note(range.clone()), Err);
        if noted.is_ok() {
            landing.counts.bytes.add(range.end - range.start);
        }
        Reply::Answer(match noted {
            Ok(State::Stored) if range.is_empty() => return Reply::Wanted(wanted_of(incoming)),
            Ok(State::Stored) => Answer::of(Status::Stored),
            Ok(State::Published { note }) => {
                if is_in_one_piece(&range, size) {
                    landing.let_go(incoming);
                } else {
                    landing.note_published(incoming);
                }
                landing.counts.files.add(1);
                Answer { status: Status::Published, reason: note.unwrap_or_default() }
            }
            // Another connection brought the rest of it meanwhile, or was told that it changed.
            Err(_) if incoming.is_published() || landing.is_published(incoming.path(), incoming.identity()) => {
                Answer::of(Status::Had)
            }
            Err(_) if incoming.is_voided() => Answer::of(Status::Voided),
            Err(error) => {
                incoming.abandon();
                landing.let_go(incoming);
                refused(&error)
            }
        })
    }
}

/// Does a file come in one piece, so that nobody else brings one and nothing of it is kept?
fn is_in_one_piece(range: &Range<u64>, size: u64) -> bool {
    *range == (0..size) && size <= JOURNALED_LEN_MIN
}

fn refused(error: &impl ToString) -> Answer {
    Answer { status: Status::Refused, reason: error.to_string() }
}

fn wanted_of(incoming: &Incoming) -> Wanted {
    let mut ranges = incoming.missing();
    let bytes = ranges::total(&ranges);
    ranges.truncate(WANTED_RANGES_MAX);
    Wanted { bytes, ranges }
}
